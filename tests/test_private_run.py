"""Runs that leave no trace: what they print, and what they raise."""

import sys
import warnings

import dagster as dg
import pytest
from dagster import PreviewWarning

from mlops_assets.private_run import in_run


def ask_a_process(context: dg.AssetExecutionContext) -> str:
    client = dg.PipesSubprocessClient()
    client.run(command=[sys.executable, "-c", "pass"], context=context)
    return "asked"


def test_a_run_that_asked_a_process_looks_as_successful_as_it_was(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert in_run("compare", ask_a_process) == "asked"
    out, told = capsys.readouterr()
    assert out == ""
    assert "  ✓ compare  " in told
    assert "✗" not in told
    assert "did not yield" not in told


def test_the_previews_of_dagster_are_not_warned_about() -> None:
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        in_run("compare", lambda _: warnings.warn("soon", PreviewWarning, stacklevel=1))
    assert [w for w in found if issubclass(w.category, PreviewWarning)] == []
