from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlops_assets.spec import METRICS, load_model, model_folders, parse_model
from mlops_assets.strict import SpecError

GOOD = """
owner: team:health
task: regression
data:
  location: diabetes
  key: [patient]
  target: progression
  columns:
    patient: {type: integer}
    age: {type: float, minimum: 0, maximum: 120}
    sex: {type: string, categories: [female, male], nullable: true}
    progression: {type: float}
slices: [sex]
gates:
  quality: {r2: {minimum: 0.3}}
  champion: {metric: r2, tolerance: 0.05}
"""


def problems(text: str) -> list[str]:
    with pytest.raises(SpecError) as caught:
        parse_model(text, "diabetes", "models/diabetes/model.yaml")
    for line in str(caught.value).splitlines():
        assert line.startswith("models/diabetes/model.yaml: ")
    return caught.value.problems


def test_defaults_are_those_of_this_repository() -> None:
    spec = parse_model(GOOD, "diabetes", "model.yaml")
    assert spec.source.repository == "."
    assert spec.source.branch == "main"
    assert spec.folder == "mlops_assets/models/diabetes"
    assert spec.features == ["age", "sex"]


def test_unknown_key_names_its_place_and_what_is_allowed() -> None:
    found = problems(GOOD.replace("nullable: true", "nullible: true"))
    assert found == [
        "data.columns.sex.nullible: unknown key; allowed here: type, nullable, minimum, maximum, "
        "categories, feature, description"
    ]


@pytest.mark.parametrize(
    ("place", "allowed"),
    [
        (
            "monitoring: {labels: {location: l, loc: x}}",
            "monitoring.labels.loc: unknown key; allowed here: location, format",
        ),
        (
            "  slices: {metric: r2, minimum: 0, minimun: 0}",
            "gates.slices.minimun: unknown key; allowed here: metric, minimum, ",
        ),
    ],
)
def test_an_unknown_key_of_a_block_that_may_be_absent(place: str, allowed: str) -> None:
    assert [line for line in problems(f"{GOOD}{place}\n") if line.startswith(allowed)]


def test_all_problems_of_a_file_come_at_once() -> None:
    text = (
        GOOD.replace("team:health", "health")
        .replace("type: float, minimum: 0", "type: number, minimum: zero")
        .replace("metric: r2", "metric: accuracy")
    )
    found = problems(text)
    places = {line.split(":")[0] for line in found}
    assert places == {
        "owner",
        "data.columns.age.type",
        "data.columns.age.minimum",
        "gates.champion.metric",
    }
    assert any("found 'number'" in line and "'float'" in line for line in found)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("r2: {minimum: 0.3}", "f1: {minimum: 0.3}", "gates.quality.f1: no such metric; task"),
        ("r2: {minimum: 0.3}", "r2: {maximum: 0.3}", "gates.quality.r2: wants a minimum"),
        ("task: regression", "task: clustering", "task: input should be 'regression'"),
        ("key: [patient]", "key: [id]", "key and target name ['id']"),
        ("key: [patient]", "key: [sex]", "must not be nullable"),
        ("slices: [sex]", "slices: [region]", "slices names ['region']"),
        ("maximum: 120", "maximum: -1", "minimum 0.0 is greater than maximum -1.0"),
        ("minimum: 0,", "minimum: -.inf,", "data.columns.age.minimum: input should be a finite"),
        ("maximum: 120", "maximum: .inf", "data.columns.age.maximum: input should be a finite"),
        ("maximum: 120", "maximum: .nan", "data.columns.age.maximum: input should be a finite"),
        ("categories: [female, male]", "categories: [1]", "categories of a string column"),
        ("progression: {type: float}", "progression: {type: string}", "wants a float or integer"),
        ("task: regression", "task: regression\ntask: binary", "key 'task' is written twice"),
        ("owner: team:health", "owner: [", "not readable as YAML"),
        ("owner: team:health", "{[1, 2]: 3}: 4\nowner: team:health", "a key must be one word"),
        ("owner: team:health", "owner: 2024-13-45", "not readable as YAML: month must be"),
        ("owner: team:health", "name: x\nowner: team:health", "name: unknown key"),
    ],
)
def test_mistakes(old: str, new: str, message: str) -> None:
    assert any(message in line for line in problems(GOOD.replace(old, new, 1)))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("serving: {format: onx}", "serving.format: input should be 'auto', 'onnx' or 'pickle'"),
        ("serving: {ranges: error}", "serving.ranges: input should be 'ignore', 'warn' or"),
        ("serving: {engine: fast}", "serving.engine: unknown key; allowed here: format, ranges"),
    ],
)
def test_mistakes_about_serving(text: str, message: str) -> None:
    assert any(line.startswith(message) for line in problems(f"{GOOD}{text}\n"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{tolerance: -1}", "gates.parity.tolerance: input should be greater than or equal to 0"),
        ("{tolerance: 1}", "gates.parity.tolerance: input should be less than 1"),
        ("{labels: some}", "gates.parity.labels: input should be a valid number; found 'some'"),
        ("{rows: 3}", "gates.parity.rows: unknown key; allowed here: tolerance, labels"),
    ],
)
def test_mistakes_about_parity(text: str, message: str) -> None:
    assert any(line.startswith(message) for line in problems(f"{GOOD}  parity: {text}\n"))


def test_serving_and_parity() -> None:
    spec = parse_model(GOOD, "diabetes", "model.yaml")
    assert (spec.serving.format, spec.serving.ranges) == ("auto", "warn")
    assert (spec.gates.parity.tolerance, spec.gates.parity.labels) == (1e-4, 0.001)
    text = f"{GOOD}  parity: {{tolerance: 1e-6, labels: 0}}\nserving: {{format: onnx}}\n"
    spec = parse_model(text, "diabetes", "model.yaml")
    assert (spec.gates.parity.tolerance, spec.gates.parity.labels) == (1e-6, 0.0)
    assert spec.serving.format == "onnx"


def test_a_file_that_is_no_mapping() -> None:
    assert problems("- 1") == ["must be a mapping with the keys owner, task, data, gates"]


def test_a_binary_target_has_two_categories() -> None:
    text = (
        GOOD.replace("task: regression", "task: binary")
        .replace("progression: {type: float}", "progression: {type: string, categories: [a]}")
        .replace("r2", "f1")
    )
    assert any("two categories of the target, found 1" in line for line in problems(text))


def test_folder_names_are_names(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="a model's name is 1 to 30"):
        parse_model(GOOD, "My-Model", "model.yaml")
    (tmp_path / "empty").mkdir()
    (tmp_path / "_private").mkdir()
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "train.py").write_text("")
    assert model_folders(tmp_path) == [tmp_path / "real"]
    with pytest.raises(SpecError, match=r"model\.yaml: missing"):
        load_model(tmp_path / "real")
    (tmp_path / "real" / "model.yaml").write_bytes(b"owner: \xff")
    with pytest.raises(SpecError, match="not UTF-8"):
        load_model(tmp_path / "real")


def test_the_contract_digest_follows_the_contract_alone() -> None:
    one = parse_model(GOOD, "diabetes", "model.yaml")
    other_gate = parse_model(GOOD.replace("0.3", "0.4"), "diabetes", "model.yaml")
    other_range = parse_model(GOOD.replace("120", "130"), "diabetes", "model.yaml")
    assert one.contract_digest == other_gate.contract_digest
    assert one.contract_digest != other_range.contract_digest


@given(st.sampled_from(sorted(METRICS)), st.text(st.characters(categories=["Ll"]), min_size=1))
def test_only_the_metrics_of_the_task_can_be_gates(task: str, metric: str) -> None:
    target = "{type: float}" if task == "regression" else "{type: string}"
    bound = "minimum" if METRICS[task].get(metric, True) else "maximum"  # type: ignore[index]
    text = (
        GOOD.replace("task: regression", f"task: {task}")
        .replace("progression: {type: float}", f"progression: {target}")
        .replace("r2: {minimum", f"{metric}: {{{bound}")
        .replace("metric: r2", f"metric: {next(iter(METRICS[task]))}")  # type: ignore[index]
    )
    if metric in METRICS[task]:  # type: ignore[index]
        parse_model(text, "diabetes", "model.yaml")
    else:
        with pytest.raises(SpecError):
            parse_model(text, "diabetes", "model.yaml")


def test_the_policy_of_monitoring_has_defaults() -> None:
    spec = parse_model(GOOD, "diabetes", "model.yaml")
    assert (spec.monitoring.window_hours, spec.monitoring.false_alarm_rate) == (24, 0.01)
    assert (spec.live_metric, spec.live_tolerance) == ("r2", 0.05)
    other = parse_model(
        GOOD + "monitoring: {performance: {metric: mean_absolute_error}}", "diabetes", "model.yaml"
    )
    # The gate's tolerance is in the unit of r2.
    assert (other.live_metric, other.live_tolerance) == ("mean_absolute_error", 0.0)


@pytest.mark.parametrize("key", ["window_hours", "freshness_hours"])
def test_a_span_of_monitoring_is_a_year_at_most(key: str) -> None:
    spec = parse_model(f"{GOOD}monitoring: {{{key}: 8784}}", "diabetes", "model.yaml")
    assert getattr(spec.monitoring, key) == 8784
    for hours, bound in (
        ("1.0e+9", "less than or equal to 8784"),
        (".inf", "less than or equal to 8784"),
        (".nan", "less than or equal to 8784"),
        ("0", "greater than 0"),
    ):
        (line,) = problems(f"{GOOD}monitoring: {{{key}: {hours}}}")
        assert line.startswith(f"monitoring.{key}: input should be {bound}; found ")


def test_problems_of_the_policy_of_monitoring_name_their_places() -> None:
    block = """
monitoring:
  false_alarm_rate: 1.5
  effect: {psy: 0.1}
  performance: {metric: accuracy}
"""
    assert problems(GOOD + block) == [
        "monitoring.false_alarm_rate: input should be less than 0.5; found 1.5",
        "monitoring.effect.psy: unknown key; allowed here: psi, shift, share",
        "monitoring.performance.metric: no metric 'accuracy'; task regression has r2, "
        "root_mean_squared_error, mean_absolute_error",
    ]
    assert problems(GOOD + "monitoring: {ignore: [yeer]}") == [
        "monitoring.ignore names ['yeer'], which data.columns does not declare"
    ]
    binary = GOOD.replace("regression", "binary").replace("r2", "accuracy")
    (line,) = problems(
        binary.replace("progression: {type: float}", "progression: {type: integer}").replace(
            "minimum: 0.3", "minimum: 0.3"
        )
        + "monitoring: {performance: {metric: log_loss}}"
    )
    assert "log_loss needs probabilities" in line


@pytest.mark.parametrize(
    ("gate", "message"),
    [
        ("{metric: f1, minimum: 0}", "gates.slices.metric: no metric 'f1'; task regression has"),
        ("{metric: r2}", "gates.slices: wants a minimum, a tolerance or both"),
        ("{metric: r2, maximum: 1}", "gates.slices: r2 has a minimum and no maximum"),
        ("{metric: r2, tolerance: -1}", "gates.slices.tolerance: input should be greater than or"),
        ("{metric: r2, minimum: 0, rows: 3}", "gates.slices.rows: unknown key; allowed here: "),
    ],
)
def test_mistakes_about_the_gate_on_slices(gate: str, message: str) -> None:
    text = GOOD.replace("gates:\n", f"gates:\n  slices: {gate}\n")
    assert any(line.startswith(message) for line in problems(text)), problems(text)


def test_a_gate_on_slices_wants_slices() -> None:
    text = GOOD.replace("gates:\n", "gates:\n  slices: {metric: r2, minimum: 0}\n")
    assert parse_model(text, "diabetes", "model.yaml").gates.slices is not None
    without = text.replace("slices: [sex]\n", "")
    assert any("gates.slices judges slices" in line for line in problems(without))
