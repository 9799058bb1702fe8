"""``make demo-azure``: the whole graph on Azure, twice, with the Azure of the tests behind it.

Nothing of the platform knows: it is what people start, with the variables that find this Azure.
First the infrastructure as the documents say and every sample model to production; then a commit
that changes a model, and the new version takes the place of the old one, blue to green.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import IO

from resources.environment import checkout
from tests.azure.server import AzureServer

ENVIRONMENTS = ("staging", "production")
MODEL_YAML = "mlops_assets/models/diabetes/model.yaml"


def main() -> int:
    """Run it; exit code 1 where a command does not end as it should, or a request was wrong."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--keep", action="store_true", help="Wait for Ctrl-C before all ends.")
    options = parser.parse_args()
    with closing(AzureServer()) as server, tempfile.TemporaryDirectory(prefix="demo-") as name:
        demo = Demo(server, Path(name))
        try:
            demo.run()
        except subprocess.CalledProcessError as error:
            print(f"{_shown(error.cmd)}: exit code {error.returncode}", file=sys.stderr)
            return 1
        if options.keep:
            demo.wait()
        return demo.verdict()


class Demo:
    """The commands, with a state folder and a clone of their own."""

    def __init__(self, server: AzureServer, folder: Path, output: IO[str] | None = None) -> None:
        """Prepare it.

        Args:
            server: the Azure that they find.
            folder: takes the clone and the state.
            output: what they print goes there.
        """
        self._server, self._output = server, output
        self.state = folder / "state"
        self._source = folder / "repository"
        self._variables = {
            **os.environ,
            **server.environment(),
            "MLOPS_PROFILE": "azure",
            "MLOPS_HOME": str(self.state),
            "MLOPS_REPOSITORY": str(self._source),
        }

    def run(self) -> None:
        """Both releases; raises CalledProcessError where a command does not end as it should."""
        subprocess.run(["git", "clone", "--quiet", str(checkout()), str(self._source)], check=True)
        self._git("checkout", "--quiet", "-B", "main")
        for environment in ENVIRONMENTS:
            self._mlops("plan", environment, code=2)
            self._mlops("plan", environment, "--apply")
        self._mlops("demo")
        for environment in ENVIRONMENTS:
            self._mlops("plan", environment)
        self._mlops("invoke", "diabetes", "production")
        self._change()
        self._mlops("demo")
        self._mlops("invoke", "diabetes", "production")
        self._mlops("history", "diabetes")

    def wait(self) -> None:
        """Until somebody has seen enough."""
        names = self._server.environment().keys() | {"MLOPS_PROFILE", "MLOPS_HOME"}
        for name in sorted(names):
            print(f"export {name}={self._variables[name]}")
        print("Ctrl-C ends it", flush=True)
        try:
            while True:
                time.sleep(3600)
        except KeyboardInterrupt:
            print()

    def verdict(self) -> int:
        """Print what was exchanged, and say whether all of it was right."""
        found, broken = self._server.findings(), self._server.record.broken
        exchanges = len(self._server.record.exchanges())
        print(f"\n{found.summary() if found else f'{exchanges} exchanges'}")
        wrong = [str(finding) for finding in found.requests + found.responses] if found else []
        for line in [*wrong, *broken]:
            print(line, file=sys.stderr)
        return 1 if wrong or broken else 0

    def _change(self) -> None:
        """Commit another penalty of the ridge regression."""
        path = self._source / MODEL_YAML
        text, count = re.subn(r"alpha: [\d.]+", "alpha: 0.07", path.read_text())
        assert count == 1
        path.write_text(text)
        author = ["-c", "user.name=A data scientist", "-c", "user.email=data@example.com"]
        self._git(*author, "commit", "--quiet", "--all", "--message", "A smaller penalty")

    def _git(self, *arguments: str) -> None:
        subprocess.run(["git", "-C", str(self._source), *arguments], check=True)

    def _mlops(self, *arguments: str, code: int = 0) -> None:
        command = [str(Path(sys.executable).with_name("mlops")), *arguments]
        print(f"\n$ {_shown(command)}", flush=True, file=self._output)
        began = time.perf_counter()
        done = subprocess.run(
            command, env=self._variables, stdout=self._output, stderr=self._output
        )
        print(f"# {time.perf_counter() - began:.1f} s", flush=True, file=self._output)
        if done.returncode != code:
            raise subprocess.CalledProcessError(done.returncode, command)


def _shown(command: list[str]) -> str:
    return " ".join([Path(command[0]).name, *command[1:]])


if __name__ == "__main__":
    sys.exit(main())
