"""The work as a script: ``python -m tests.bench.bare DATA OUT``."""

import sys
from pathlib import Path

from tests.bench.work import evaluate, fit, read, split, validate, write

training, holdout = split(validate(read(Path(sys.argv[1]))))
model = fit(training)
print(evaluate(model, holdout))
write(model, Path(sys.argv[2]) / "model.pkl")
