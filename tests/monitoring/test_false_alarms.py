"""Windows in which nothing moved raise at most as many alarms as model.yaml allows."""

from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from scipy import stats

from mlops_assets.monitoring.bins import Bins, categorical, name_of, numeric
from mlops_assets.monitoring.columns import Case, judge
from mlops_assets.monitoring.policy import MinimumEffect, Monitoring
from mlops_assets.monitoring.reference import bins_of_values
from mlops_assets.monitoring.requests import Requests
from mlops_assets.monitoring.window import Counts
from tests.monitoring.windows import captured, halves, look, model, reference, sample, without

WINDOWS = 200
#: Every move counts, however small: the tests alone hold the rate.
ANY = MinimumEffect(psi=0, shift=0, share=0)


def most(rate: float, n: int = WINDOWS) -> int:
    """Alarms that so many windows exceed with a chance of one in a thousand at the stated rate."""
    return int(stats.binom.isf(0.001, n, rate))


def draw(kind: str, random: np.random.Generator, n: int) -> np.ndarray:
    """Values of one kind of column."""
    return {
        "normal": lambda: random.normal(size=n),
        "cauchy": lambda: random.standard_cauchy(n),
        "lognormal": lambda: random.lognormal(0, 3, n),
        "poisson": lambda: random.poisson(0.7, n).astype(float),
        "mostly_zero": lambda: np.where(random.random(n) < 0.97, 0.0, random.pareto(1, n)),
        "missing": lambda: np.where(random.random(n) < 0.3, np.nan, random.normal(size=n)),
        "few_names": lambda: random.choice(["a", "b", "c"], n, p=[0.9, 0.09, 0.01]),
        "many_names": lambda: np.array([f"v{i}" for i in random.zipf(1.6, n) % 5000]),
    }[kind]()


KINDS = (
    *("normal", "cauchy", "lognormal", "poisson"),
    *("mostly_zero", "missing", "few_names", "many_names"),
)


def bins(values: np.ndarray) -> Bins:
    if values.dtype.kind == "f":
        return numeric(values)
    return categorical(Counter(values.tolist()), 0)


def values_of(column: pa.ChunkedArray) -> np.ndarray:
    """A column as a window holds it."""
    return np.array(column.to_pylist(), dtype=object)


def case(name: str, one: Bins, values: np.ndarray, requests: Requests | None = None) -> Case:
    codes = one.codes(values)
    counts = np.bincount(codes[codes >= 0], minlength=len(one.counts)).astype(float)
    new = 0
    if one.edges is None:
        names = [name_of(v) for v in values.tolist() if v]
        new = sum(v not in one.names and v not in one.known for v in names)
    found = Counts(len(values), int((codes < 0).sum()), counts, new_rows=new)
    return Case(
        name, "number" if one.edges is not None else "category", one, found, requests, codes
    )


@pytest.mark.parametrize("name", ["penguins", "diabetes"])
def test_real_rows_that_are_parted_by_chance_raise_few_alarms(name: str) -> None:
    spec, table = sample(name)
    rate, alarms = Monitoring().false_alarm_rate, 0
    contract = {n: spec.data.columns[n] for n in spec.features}
    for seed in range(WINDOWS):
        then, now = halves(table, np.random.default_rng(seed))
        cases = [
            case(n, bins_of_values(then.column(n), column), values_of(now.column(n)))
            for n, column in contract.items()
        ]
        alarms += any(column.moved for column in judge(cases, rate, ANY))
    assert alarms <= most(rate)


def test_real_rows_as_files(tmp_path: Path) -> None:
    """The same through captured files, as the platform reads them."""
    spec, table = sample("penguins")
    policy = Monitoring(minimum_rows=100, effect=ANY)
    spec = spec.model_copy(update={"monitoring": policy})
    alarms = 0
    for seed in range(20):
        then, now = halves(table, np.random.default_rng(1000 + seed))
        window = captured(tmp_path / "w.parquet", without(now, spec.data.target))
        verdict = look(window, reference(tmp_path / "r", then), spec).verdict("drift")
        assert verdict.status in ("ok", "alarm")
        alarms += verdict.status == "alarm"
    assert alarms <= most(policy.false_alarm_rate, 20)


@pytest.mark.parametrize(
    ("m", "n"), [(100, 100), (224, 120), (100, 1000), (1000, 100), (2000, 10_000), (10_000, 2000)]
)
def test_any_kind_of_column_keeps_the_rate(m: int, n: int) -> None:
    """Twenty-four columns of eight kinds at the sizes of small and large windows."""
    windows = 100
    random = np.random.default_rng(m + n)
    alarms, rate = 0, 0.05
    for _ in range(windows):
        cases = [
            case(f"{kind}{i}", bins(draw(kind, random, m)), draw(kind, random, n))
            for kind in KINDS
            for i in range(3)
        ]
        alarms += any(column.moved for column in judge(cases, rate, ANY))
    assert alarms <= most(rate, windows)


def in_requests(
    kind: str, random: np.random.Generator, requests: int, size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Rows of requests: most of a request's are copies of its first."""
    values = draw(kind, random, requests * size)
    of = np.repeat(np.arange(requests), size)
    alike = random.random(len(of)) < 0.8
    return np.where(alike, values[of * size], values), of


@pytest.mark.parametrize("requests", [25, 60, 400])
@pytest.mark.parametrize("size", [2, 20])
def test_rows_of_one_request_that_are_alike_keep_the_rate(requests: int, size: int) -> None:
    random = np.random.default_rng(requests * size)
    alarms = bold = 0
    rate, windows = 0.05, 100
    for _ in range(windows):
        cases, naive = [], []
        for kind in KINDS:
            values, of = in_requests(kind, random, requests, size)
            then = bins(draw(kind, random, 1000))
            cases.append(case(kind, then, values, Requests(of, requests, requests)))
            naive.append(case(kind, then, values))
        alarms += any(column.moved for column in judge(cases, rate, ANY))
        bold += any(column.moved for column in judge(naive, rate, ANY))
    assert alarms <= most(rate, windows)
    if size == 20:  # it takes this much: rows counted as independent cry wolf nearly always
        assert bold > windows / 2


def test_a_client_that_repeats_one_row_is_no_drift(tmp_path: Path) -> None:
    spec, table = sample("diabetes")
    then, now = halves(table, np.random.default_rng(3), 0.4)
    probe = pa.concat_tables([now.slice(0, 1)] * 2000)
    snapshot = reference(tmp_path / "r", then)
    window = captured(
        tmp_path / "w.parquet", without(pa.concat_tables([now, probe]), "progression")
    )
    report = look(window, snapshot, spec)
    assert report.verdict("drift").status == "ok"
    assert (report.rows, report.repeated) == (now.num_rows + 2000, 2000)
    assert report.effective_rows == now.num_rows
    alone = captured(tmp_path / "probe.parquet", without(probe, "progression"))
    verdict = look(alone, snapshot, spec).verdict("drift")
    assert verdict.status == "too_few_rows"
    assert "2000 rows, 1999 of which repeat another" in verdict.reason


def test_rows_that_repeat_by_nature_are_counted(tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    spec = model({"a": "{type: boolean}", "b": "{type: integer}"})

    def rows(n: int) -> dict[str, np.ndarray]:
        return {"a": random.random(n) < 0.4, "b": random.integers(0, 3, n)}

    snapshot = reference(tmp_path, {**rows(1000), "id": range(1000), "y": [0.5] * 1000})
    report = look(captured(tmp_path / "w.parquet", rows(800)), snapshot, spec)
    assert (report.repeated, report.effective_rows) == (0, 800)
    assert report.verdict("drift").status == "ok"


def test_an_index_of_three_tenths_by_chance_is_no_alarm(tmp_path: Path) -> None:
    """120 rows beside 224: what a fixed limit of 0.2 would call a large move."""
    random = np.random.default_rng(5)
    spec = model({"a": "{type: float}"}, "monitoring: {minimum_rows: 100}")
    found = []
    for _ in range(30):
        then = {"a": random.normal(size=224), "id": range(224), "y": [1.0] * 224}
        window = captured(tmp_path / "w.parquet", {"a": random.normal(size=120)})
        report = look(window, reference(tmp_path, then), spec)
        (column,) = report.columns
        found.append((column.psi, report.verdict("drift").status))
    assert max(psi for psi, _ in found if psi) > 0.2
    assert sum(status == "alarm" for _, status in found) <= most(0.01, 30)


def test_trifles_in_a_million_rows_are_no_alarm() -> None:
    random = np.random.default_rng(7)
    then = bins(random.normal(size=1_000_000))
    moved = case("a", then, random.normal(0.02, 1, 1_000_000))
    (report,) = judge([moved], 0.01, MinimumEffect())
    assert not report.moved
    assert report.changes[0].p < 1e-6
