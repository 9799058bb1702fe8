"""A repository of models to test with: real git, real files, in a temporary folder."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

MODEL_YAML = """\
owner: team:tests
task: regression
data:
  location: rent
  key: [flat]
  target: rent
  minimum_rows: 20
  settle_seconds: 0
  columns:
    flat: {type: integer}
    area: {type: float, minimum: 0}
    rooms: {type: integer, minimum: 1, maximum: 9}
    district: {type: string, categories: [north, south], nullable: true}
    rent: {type: float}
slices: [district]
parameters: {alpha: 0.1}
timeout_seconds: 60
gates:
  quality: {r2: {minimum: 0.5}}
  champion: {metric: r2, tolerance: 0.05}
"""

TRAIN_PY = """\
from sklearn.compose import make_column_transformer
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder


def build(params):
    columns = make_column_transformer(
        (OneHotEncoder(handle_unknown="ignore"), ["district"]), remainder="passthrough"
    )
    return make_pipeline(columns, Ridge(alpha=params["alpha"]))
"""

#: Predicts the mean, whatever it is asked.
WORSE_TRAIN_PY = """\
from sklearn.dummy import DummyRegressor


def build(params):
    return DummyRegressor()
"""

SAMPLES = """\
[
  {"name": "a flat", "request": {"data": [{"area": 50, "rooms": 2, "district": "north"}]},
   "expect": {"predictions": 1, "minimum": 0, "maximum": 5000}},
  {"name": "no rooms", "request": {"data": [{"area": 50}]}, "expect": {"status": 400}}
]
"""


def rows(count: int, start: int = 0, noise: float = 20.0) -> str:
    """CSV text of flats whose rent follows from area, rooms and district."""
    lines = ["flat,area,rooms,district,rent"]
    for i in range(start, start + count):
        area, rooms = 30 + (i * 37) % 90, 1 + (i * 7) % 5
        district = ("north", "south", "")[i % 3]
        wobble = noise * (((i * 7919) % 101) / 50 - 1)
        rent = 8 * area + 40 * rooms + (100 if district == "north" else 0) + wobble
        lines.append(f"{i},{area}.5,{rooms},{district},{rent:.2f}")
    return "\n".join(lines) + "\n"


@dataclass(frozen=True)
class Repository:
    """A clone as a team would have it: models, environments, samples, under git."""

    path: Path

    def git(self, *arguments: str) -> str:
        """Run git there; the output without white space around it."""
        environment = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}
        identity = ["-c", "user.name=Ada", "-c", "user.email=ada@example.org"]
        done = subprocess.run(
            ["git", *identity, *arguments],
            cwd=self.path,
            env=environment,
            check=True,
            capture_output=True,
            text=True,
        )
        return done.stdout.strip()

    def write(self, path: str, text: str) -> Path:
        """Write a file of the work tree."""
        target = self.path / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
        return target

    def commit(self, message: str = "change") -> str:
        """Commit everything; the new commit's name."""
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "--message", message)
        return self.git("rev-parse", "HEAD")

    def train_py(self, text: str, message: str = "another train.py") -> str:
        """Commit another train.py of the model ``rent``."""
        self.write("mlops_assets/models/rent/train.py", text)
        return self.commit(message)


def make_repository(path: Path) -> Repository:
    """One model ``rent``, the environments development, staging and production."""
    repository = Repository(path)
    path.mkdir(parents=True, exist_ok=True)
    repository.git("init", "--quiet", "--initial-branch", "main")
    repository.write("mlops_assets/models/rent/model.yaml", MODEL_YAML)
    repository.write("mlops_assets/models/rent/train.py", TRAIN_PY)
    repository.write("mlops_assets/models/rent/README.md", "# rent\n\nWhat a flat costs.\n")
    repository.write(
        "environments/local/development.json",
        '{"name": "development", "target": "local", "development": true}',
    )
    repository.write("environments/local/staging.json", '{"name": "staging", "target": "local"}')
    repository.write(
        "environments/local/production.json",
        '{"name": "production", "target": "local", "promotes_from": "staging", "latency_ms": 2000}',
    )
    for environment in ("development", "staging", "production"):
        repository.write(f"samples/requests/rent/{environment}.json", SAMPLES)
    repository.commit("a model of rents")
    return repository
