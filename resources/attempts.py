"""What each asset was last tried with, so that a change is worked on once and none is forgotten.

A condition compares the inputs of the last attempt with today's. An attempt that ended, well or
with an error of its own, is not repeated for the same inputs; one whose process was killed is, a
few times.
"""

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import Literal

import dagster as dg
from pydantic import BaseModel, ConfigDict

from mlops_assets.errors import UserError
from resources.documents import Documents

#: How often the same inputs are tried, where attempts were cut short and not failed.
MOST_TRIES = 3

#: Of an attempt: asked for by a sensor; begun; ended.
Outcome = Literal["requested", "started", "succeeded", "failed"]


class Attempt(BaseModel):
    """The last attempt to make one asset."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    #: Name of an input -> its version.
    inputs: dict[str, str]
    outcome: Outcome
    #: How often these inputs were asked for.
    tries: int = 1
    run: str | None = None

    @property
    def ended(self) -> bool:
        """Whether its outcome is known."""
        return self.outcome in ("succeeded", "failed")


class Refused(dg.Failure):
    """Gates are closed: nothing was done."""


class CutShort(dg.Failure):
    """Ended from outside, not by an error of its own: the attempt stays open, to be repeated."""


class Attempts(dg.ConfigurableResource):  # pyright: ignore[reportMissingTypeArgument]
    """Documents ``attempts/<asset>.json``: the last attempt of each."""

    documents: dg.ResourceDependency[Documents]

    def last(self, key: dg.AssetKey) -> Attempt | None:
        """The last attempt to make an asset, if there was one."""
        found = self.documents.read(_name(key))
        return None if found is None else Attempt.model_validate_json(found)

    def request(self, key: dg.AssetKey, inputs: Mapping[str, str]) -> None:
        """Say that a run was asked for; it may die before it comes to the asset."""
        last = self.last(key)
        again = last is not None and last.inputs == inputs and not last.ended
        tries = last.tries + 1 if last and again else 1
        self.write(key, Attempt(inputs=dict(inputs), outcome="requested", tries=tries))

    @contextmanager
    def working(
        self,
        context: dg.AssetExecutionContext | dg.AssetCheckExecutionContext,
        key: dg.AssetKey,
        inputs: Mapping[str, str],
    ) -> Generator["Work"]:
        """Say that work on an asset begins, and when it ends how it ended.

        An error of its own ends the attempt, and so does a person who cancels the run. Whatever
        else stops it leaves the attempt open, to be repeated. What is refused to a person, before
        anything was done, was no attempt: it may be open tomorrow.
        """
        last = self.last(key)
        tries = 1
        if last is not None and last.inputs == inputs and not last.ended:
            tries = last.tries + (last.outcome == "started")  # begun again without being asked for
        run_id = context.run.run_id
        work = Work(self, key, Attempt(inputs={}, outcome="started", tries=tries, run=run_id))
        work.found(inputs)
        try:
            with _as_failure():
                yield work
        except Refused:
            if last is not None and last.outcome != "requested":
                self.write(key, last)
            elif last is None:
                self.forget(key)
            else:
                work.end("failed")
            raise
        except BaseException as error:
            own = isinstance(error, dg.Failure) and not isinstance(error, CutShort)
            if own or _cancelled(context.instance, run_id):
                work.end("failed")
            raise
        work.end("succeeded")

    def forget(self, key: dg.AssetKey) -> None:
        """Let the next evaluation work on the asset as if it had never been tried."""
        self.documents.remove(_name(key))

    def write(self, key: dg.AssetKey, attempt: Attempt) -> None:
        """Replace the last attempt."""
        self.documents.write(_name(key), attempt.model_dump_json(indent=2))


def _name(key: dg.AssetKey) -> str:
    return f"attempts/{'/'.join(key.path)}.json"


@contextmanager
def _as_failure() -> Generator[None]:
    """Say what people can mend without a traceback; what may pass by itself is tried again."""
    try:
        yield
    except UserError as error:
        kind = CutShort if error.transient else dg.Failure
        raise kind(str(error), allow_retries=False) from None


class Work:
    """An attempt that is going on."""

    def __init__(self, attempts: Attempts, key: dg.AssetKey, attempt: Attempt) -> None:
        self._attempts, self._key, self._attempt = attempts, key, attempt

    def found(self, inputs: Mapping[str, str]) -> None:
        """Say that the inputs turned out newer than they were known to be."""
        self._update(inputs={**self._attempt.inputs, **inputs})

    def end(self, outcome: Outcome) -> None:
        """Say how it ended."""
        self._update(outcome=outcome)

    def _update(self, **changes: object) -> None:
        self._attempt = self._attempt.model_copy(update=changes)
        self._attempts.write(self._key, self._attempt)


def _cancelled(instance: dg.DagsterInstance, run_id: str) -> bool:
    run = instance.get_run_by_id(run_id)
    return run is not None and run.status in (
        dg.DagsterRunStatus.CANCELING,
        dg.DagsterRunStatus.CANCELED,
    )
