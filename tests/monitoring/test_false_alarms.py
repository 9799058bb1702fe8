"""Windows in which nothing moved raise at most as many alarms as model.yaml allows."""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from scipy import stats

from mlops_assets.monitoring.bins import Bins, categorical, name_of, numeric
from mlops_assets.monitoring.columns import Case, judge
from mlops_assets.monitoring.policy import MinimumEffect, Monitoring
from mlops_assets.monitoring.report import Verdict
from mlops_assets.monitoring.requests import Requests
from mlops_assets.monitoring.window import Counts
from mlops_assets.training.metrics import Judged
from tests.monitoring.windows import (
    captured,
    evidence,
    halves,
    look,
    model,
    reference,
    sample,
    without,
)

WINDOWS = 200
#: That of a model.yaml which says nothing.
RATE = Monitoring().false_alarm_rate
#: Every move counts, however small: the tests alone hold the rate.
ANY = MinimumEffect(psi=0, shift=0, share=0)


def most(rate: float, n: int = WINDOWS) -> int:
    """Windows of n that may alarm: the 99.9 % quantile of the binomial at the stated rate.

    Of 200 windows at a rate of 0.01 these are 8; more have a chance below one in a thousand.
    """
    return int(stats.binom.ppf(0.999, n, rate))


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


def alarms_of(verdicts: Iterable[Verdict]) -> int:
    """Windows with any alarm of drift; each of them must have been judged."""
    found = [verdict.status for verdict in verdicts]
    assert len(found) == WINDOWS
    assert set(found) <= {"ok", "alarm"}
    return found.count("alarm")


@pytest.mark.parametrize("name", ["penguins", pytest.param("diabetes", marks=pytest.mark.long)])
def test_real_rows_that_are_parted_by_chance_raise_few_alarms(tmp_path: Path, name: str) -> None:
    """Through captured files, as the platform looks at them; a window is two fifths of the rows."""
    spec, table = sample(name)
    policy = Monitoring(minimum_rows=100, effect=ANY)
    spec = spec.model_copy(update={"monitoring": policy})
    table = table.combine_chunks()

    def window(seed: int) -> Verdict:
        then, now = halves(table, np.random.default_rng(seed))
        path = captured(tmp_path / "w.parquet", without(now, spec.data.target))
        return look(path, reference(tmp_path / "r", then), spec).verdict("drift")

    assert alarms_of(map(window, range(WINDOWS))) <= most(RATE)


@pytest.mark.long
def test_synthetic_windows_raise_few_alarms(tmp_path: Path) -> None:
    """The same over eight kinds of columns and the predictions, every fourth one in requests."""
    types = {kind: "string" if kind.endswith("names") else "float" for kind in KINDS}
    columns = {kind: f"{{type: {type_}, nullable: true}}" for kind, type_ in types.items()}
    spec = model(columns)
    spec = spec.model_copy(update={"monitoring": Monitoring(effect=ANY)})

    def window(seed: int) -> Verdict:
        random = np.random.default_rng(seed)
        then = {kind: draw(kind, random, 400) for kind in KINDS}
        snapshot = reference(tmp_path, {**then, "id": range(400), "y": random.normal(size=400)})
        held = random.normal(size=200)
        release = evidence(Judged("regression", held, held))
        requests, size = (80, 4) if seed % 4 == 0 else (240, 1)
        now = {kind: in_requests(kind, random, requests, size)[0] for kind in KINDS}
        predicted, of = in_requests("normal", random, requests, size)
        path = captured(tmp_path / "w.parquet", now, predicted, of.tolist())
        report = look(path, snapshot, spec, release)
        judged = [c for c in [*report.columns, report.prediction] if c.outcome in ("same", "moved")]
        assert len(judged) == len(KINDS) + 1
        return report.verdict("drift")

    assert alarms_of(map(window, range(WINDOWS))) <= most(RATE)


@pytest.mark.long
@pytest.mark.parametrize(
    ("m", "n"), [(100, 100), (224, 120), (100, 1000), (1000, 100), (1000, 3000), (3000, 1000)]
)
def test_any_kind_of_column_keeps_the_rate(m: int, n: int) -> None:
    """Twenty-four columns of eight kinds at the sizes of small and large windows."""
    random = np.random.default_rng(m + n)
    alarms, rate = 0, 0.05
    for _ in range(WINDOWS):
        cases = [
            case(f"{kind}{i}", bins(draw(kind, random, m)), draw(kind, random, n))
            for kind in KINDS
            for i in range(3)
        ]
        alarms += any(column.moved for column in judge(cases, rate, ANY))
    assert alarms <= most(rate)


def in_requests(
    kind: str, random: np.random.Generator, requests: int, size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Rows of requests: most of a request's are copies of its first."""
    values = draw(kind, random, requests * size)
    of = np.repeat(np.arange(requests), size)
    alike = random.random(len(of)) < 0.8
    return np.where(alike, values[of * size], values), of


@pytest.mark.parametrize("requests", [25, 60, pytest.param(400, marks=pytest.mark.long)])
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


@pytest.mark.parametrize(("then", "now"), [(300, 50_000), (1000, 20_000)])
def test_rows_of_coarse_columns_that_are_equal_by_chance_are_counted(
    tmp_path: Path, then: int, now: int
) -> None:
    """The more rows the more are equal: in a large window most, in a small snapshot hardly any."""
    random = np.random.default_rng(then)
    shares = [0.4, 0.2, 0.1, 0.1, 0.05, 0.05, 0.04, 0.03, 0.02, 0.01]

    def rows(n: int) -> dict[str, np.ndarray]:
        return {
            "age": random.integers(18, 80, n),
            "region": random.choice(list("abcdefghij"), n, p=shares),
            "amount": np.round(random.lognormal(6, 0.6, n), -1),
        }

    spec = model({"age": "{type: integer}", "region": "{type: string}", "amount": "{type: float}"})
    snapshot = reference(tmp_path, {"id": range(then), **rows(then), "y": random.normal(size=then)})
    report = look(captured(tmp_path / "w.parquet", {"id": range(now), **rows(now)}), snapshot, spec)
    assert report.verdict("drift").status == "ok", report.verdict("drift").reason
    assert (report.rows, report.repeated) == (now, 0)


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
