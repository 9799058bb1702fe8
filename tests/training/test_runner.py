from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from mlops_assets.files import read_json
from tests.repository import MODEL_YAML, TRAIN_PY
from tests.training.requests import make_case

#: Training that also draws on what may differ between processes: hashes and random numbers.
FOREST_PY = """
from sklearn.compose import make_column_transformer
from sklearn.ensemble import RandomForestRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder


def build(params):
    columns = make_column_transformer((OneHotEncoder(), ["district"]), remainder="passthrough")
    return make_pipeline(columns, RandomForestRegressor(20))
"""
SOON = MODEL_YAML.replace("timeout_seconds: 60", "timeout_seconds: 3")


def test_the_same_request_gives_the_same_model(tmp_path) -> None:
    cases = [make_case(tmp_path / name, {"train.py": FOREST_PY}) for name in ("one", "two")]
    started = [c.process(PYTHONHASHSEED=str(i)) for i, c in enumerate(cases)]
    assert [process.wait(60) for process in started] == [0, 0]
    samples = [(case.output / "sample.json").read_bytes() for case in cases]
    assert samples[0] == samples[1]
    evidence = [case.evidence for case in cases]
    for one in evidence:
        del one["seconds"]
    assert evidence[0] == evidence[1]
    # The bytes are the same as well, as long as everything pickled comes from installed packages:
    # cloudpickle gives classes that travel by value a random name, and code its file's path.
    assert (cases[0].output / "model.pkl").read_bytes() == (
        cases[1].output / "model.pkl"
    ).read_bytes()
    assert not (cases[0].output / "timeout.txt").exists()


@pytest.mark.parametrize(
    ("text", "where"),
    [
        (
            "import time\ndef build(params):\n    while True:\n        time.sleep(0.1)\n",
            "error.json",
        ),
        # Native code that never gives the interpreter back.
        ("import ctypes\ndef build(params):\n    ctypes.PyDLL(None).sleep(100)\n", "timeout.txt"),
    ],
)
def test_a_hang_ends_in_time_and_shows_where(tmp_path, text: str, where: str) -> None:
    case = make_case(tmp_path, {"train.py": text}, yaml=SOON)
    process = case.process()
    assert process.wait(20) == 1
    shown = (case.output / where).read_text()
    assert "train.py" in shown
    assert "build" in shown
    if where == "error.json":
        assert case.error["kind"] == "timeout"
        assert case.error["message"] == (
            "training was ended after timeout_seconds of model.yaml (3 s)"
        )
    assert not (case.output / "evidence.json").exists()


def test_workers_end_with_a_training_that_is_too_late(tmp_path) -> None:
    text = (
        "import subprocess, time, pathlib\ndef build(params):\n"
        "    worker = subprocess.Popen(['sleep', '100'])\n"
        f"    pathlib.Path({str(tmp_path / 'pid')!r}).write_text(str(worker.pid))\n"
        "    time.sleep(100)\n"
    )
    case = make_case(tmp_path / "case", {"train.py": text}, yaml=SOON)
    assert case.process().wait(20) == 1
    assert not _runs(int((tmp_path / "pid").read_text()))


def test_a_failure_is_written_down(tmp_path) -> None:
    text = "def build(params):\n    raise ValueError('no\\nmore')\n"
    case = make_case(tmp_path, {"train.py": text})
    assert case.process().wait(60) == 1
    assert case.error["kind"] == "raised"
    assert case.error["message"] == "train.py:2: ValueError: no"
    assert "raise ValueError" in case.error["traceback"]
    assert case.error["traceback"].endswith("ValueError: no\nmore\n")


def test_os_exit_leaves_no_evidence(tmp_path) -> None:
    case = make_case(tmp_path, {"train.py": "import os\ndef build(params):\n    os._exit(0)\n"})
    assert case.process().wait(60) == 0
    assert not (case.output / "evidence.json").exists()


def test_a_thread_left_running_does_not_hold_the_process(tmp_path) -> None:
    text = (
        "import threading, time\nthreading.Thread(target=time.sleep, args=(100,)).start()\n"
        + TRAIN_PY
    )
    case = make_case(tmp_path, {"train.py": text})
    assert case.process().wait(60) == 0
    assert case.evidence["metrics"]["r2"]["value"] > 0.9


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_training_ends_with_its_parent_or_by_its_interrupt(tmp_path, number: int) -> None:
    # Holds the interpreter, so that no handler or thread of Python's can end it.
    text = (
        "import ctypes, os, pathlib\ndef build(params):\n"
        f"    pathlib.Path({str(tmp_path / 'started')!r}).touch()\n"
        "    ctypes.PyDLL(None).sleep(100)\n"
    )
    case = make_case(tmp_path / "case", {"train.py": text})
    case.process().kill()  # writes the request
    code = (
        "import os, subprocess, sys\n"
        "os.environ['MLOPS_RUN_PROCESS'] = str(os.getpid())\n"
        "child = subprocess.Popen([sys.executable, '-P', '-m', 'mlops_assets.training.runner', "
        f"{str(case.folder / 'request.json')!r}])\n"
        "print(child.pid, flush=True)\nchild.wait()\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    _wait(lambda: (tmp_path / "started").exists(), 30)
    os.kill(parent.pid if number == signal.SIGKILL else child, number)
    _wait(lambda: not _runs(child), 2)
    parent.kill()
    parent.wait()


def _runs(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def _wait(true, seconds: float) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, f"not within {seconds} s"
        time.sleep(0.02)


def test_compare_mode(tmp_path) -> None:
    case = make_case(tmp_path, {"train.py": TRAIN_PY})
    assert case.process().wait(60) == 0
    version = case.bundle()
    case.request.update(mode="compare", champion=version, candidate=version)
    del case.request["spec"]
    assert case.process().wait(60) == 0
    found = read_json(case.output / "comparison.json")
    assert found["status"] == "compared"
    assert found["metrics"]["r2"]["difference"] == {"value": 0, "lower": 0, "upper": 0}
