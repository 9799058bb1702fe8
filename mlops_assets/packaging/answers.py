"""What a version's endpoint answers, in a process of its own.

``python -m mlops_assets.packaging.answers BUNDLE DIGEST`` reads a JSON list of requests' bodies
from stdin and prints the list of answers; null where a body is refused.
"""

from __future__ import annotations

import contextlib
import json
import sys
from pathlib import Path
from typing import Any

from mlops_assets.scoring.deployments import Deployment
from mlops_assets.scoring.errors import RequestError
from mlops_assets.scoring.generation import Entry
from mlops_assets.scoring.metrics import Tally
from mlops_assets.scoring.predictor import Predictor
from mlops_assets.scoring.responder import Responder


def main() -> None:
    """Load the version and answer."""
    bundle, digest = sys.argv[1:]
    with contextlib.redirect_stdout(sys.stderr):  # what a model prints is no part of the answers
        predictor = Predictor.load(Path(bundle), digest)
        entry = Entry(bundle, digest, version=0)
        responder = Responder(Deployment("", entry, predictor), Tally())
        answers = [_answer(responder, json.dumps(body).encode()) for body in json.load(sys.stdin)]
    print(json.dumps(answers))


def _answer(responder: Responder, body: bytes) -> Any:
    try:
        return json.loads(responder.answer(body))
    except RequestError:
        return None


if __name__ == "__main__":
    main()
