// Reads one exchange a line from standard input, writes its findings to standard output; ends
// with whoever holds the other end. Argument: the folder of azure-rest-api-specs.
"use strict";
const path = require("node:path");
const readline = require("node:readline");
const { LiveValidator } = require("oav/dist/lib/liveValidation/liveValidator.js");

async function main() {
  const validator = new LiveValidator(
    {
      directory: path.join(process.argv[2], "specification"),
      git: { shouldClone: false },
      swaggerPathsPattern: ["**/resource-manager/**/*.json"],
      excludedSwaggerPathsPattern: ["**/examples/**", "**/common-types/**"],
      isPathCaseSensitive: false,
      loadValidatorInBackground: false,
      loadValidatorInInitialize: false,
    },
    () => {},
  );
  await validator.initialize();
  for await (const line of readline.createInterface({ input: process.stdin })) {
    const result = await validator.validateLiveRequestResponse(JSON.parse(line));
    process.stdout.write(`${JSON.stringify(summary(result))}\n`);
  }
}

function summary(result) {
  const { requestValidationResult: request, responseValidationResult: response } = result;
  return {
    operation: request.operationInfo.operationId,
    request: findings(request, result.runtimeException),
    response: findings(response),
  };
}

function findings(side, exception) {
  const found = side.errors.map(({ code, message, pathsInPayload, jsonPathsInPayload }) => ({
    code,
    message,
    path: (jsonPathsInPayload || pathsInPayload || []).join(", "),
  }));
  for (const thrown of [side.runtimeException, exception]) {
    if (thrown) found.push({ code: thrown.code || "RUNTIME_EXCEPTION", message: thrown.message, path: "" });
  }
  return found;
}

main().catch((error) => {
  process.stderr.write(`${error.stack}\n`);
  process.exit(1);
});
