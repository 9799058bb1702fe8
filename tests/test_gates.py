from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlops_assets.evidence import Comparison, Evidence, Integrity, Manifest
from mlops_assets.gates import (
    GATES,
    Facts,
    GatesClosedError,
    Verdict,
    policy_of,
    require_open,
    table,
    verdicts,
)
from mlops_assets.spec import ChampionGate, Gates, ParityGate, ParityLimits, SliceGate, Threshold

MANIFEST: dict[str, Any] = {
    "model": "rent",
    "task": "regression",
    "identity": "i1",
    "target": "rent",
    "parameters": {},
    "packages": {"scikit-learn": "1.9.1"},
    "python": "3.11.7",
    "platform": "linux-x86_64-python3.11",
    "source": {
        "repository": ".",
        "branch": "main",
        "commit": "c" * 40,
        "author": "Ada",
        "message": "m",
        "time": "2026-01-01T00:00:00Z",
        "on_branch": True,
        "dirty": False,
    },
    "snapshot": {"digest": "s1", "rows": 400, "contract": "k1"},
    "contract": "k1",
    "policy": {},
    "files": {},
}


def interval(value: float, width: float = 0.1) -> dict[str, float]:
    return {"value": value, "lower": value - width, "upper": value + width}


def facts(**changes: Any) -> Facts:
    manifest = {**MANIFEST, **changes.pop("manifest", {})}
    manifest["source"] = {**MANIFEST["source"], **changes.pop("source", {})}
    evidence = {
        "task": "regression",
        "metrics": changes.pop(
            "metrics", {"r2": interval(0.7), "mean_absolute_error": interval(10, 2)}
        ),
        "holdout": {"rows": 100, "training_rows": 300, "digest": "h1"},
        "slices": changes.pop("slices", []),
        "importance": [],
        "seconds": {},
    }
    evidence["parity"] = changes.pop("parity", None)
    integrity = {"mismatched": [], "loads": True, "error": None, "max_difference": 0.0}
    values = {
        "manifest": Manifest.model_validate(manifest),
        "evidence": Evidence.model_validate(evidence),
        "integrity": Integrity.model_validate({**integrity, **changes.pop("integrity", {})}),
        "digest": "d2",
        "champion": None,
    }
    return Facts(**{**values, **changes})


def comparison(value: float, width: float = 0.0, **changes: Any) -> Comparison:
    metric = {"candidate": 0.7, "champion": 0.7 - value, "difference": interval(value, width)}
    content = {
        "champion": "d1",
        "version": 1,
        "holdout": "h1",
        "rows": 100,
        "status": "compared",
        "reason": "",
        "metrics": {"r2": metric, "mean_absolute_error": metric},
    }
    return Comparison.model_validate({**content, **changes})


ONNX = {"serving": {"format": "onnx", "reason": "ONNX agrees", "ranges": "warn"}}


def parity(**changes: Any) -> dict[str, Any]:
    """What was measured about a version that serves from ONNX."""
    content = {
        "status": "onnx",
        "wanted": "auto",
        "reason": "ONNX agrees",
        "opset": 18,
        "precision": "double",
        "tolerance": 1e-4,
        "labels": 0.001,
        "rows": 950,
        "edge_rows": 50,
        "max_difference": 2e-5,
        "differing_rows": 0,
        "differing_labels": 0,
        "one_sided": 0,
    }
    return {**content, **changes}


GATES_OF_MODEL = Gates(
    quality={"r2": Threshold(minimum=0.5), "mean_absolute_error": Threshold(maximum=13)},
    champion=ChampionGate(metric="r2", tolerance=0.05),
)


def judged(found: Facts, **policy: Any) -> dict[str, Verdict]:
    model = policy.pop("model", GATES_OF_MODEL)
    return {v.gate: v for v in verdicts(found, policy_of(model, **policy))}


def test_a_good_version_passes_every_gate() -> None:
    found = judged(facts())
    assert tuple(found) == tuple(GATES)
    assert all(verdict.passed for verdict in found.values())
    assert found["champion"].status == "not_applicable"


@pytest.mark.parametrize(
    ("changes", "gate", "reason"),
    [
        ({"manifest": {"contract": "k2"}}, "contract", "materialize dataset"),
        ({"metrics": {"r2": interval(0.55)}}, "quality", "r2 0.45 (pessimistic), minimum 0.5"),
        ({"metrics": {"r2": interval(0.7)}}, "quality", "mean_absolute_error was not measured"),
        (
            {"metrics": {"r2": interval(0.7), "mean_absolute_error": interval(12, 2)}},
            "quality",
            "mean_absolute_error 14 (pessimistic), maximum 13",
        ),
        ({"source": {"dirty": True}}, "provenance", "uncommitted files"),
        ({"source": {"on_branch": False}}, "provenance", "not on branch main"),
        (
            {"source": {"on_branch": False, "experiment": "idea"}},
            "provenance",
            "an experiment on idea; merge it into main",
        ),
        ({"source": {"experiment": "main"}}, "provenance", "an experiment on main"),
        ({"manifest": {"packages": {}}}, "provenance", "packages were not recorded"),
        (
            {"manifest": ONNX, "parity": parity(max_difference=3e-4, differing_rows=9)},
            "parity",
            "greatest difference 0.0003, 9 of 1000 rows differ; tolerance 0.0001",
        ),
        (
            {"manifest": ONNX, "parity": parity(differing_labels=2, differing_rows=2)},
            "parity",
            "2 in their label; tolerance 0.0001, share of labels 0.001",
        ),
        (
            {"manifest": ONNX, "parity": parity(one_sided=1, differing_rows=1)},
            "parity",
            "1 have an answer of one of the two alone",
        ),
        ({"manifest": ONNX}, "parity", "nobody measured"),
        ({"manifest": ONNX, "parity": parity(max_difference=None)}, "parity", "nobody measured"),
        (
            {
                "parity": parity(
                    status="not_converted", wanted="onnx", reason="no form", max_difference=None
                )
            },
            "parity",
            "model.yaml says serving.format: onnx, and no form",
        ),
        ({"integrity": {"mismatched": ["model.pkl"]}}, "integrity", "model.pkl"),
        ({"integrity": {"loads": False, "error": "no module x"}}, "integrity", "no module x"),
        ({"integrity": {"error": "predicts 3, was 4"}}, "integrity", "predicts 3, was 4"),
        ({"champion": "d1"}, "champion", "not compared with the version that serves"),
        ({"champion": "d0", "comparison": comparison(0.1)}, "champion", "not compared"),
        ({"champion": "d1", "comparison": comparison(-0.06)}, "champion", "tolerance 0.05"),
        ({"champion": "d1", "comparison": comparison(0.0, 0.06)}, "champion", "(pessimistic)"),
        (
            {
                "champion": "d1",
                "comparison": comparison(0, status="incomparable", reason="no column x"),
            },
            "champion",
            "cannot be compared: no column x",
        ),
        (
            {"champion": "d1", "comparison": comparison(0, metrics={})},
            "champion",
            "r2 was not compared",
        ),
    ],
)
def test_each_gate_closes_with_its_reason(changes: dict[str, Any], gate: str, reason: str) -> None:
    found = judged(facts(**changes))
    assert found[gate].status == "closed"
    assert reason in found[gate].reason
    others = [v for v in found.values() if v.gate != gate]
    assert all(v.passed for v in others)


def test_the_point_value_where_the_policy_says_so() -> None:
    model = Gates(
        quality={"r2": Threshold(minimum=0.5, on="value")},
        champion=ChampionGate(metric="r2", tolerance=0.05, on="value"),
    )
    found = judged(
        facts(metrics={"r2": interval(0.55)}, champion="d1", comparison=comparison(-0.04, width=1)),
        model=model,
    )
    assert found["quality"].passed
    assert found["champion"].passed


def test_a_metric_where_less_is_better_is_compared_the_other_way() -> None:
    model = Gates(
        quality={"r2": Threshold(minimum=0.5)},
        champion=ChampionGate(metric="mean_absolute_error", tolerance=1.0),
    )
    worse = judged(facts(champion="d1", comparison=comparison(1.5)), model=model)
    better = judged(facts(champion="d1", comparison=comparison(-1.5)), model=model)
    assert worse["champion"].status == "closed"
    assert better["champion"].status == "open"


def test_the_champion_itself_and_a_rollback_are_not_compared() -> None:
    assert judged(facts(champion="d2"))["champion"].status == "not_applicable"
    assert judged(facts(champion="d1", rollback=True))["champion"].status == "not_applicable"


def test_a_development_environment_takes_uncommitted_and_bad_work_but_no_broken_one() -> None:
    bad = {"source": {"dirty": True}, "metrics": {}}
    found = judged(facts(**bad), development=True)
    assert all(v.passed for v in found.values())
    broken = judged(facts(integrity={"loads": False, "error": "x"}), development=True)
    assert broken["integrity"].status == "closed"
    wrong = facts(manifest=ONNX, parity=parity(max_difference=0.5))
    assert judged(wrong, development=True)["parity"].status == "closed"


def test_parity_of_a_version_that_serves_from_onnx() -> None:
    found = judged(facts(manifest=ONNX, parity=parity(differing_labels=1, differing_rows=1)))
    assert found["parity"] == Verdict(
        "parity",
        "open",
        "greatest difference 2e-05, 1 of 1000 rows differ, 1 in their label; tolerance 0.0001, "
        "share of labels 0.001",
    )


def test_parity_of_a_version_that_serves_from_its_pickle() -> None:
    reason = "skl2onnx does not convert it: no shape calculator"
    serving = {"serving": {"format": "pickle", "reason": reason, "ranges": "warn"}}
    measured = parity(status="differs", reason=reason, max_difference=0.5)
    for found in (facts(manifest=serving), facts(manifest=serving, parity=measured)):
        verdict = judged(found)["parity"]
        assert (verdict.status, verdict.reason) == (
            "not_applicable",
            f"serves from the pickle: {reason}",
        )
    # Versions from before there was ONNX say nothing of it.
    assert judged(facts())["parity"].status == "not_applicable"
    assert "before there was ONNX" in judged(facts())["parity"].reason


@pytest.mark.parametrize(
    ("limits", "status"),
    [
        (ParityLimits(tolerance=1e-5), "closed"),
        (ParityLimits(tolerance=5e-5), "open"),
        (ParityLimits(labels=0.0), "closed"),
        (ParityLimits(tolerance=1e-3, labels=0.9), "open"),
    ],
)
def test_an_environment_tightens_parity(limits: ParityLimits, status: str) -> None:
    found = facts(manifest=ONNX, parity=parity(differing_labels=1, differing_rows=1))
    assert judged(found, parity=limits)["parity"].status == status


def test_no_environment_loosens_parity() -> None:
    found = facts(manifest=ONNX, parity=parity(max_difference=2e-4))
    assert not judged(found, parity=ParityLimits(tolerance=0.5))["parity"].passed
    model = GATES_OF_MODEL.model_copy(update={"parity": ParityGate(tolerance=3e-4)})
    assert judged(found, model=model)["parity"].passed


@given(st.floats(-1, 1), st.floats(0, 0.5), st.floats(-1, 1), st.floats(-1, 1), st.floats(0, 0.2))
def test_an_environment_never_opens_what_the_model_closes(
    value: float, width: float, own: float, extra: float, tolerance: float
) -> None:
    model = Gates(
        quality={"r2": Threshold(minimum=own)},
        champion=ChampionGate(metric="r2", tolerance=0.05),
    )
    found = facts(
        metrics={"r2": interval(value, width)},
        champion="d1",
        comparison=comparison(value / 10, width),
    )
    alone = judged(found, model=model)
    both = judged(
        found,
        model=model,
        quality={"r2": Threshold(minimum=extra)},
        champion=ChampionGate(metric="r2", tolerance=tolerance),
    )
    for gate in GATES:
        assert alone[gate].passed or not both[gate].passed


def test_a_refusal_names_what_and_why() -> None:
    found = verdicts(facts(source={"dirty": True}), policy_of(GATES_OF_MODEL))
    with pytest.raises(GatesClosedError, match="rent version 2 in staging is refused") as caught:
        require_open("rent version 2 in staging", found)
    assert "provenance: trained from uncommitted files" in str(caught.value)
    assert "quality:" not in str(caught.value)
    assert "| provenance | closed |" in table(caught.value.verdicts)


SLICES = [
    {"column": "district", "value": "north", "rows": 40, "metrics": {"r2": 0.68}},
    {"column": "district", "value": "south", "rows": 60, "metrics": {"r2": 0.55}},
    {"column": "district", "value": None, "rows": 4, "metrics": {"r2": -3.0}},
    {"column": "rooms", "value": 1, "rows": 90, "metrics": {"r2": None}},
]


def gate_of_slices(**changes: Any) -> Gates:
    return GATES_OF_MODEL.model_copy(update={"slices": SliceGate(metric="r2", **changes)})


@pytest.mark.parametrize(
    ("gate", "status", "reason"),
    [
        ({"minimum": 0.5}, "open", "r2 0.55 where district is south (60 rows)"),
        ({"minimum": 0.6}, "closed", "r2 0.55 where district is south (60 rows); minimum 0.6"),
        ({"tolerance": 0.1}, "closed", "0.7 over all rows, tolerance 0.1"),
        ({"tolerance": 0.2}, "open", "0.55"),
        ({"minimum": 0.5, "minimum_rows": 4}, "closed", "r2 -3 where district is None (4 rows)"),
        ({"minimum": 0.9, "minimum_rows": 91}, "not_applicable", "no slice with 91 rows"),
    ],
)
def test_the_worst_slice_closes_its_gate(gate: dict[str, Any], status: str, reason: str) -> None:
    found = judged(facts(slices=SLICES), model=gate_of_slices(**gate))["slices"]
    assert (found.status, reason in found.reason) == (status, True), found


def test_without_a_limit_slices_are_not_judged() -> None:
    assert judged(facts(slices=SLICES))["slices"].status == "not_applicable"


def test_an_error_of_a_slice_has_a_maximum() -> None:
    slices = [{"column": "a", "value": 1, "rows": 50, "metrics": {"mean_absolute_error": 14.0}}]
    gate = SliceGate(metric="mean_absolute_error", maximum=13, tolerance=5)
    model = GATES_OF_MODEL.model_copy(update={"slices": gate})
    found = judged(facts(slices=slices), model=model)["slices"]
    assert found.status == "closed"
    assert found.reason.endswith("maximum 13")


def test_an_environment_tightens_the_gate_on_slices() -> None:
    own = SliceGate(metric="r2", minimum=0.6)
    assert judged(facts(slices=SLICES), model=gate_of_slices(minimum=0.5))["slices"].passed
    found = judged(facts(slices=SLICES), model=gate_of_slices(minimum=0.5), slices=own)["slices"]
    assert found.status == "closed"
    assert judged(facts(slices=SLICES), slices=own)["slices"].status == "closed"
