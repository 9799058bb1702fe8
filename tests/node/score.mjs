// node score.mjs MODEL.onnx SCHEMA.json SAMPLE.json
//
// Scores the rows of a sample, knowing of the model what its schema says and nothing else, and
// prints the answer as an endpoint would.
import { readFile } from "node:fs/promises";
import { InferenceSession, Tensor } from "onnxruntime-node";

const ARRAYS = {
  float32: (values) => Float32Array.from(values, Number), // Number("NaN") is NaN
  float64: (values) => Float64Array.from(values, Number),
  int64: (values) => BigInt64Array.from(values, BigInt),
  bool: (values) => Uint8Array.from(values, Number),
  string: (values) => values,
};

function feed({ name, tensor }, rows) {
  const values = rows.map((row) => row[name] ?? tensor.missing);
  return new Tensor(tensor.type, ARRAYS[tensor.type](values), [rows.length, 1]);
}

function plain(value) {
  return typeof value === "bigint" ? Number(value) : value;
}

function answer(schema, outputs, rows) {
  if (schema.labels === null) {
    return { predictions: Array.from(outputs.prediction.data) };
  }
  // What the tensor calls a label, and what the model was taught to call it.
  const { values } = schema.onnx.outputs.find((output) => output.name === "label");
  const found = Array.from(outputs.label.data, plain);
  const result = { predictions: found.map((value) => schema.labels[values.indexOf(value)]) };
  if (outputs.probabilities !== undefined) {
    const shares = Array.from(outputs.probabilities.data);
    const width = schema.labels.length;
    result.probabilities = rows.map((_, row) =>
      Object.fromEntries(schema.labels.map((label, i) => [label, shares[row * width + i]])),
    );
  }
  return result;
}

const [model, ...documents] = process.argv.slice(2);
const [schema, { input }] = await Promise.all(
  documents.map(async (path) => JSON.parse(await readFile(path, "utf8"))),
);
const session = await InferenceSession.create(model);
const feeds = Object.fromEntries(schema.features.map((f) => [f.tensor.name, feed(f, input)]));
console.log(JSON.stringify(answer(schema, await session.run(feeds), input)));
