"""What people see of a run's steps while it goes on."""

import dagster as dg
import pytest

from mlops_assets.progress import progress


def unforeseen() -> None:
    raise KeyError("district")


def unforeseen_from_another() -> None:
    try:
        unforeseen()
    except KeyError as error:
        raise RuntimeError("no such column") from error


def described() -> None:
    raise dg.Failure("the data break the contract")


def bare() -> None:
    raise dg.Failure


@pytest.mark.parametrize(
    ("work", "lines"),
    [
        (unforeseen, ["KeyError: 'district'"]),
        (
            unforeseen_from_another,
            ["RuntimeError: no such column", "caused by KeyError: 'district'"],
        ),
        (described, ["the data break the contract"]),
        (bare, ["dagster._core.definitions.events.Failure: None"]),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_a_step_that_failed_says_why(
    work: object, lines: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    @dg.asset
    def step() -> None:
        assert callable(work)
        work()

    defs = dg.Definitions(assets=[step], loggers={"progress": progress})
    with dg.DagsterInstance.ephemeral() as instance:
        defs.resolve_implicit_global_asset_job_def().execute_in_process(
            instance=instance, run_config={"loggers": {"progress": {}}}, raise_on_error=False
        )
    assert capsys.readouterr().out.splitlines() == ["  … step", "  ✗ step", *lines]
