"""What is left of an attempt, by the way it ended; in runs of a real asset."""

from collections.abc import Callable
from pathlib import Path

import dagster as dg
import pytest

from resources.attempts import MOST_TRIES, Attempt, Attempts, CutShort, Refused, Work
from resources.documents import FolderDocuments

KEY = dg.AssetKey(["rent", "dataset"])
ONE, TWO = {"raw_data": "1"}, {"raw_data": "2"}
Do = Callable[[dg.AssetExecutionContext, Work], None]


class Killed(BaseException):
    """What no code catches: as near as a test's own process comes to SIGKILL."""


@pytest.fixture
def attempts(tmp_path: Path) -> Attempts:
    return Attempts(documents=FolderDocuments(root=str(tmp_path)))


def run(attempts: Attempts, inputs: dict[str, str], do: Do = lambda *_: None) -> str:
    """One run that works on the asset; its id."""

    @dg.asset(key=KEY)
    def asset(context: dg.AssetExecutionContext) -> None:
        with attempts.working(context, KEY, inputs) as work:
            do(context, work)

    with dg.DagsterInstance.ephemeral() as instance:
        return dg.materialize([asset], instance=instance, raise_on_error=False).run_id


def raises(error: BaseException) -> Do:
    def do(context: dg.AssetExecutionContext, work: Work) -> None:
        raise error

    return do


def cancelled(context: dg.AssetExecutionContext, work: Work) -> None:
    """As somebody cancels the run from the page, and Dagster interrupts it."""
    context.instance.report_run_canceling(context.run)
    raise KeyboardInterrupt


def outcome(attempts: Attempts) -> tuple[str, int]:
    last = attempts.last(KEY)
    assert last is not None
    assert last.ended == (last.outcome in ("succeeded", "failed"))
    return last.outcome, last.tries


def test_nothing_was_tried(attempts: Attempts) -> None:
    assert attempts.last(KEY) is None
    attempts.forget(KEY)
    assert attempts.last(KEY) is None


def test_asked_for_then_begun_then_done(attempts: Attempts) -> None:
    attempts.request(KEY, ONE)
    assert attempts.last(KEY) == Attempt(inputs=ONE, outcome="requested", tries=1, run=None)
    during: list[Attempt | None] = []
    run_id = run(attempts, ONE, lambda *_: during.append(attempts.last(KEY)))
    assert during == [Attempt(inputs=ONE, outcome="started", tries=1, run=run_id)]
    assert attempts.last(KEY) == Attempt(inputs=ONE, outcome="succeeded", tries=1, run=run_id)


def test_the_inputs_turn_out_newer(attempts: Attempts) -> None:
    attempts.request(KEY, ONE)
    run(attempts, {**ONE, "contract": "c"}, lambda _, work: work.found(TWO))
    last = attempts.last(KEY)
    assert last is not None
    assert (last.inputs, last.outcome) == ({**TWO, "contract": "c"}, "succeeded")


def test_an_error_of_its_own_ends_it(attempts: Attempts) -> None:
    run(attempts, ONE, raises(dg.Failure("no idea")))
    assert outcome(attempts) == ("failed", 1)


@pytest.mark.parametrize(
    "error", [Killed(), KeyboardInterrupt(), OSError("no space left"), CutShort("killed")]
)
def test_what_cuts_it_short_leaves_it_open(attempts: Attempts, error: BaseException) -> None:
    attempts.request(KEY, ONE)
    run(attempts, ONE, raises(error))
    assert outcome(attempts) == ("started", 1)


def test_a_person_who_cancels_means_it(attempts: Attempts) -> None:
    attempts.request(KEY, ONE)
    run(attempts, ONE, cancelled)
    assert outcome(attempts) == ("failed", 1)


def test_tries_of_the_same_inputs_are_counted(attempts: Attempts) -> None:
    for tries in range(1, MOST_TRIES + 1):
        attempts.request(KEY, ONE)
        run(attempts, ONE, raises(Killed()))
        assert outcome(attempts) == ("started", tries)
    attempts.request(KEY, TWO)
    assert outcome(attempts) == ("requested", 1)
    run(attempts, TWO, raises(Killed()))
    attempts.request(KEY, TWO)
    run(attempts, TWO)
    assert outcome(attempts) == ("succeeded", 2)
    # What ended is over: the same inputs asked for once more are a new beginning.
    attempts.request(KEY, TWO)
    assert outcome(attempts) == ("requested", 1)


def test_requests_that_never_became_a_run_count_too(attempts: Attempts) -> None:
    attempts.request(KEY, ONE)
    attempts.request(KEY, ONE)
    assert outcome(attempts) == ("requested", 2)
    run(attempts, ONE, raises(Killed()))
    assert outcome(attempts) == ("started", 2)


def test_begun_again_without_being_asked_for(attempts: Attempts) -> None:
    """As with another asset's run, or by hand: that is a try as well."""
    run(attempts, ONE, raises(Killed()))
    run(attempts, ONE, raises(Killed()))
    assert outcome(attempts) == ("started", 2)


def test_what_is_refused_to_a_person_was_no_attempt(attempts: Attempts) -> None:
    run(attempts, ONE, raises(Refused("closed")))
    assert attempts.last(KEY) is None
    run(attempts, ONE)
    before = attempts.last(KEY)
    run(attempts, TWO, raises(Refused("closed")))
    assert attempts.last(KEY) == before


def test_what_is_refused_to_the_automation_is_not_asked_for_again(attempts: Attempts) -> None:
    attempts.request(KEY, ONE)
    run(attempts, ONE, raises(Refused("closed")))
    assert outcome(attempts) == ("failed", 1)


def test_forgotten(attempts: Attempts) -> None:
    run(attempts, ONE)
    attempts.forget(KEY)
    assert attempts.last(KEY) is None


def test_each_asset_has_its_own(attempts: Attempts, tmp_path: Path) -> None:
    other = dg.AssetKey(["sales", "dataset"])
    attempts.request(KEY, ONE)
    attempts.request(other, TWO)
    assert [a.inputs for key in (KEY, other) if (a := attempts.last(key))] == [ONE, TWO]
    assert (tmp_path / "attempts" / "sales" / "dataset.json").is_file()


def test_a_record_of_a_later_platform_is_read(attempts: Attempts, tmp_path: Path) -> None:
    attempts.request(KEY, ONE)
    path = tmp_path / "attempts" / "rent" / "dataset.json"
    path.write_text(path.read_text().replace('"tries"', '"later": true, "tries"'))
    assert outcome(attempts) == ("requested", 1)
