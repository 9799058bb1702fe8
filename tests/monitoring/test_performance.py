"""Labelled rows beside the release: worse, better, by chance, in one slice, and not at all."""

import datetime as dt
import math
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlops_assets.evidence import Evidence
from mlops_assets.monitoring.labels import PREDICTED, TARGET, Joined, Labelled
from mlops_assets.monitoring.performance import judge
from mlops_assets.monitoring.pictures import draw, performance_series
from mlops_assets.monitoring.report import Report
from mlops_assets.spec import METRICS, OF_PROBABILITIES, Task
from mlops_assets.training.evaluation import metrics
from mlops_assets.training.export import distribution
from mlops_assets.training.metrics import Judged, unit_values
from tests.monitoring.windows import NOW, captured, look, model, moved, reference

LABELS = np.array(["a", "b"])
COLUMNS = {"x": "{type: float}", "side": "{type: string, categories: [left, right]}"}
#: Of metrics that are no shares; those are from 0 to 1.
RANGES = {
    "r2": (-math.inf, 1.0),
    "root_mean_squared_error": (0.0, math.inf),
    "mean_absolute_error": (0.0, math.inf),
}
POLICY = "slices: [side]\nmonitoring: {minimum_rows: 100}"


def guessed(random: np.random.Generator, target: np.ndarray, right: float) -> np.ndarray:
    """Predictions of which a share is right."""
    other = np.where(target == "a", "b", "a")
    return np.where(random.random(len(target)) < right, target, other)


def released(random: np.random.Generator, rows: int = 400, right: float = 0.9) -> Evidence:
    """Evidence of a version with that accuracy on its holdout, on both sides."""
    target = random.choice(LABELS, rows)
    predicted = guessed(random, target, right)
    judged = Judged("binary", target, predicted, None, LABELS)
    half = Judged("binary", target[::2], predicted[::2], None, LABELS)
    return Evidence.model_validate(
        {
            "task": "binary",
            "metrics": metrics(judged),
            "holdout": {"rows": rows, "training_rows": 1000, "digest": ""},
            "slices": [
                {"column": "side", "value": v, "rows": rows // 2, "metrics": unit_values(half)}
                for v in ("left", "right")
            ],
            "importance": [],
            "predictions": distribution(judged),
            "seconds": {},
        }
    )


class World:
    """A reference, and windows whose rows are labelled later."""

    def __init__(self, folder: Path, seed: int = 0) -> None:
        self.folder, self.random = folder, np.random.default_rng(seed)
        self.spec = model(COLUMNS, POLICY, "binary")
        self.release = released(self.random)
        rows = self.rows(2000)
        self.snapshot = reference(folder, {**rows, "y": self.random.choice(LABELS, 2000)})

    def rows(self, n: int) -> dict[str, np.ndarray]:
        return {
            "id": np.arange(n),
            "x": self.random.normal(size=n),
            "side": self.random.choice(["left", "right"], n),
        }

    def look(
        self, n: int, right: float, right_left: float | None = None, share: float = 0.5
    ) -> Report:
        """A window of n labelled rows, predicted right so often, perhaps otherwise on the left."""
        rows = self.rows(n)
        target = self.random.choice(LABELS, n, p=[share, 1 - share])
        predicted = guessed(self.random, target, right)
        if right_left is not None:
            left = guessed(self.random, target, right_left)
            predicted = np.where(rows["side"] == "left", left, predicted)
        window = captured(self.folder / "w.parquet", rows, predicted.tolist())
        pa_csv.write_csv(pa.table({"id": rows["id"], "y": target}), self.folder / "labels.csv")
        labelled = Labelled([self.folder / "labels.csv"], [window])
        return look(window, self.snapshot, self.spec, self.release, labelled)


def test_worse_is_an_alarm_with_both_values(tmp_path: Path) -> None:
    verdict = World(tmp_path).look(400, 0.75).verdict("performance")
    assert verdict.status == "alarm"
    assert verdict.reason.startswith("accuracy 0.7")
    assert "at release over 400 labelled rows" in verdict.reason


def test_better_is_none(tmp_path: Path) -> None:
    report = World(tmp_path).look(400, 1.0)
    assert report.verdict("performance").status == "ok"
    assert report.performance is not None
    assert report.performance.metrics[0].live.value == 1.0


def test_by_chance_it_is_none(tmp_path: Path) -> None:
    """As at release: alarms at most at the stated rate, over all and two slices."""
    alarms = 0
    for seed in range(20):
        report = World(tmp_path, seed).look(200, 0.9)
        alarms += report.verdict("performance").status == "alarm"
    assert alarms <= 2  # 0.01 each: more has a chance of 0.1 %


def test_a_perfect_holdout_of_few_rows_promises_less(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.release = released(world.random, 40, 1.0)
    assert world.release.metrics["accuracy"].lower == 1.0
    assert world.look(200, 0.96).verdict("performance").status == "ok"


def test_one_slice_alone_is_named(tmp_path: Path) -> None:
    report = World(tmp_path).look(600, 0.95, right_left=0.65)
    verdict = report.verdict("performance")
    assert verdict.status == "alarm"
    assert "worse where side left: accuracy 0.5" in verdict.reason
    assert report.performance is not None
    assert {s.value: s.status for s in report.performance.slices} == {
        "left": "alarm",
        "right": "ok",
    }


def test_few_labels_are_no_verdict(tmp_path: Path) -> None:
    report = World(tmp_path).look(30, 0.1)
    verdict = report.verdict("performance")
    assert verdict.status == "too_few_rows"
    assert "30 labelled rows" in verdict.reason
    assert report.performance is not None
    assert {s.status for s in report.performance.slices} == {"too_few_rows"}


def test_the_rate_of_the_target_is_watched(tmp_path: Path) -> None:
    world = World(tmp_path)
    assert world.look(400, 0.9).target is not None
    assert "y" not in moved(world.look(400, 0.9))
    assert "y" in moved(world.look(400, 0.9, share=0.85))


def test_labels_without_their_key_in_the_requests(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.look(300, 0.9)
    table = pq.read_table(tmp_path / "w.parquet").drop_columns(["id"])
    pq.write_table(table, tmp_path / "w.parquet")
    labelled = Labelled([tmp_path / "labels.csv"], [tmp_path / "w.parquet"])
    report = look(tmp_path / "w.parquet", world.snapshot, world.spec, world.release, labelled)
    verdict = report.verdict("performance")
    assert verdict.status == "unknown"
    assert verdict.reason == "no request carried the key id, so that no label finds its row"


def test_labels_without_the_target_column(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.look(300, 0.9)
    pa_csv.write_csv(pa.table({"id": [1], "z": ["a"]}), tmp_path / "labels.csv")
    labelled = Labelled([tmp_path / "labels.csv"], [tmp_path / "w.parquet"])
    report = look(tmp_path / "w.parquet", world.snapshot, world.spec, world.release, labelled)
    reason = "no labels can be read: labels.csv: no column y"
    assert report.verdict("performance").reason == reason
    assert report.unreadable == ["labels.csv: no column y"]


def test_the_last_prediction_of_a_key_counts_and_another_version_does_not(tmp_path: Path) -> None:
    world = World(tmp_path)
    n = 200
    rows, target = world.rows(n), world.random.choice(LABELS, n)
    wrong = np.where(target == "a", "b", "a").tolist()
    early, late = NOW - dt.timedelta(hours=3), NOW - dt.timedelta(hours=2)
    files = [
        captured(tmp_path / "1.parquet", rows, wrong, at=early),
        captured(tmp_path / "2.parquet", rows, target.tolist(), at=late),
        captured(tmp_path / "3.parquet", rows, wrong, version=2),
    ]
    pa_csv.write_csv(pa.table({"id": rows["id"], "y": target}), tmp_path / "labels.csv")
    labelled = Labelled([tmp_path / "labels.csv"], files)
    report = look(files, world.snapshot, world.spec, world.release, labelled)
    assert report.performance is not None
    assert report.performance.joined == n
    assert report.performance.metrics[0].live.value == 1.0


def test_regression_worse_by_more_than_its_tolerance(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    spec = model({"x": "{type: float}"}, "monitoring: {performance: {tolerance: 0.2}}")
    target = random.normal(size=300)
    judged = Judged("regression", target, target + random.normal(0, 1, 300))
    release = Evidence.model_validate(
        {
            "task": "regression",
            "metrics": metrics(judged),
            "holdout": {"rows": 300, "training_rows": 1000, "digest": ""},
            "slices": [],
            "importance": [],
            "seconds": {},
        }
    )
    x = random.normal(size=500)
    snapshot = reference(tmp_path, {"id": np.arange(500), "x": x, "y": random.normal(size=500)})
    for spread, status in ((1.0, "ok"), (1.15, "ok"), (2.0, "alarm"), (0.5, "ok")):
        truth = random.normal(size=500)
        predicted = truth + random.normal(0, spread, 500)
        window = captured(tmp_path / "w.parquet", {"id": np.arange(500), "x": x}, predicted)
        pq.write_table(pa.table({"id": np.arange(500), "y": truth}), tmp_path / "y.parquet")
        labelled = Labelled([tmp_path / "y.parquet"], [window], "parquet")
        verdict = look(window, snapshot, spec, release, labelled).verdict("performance")
        assert verdict.status == status, verdict.reason


def test_a_series_of_reports_and_its_pictures(tmp_path: Path) -> None:
    world = World(tmp_path)
    reports = []
    for day, right in enumerate((0.9, 0.85, 0.8)):
        found = world.look(300, right, share=0.5 if day < 2 else 0.9)
        reports.append(found.model_copy(update={"time": NOW + dt.timedelta(days=day)}))
    again = [Report.model_validate_json(report.model_dump_json()) for report in reports]
    assert again == reports
    series = performance_series(again[::-1])
    assert [report.time.day for report, _ in series] == [1, 2, 3]
    files = draw(tmp_path / "pictures", again[-1], again[:-1])
    assert [file.name for file in files] == ["1-drift.png", "2-drift.png", "performance.png"]
    for file in files:
        assert file.read_bytes().startswith(b"\x89PNG")
        assert file.stat().st_size < 100_000


@pytest.mark.parametrize("files", [0, 1])
def test_without_labels_performance_is_unknown(tmp_path: Path, files: int) -> None:
    world = World(tmp_path)
    window = captured(tmp_path / "w.parquet", world.rows(200))
    report = look([window] * files, world.snapshot, world.spec, world.release)
    assert report.verdict("performance").status == "unknown"
    assert report.performance is None


#: What was true, and what was predicted.
Side = tuple[list[float], list[float]]


class Drawn(NamedTuple):
    """A task, a metric, and two slices at release and now."""

    task: Task
    metric: str
    then: list[Side]
    now: list[Side]


@st.composite
def drawn(draw: st.DrawFn) -> Drawn:
    task = draw(st.sampled_from(sorted(METRICS)))
    metric = draw(st.sampled_from([m for m in METRICS[task] if m not in OF_PROBABILITIES]))
    labels = {"binary": [0.0, 1.0], "multiclass": [0.0, 1.0, 2.0]}
    values = st.sampled_from(labels[task]) if task in labels else st.floats(-1e3, 1e3, width=32)
    # Slices that are perfect, or always wrong, lie at the ends of the range.
    rights = st.sampled_from(["all", "none", "some"])

    def side() -> Side:
        target = draw(st.lists(values, min_size=12, max_size=30))
        right = draw(rights)
        if right == "all":
            return target, target
        others = draw(st.lists(values, min_size=len(target), max_size=len(target)))
        if right == "none" and task in labels:
            others = [(t + 1) % len(labels[task]) for t in target]
        return target, others

    return Drawn(task, metric, [side(), side()], [side(), side()])


def side_by_side(task: Task, sides: list[Side]) -> tuple[list[Judged], Judged]:
    """Each slice alone, and all rows."""
    targets, predicted = ([np.array(side[i]) for side in sides] for i in (0, 1))
    known = np.array([0.0, 1.0] if task == "binary" else [0.0, 1.0, 2.0])
    labels = None if task == "regression" else known

    def judged(target: np.ndarray, found: np.ndarray) -> Judged:
        return Judged(task, target, found, None, labels)

    slices = [judged(*pair) for pair in zip(targets, predicted, strict=True)]
    return slices, judged(np.concatenate(targets), np.concatenate(predicted))


@settings(max_examples=60, deadline=None)
@given(drawn())
def test_no_interval_leaves_the_range_of_its_metric(case: Drawn) -> None:
    slices, whole = side_by_side(case.task, case.then)
    kept = {
        "task": case.task,
        "metrics": metrics(whole),
        "holdout": {"rows": len(whole.target), "training_rows": 1000, "digest": ""},
        "slices": [
            {"column": "side", "value": v, "rows": len(s.target), "metrics": unit_values(s)}
            for v, s in zip(("left", "right"), slices, strict=True)
        ],
        "importance": [],
        "seconds": {},
    }
    policy = f"performance: {{metric: {case.metric}, minimum_rows: 10}}"
    spec = model(COLUMNS, f"slices: [side]\nmonitoring: {{{policy}}}", case.task)
    _, now = side_by_side(case.task, case.now)
    sides = ["left"] * len(case.now[0][0]) + ["right"] * len(case.now[1][0])
    table = pa.table({TARGET: now.target, PREDICTED: now.predicted, "side": sides})
    joined = Joined(len(sides), table)
    found = judge(joined, spec, Evidence.model_validate(kept))
    compared = [*found.metrics, *(s.metric for s in found.slices if s.metric is not None)]
    assert found.metrics
    for metric in compared:
        least, most = RANGES.get(metric.metric, (0.0, 1.0))
        for interval in (metric.live, metric.release):
            if interval is not None:
                assert least <= interval.lower <= interval.upper <= most
        if metric.difference is not None:
            assert (
                least - most <= metric.difference.lower <= metric.difference.upper <= most - least
            )


def test_a_slice_above_the_whole_has_less_room(tmp_path: Path) -> None:
    """Half of the holdout is right nearly always: its interval would have ended above 1."""
    world = World(tmp_path)
    left, whole = world.release.slices[0], world.release.metrics["accuracy"]
    better = left.model_copy(update={"rows": 20, "metrics": {**left.metrics, "accuracy": 0.99}})
    world.release = world.release.model_copy(update={"slices": [better, *world.release.slices[1:]]})
    report = world.look(400, 0.9)
    assert report.performance is not None
    (metric,) = [s.metric for s in report.performance.slices if s.value == "left"]
    assert metric is not None
    assert metric.release is not None
    assert metric.release.upper == 1.0
    assert metric.release.lower < 0.99 - (whole.value - whole.lower), "as wide as of 20 rows"
