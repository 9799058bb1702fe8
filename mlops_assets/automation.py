"""When assets are made by themselves: named conditions.

All are level-triggered: each compares the inputs of the asset's last attempt with what they are
now. A change that arrives during a run, between its last step and the next tick, or while nobody
looks, is still a difference later; the same state, however often it is reported, is none.
"""

import inspect
import logging
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field

import dagster as dg
from dagster._core.storage.asset_check_execution_record import (
    COMPLETED_ASSET_CHECK_EXECUTION_RECORD_STATUSES as ANSWERED,
)
from dagster._core.storage.event_log.base import EventLogStorage

from mlops_assets.assets.endpoint import RELEASE_INPUT, asset_name, environment_of
from mlops_assets.assets.registered_model import (
    GATES_ATTEMPT,
    Release,
    environment_check,
    gates_inputs,
    releases,
)
from mlops_assets.assets.sources import RAW_DATA, TRAINING_CODE, Seen, seen_in
from mlops_assets.gates import GATES
from mlops_assets.judgement import promotion
from mlops_assets.references import DatasetSnapshot, RegisteredModel, TrainedModel
from mlops_assets.retraining import asked_inputs
from resources.attempts import MOST_TRIES, Attempt, Attempts
from resources.environment import Profile
from resources.references import R, References
from resources.registry import Registry

#: The assets of a release; the others deploy it.
RELEASE = ("dataset", "trained_model", "registered_model", "package")

Context = dg.AutomationContext[dg.AssetKey]


@dataclass(frozen=True)
class Ground:
    """What conditions look at, beside Dagster's own records."""

    profile: Profile
    registry: Registry
    references: References
    attempts: Attempts


@dataclass(frozen=True)
class Tick:
    """One evaluation of all conditions of a sensor."""

    #: The tick's log, which the page shows.
    log: logging.Logger
    #: Assets of runs that have not ended, as of its beginning.
    busy: set[dg.AssetKey]
    #: What was found changed: asset -> its inputs now.
    changed: dict[dg.AssetKey, dict[str, str]] = field(
        default_factory=dict[dg.AssetKey, dict[str, str]]
    )
    #: What is not as it was, and what became of it, in words.
    said: list[str] = field(default_factory=list[str])


#: The tick that this thread evaluates; conditions are shared, ticks of several sensors are not.
TICK: ContextVar[Tick] = ContextVar("tick")


@dataclass(frozen=True)
class Wanted:
    """What an asset would be made from now, or why it is not to be made."""

    inputs: dict[str, str] | None
    reason: str = ""


def wait(reason: str) -> Wanted:
    """Nothing to make yet."""
    return Wanted(None, reason)


class Level(dg.AutomationCondition[dg.AssetKey]):
    """True while an asset's inputs differ from those of its last attempt, and nothing hinders."""

    #: Assets of the model whose runs are waited for, beside its own: one release at a time.
    waits_for: tuple[str, ...] = RELEASE
    #: An asset that takes this one along into its run.
    follows: str | None = None

    def __init__(self, ground: Ground) -> None:
        self._ground = ground

    @property
    def description(self) -> str:
        """The class's docstring, for the page."""
        return inspect.cleandoc(type(self).__doc__ or "").replace("\n", " ")

    def get_label(self) -> str:
        """The name under which the page shows the condition."""
        return self.name

    @abstractmethod
    def wanted(self, look: "Look") -> Wanted:
        """The asset's inputs as they are now."""

    def evaluate(self, context: Context) -> dg.AutomationResult[dg.AssetKey]:
        """Whether to ask for the asset in this tick; says why or why not in the tick's log."""
        look = Look(context, self._ground)
        try:
            requested, reason = self._decide(look)
        except Exception as error:
            # Damaged state of one model must not hold up the others.
            requested, reason = False, f"cannot be decided: {type(error).__name__}: {error}"
        if reason:
            said = f"{context.key.to_user_string()}: {reason}"
            TICK.get().said.append(said)
            if requested:
                TICK.get().log.info(said)
        subset = context.candidate_subset if requested else context.get_empty_subset()
        return dg.AutomationResult(context, subset)

    def _decide(self, look: "Look") -> tuple[bool, str]:
        if self.follows and look.requested(self.follows):
            return True, f"goes with {self.follows}"
        wanted = self.wanted(look)
        if wanted.inputs is None:
            return False, wanted.reason
        return self._due(look, look.key, wanted.inputs)

    def _due(self, look: "Look", key: dg.AssetKey, inputs: dict[str, str]) -> tuple[bool, str]:
        last = self._ground.attempts.last(key)
        change = difference(last, inputs)
        if change is None:
            return False, ""
        if look.key in TICK.get().busy:
            return False, "is being made"
        busy = [name for name in self.waits_for if look.busy(name)]
        if busy:
            return False, f"{change}; waits for the run of {', '.join(busy)}"
        if last and last.inputs == inputs and last.tries >= MOST_TRIES:
            return False, f"given up after {last.tries} runs that were cut short; see their logs"
        TICK.get().changed[key] = inputs
        return True, change


def difference(last: Attempt | None, inputs: Mapping[str, str]) -> str | None:
    """What is new since the last attempt, in words; None if nothing is."""
    if last is None:
        return "never made from what is there"
    changed = [name for name in inputs if last.inputs.get(name) != inputs[name]]
    if changed:
        return f"{' and '.join(changed)} changed"
    return None if last.ended else "the last run was cut short"


class Look:
    """One model, as it is while one of its assets' conditions is evaluated."""

    def __init__(self, context: Context, ground: Ground) -> None:
        self._context = context
        self.ground = ground
        self.key = context.key
        self.model = context.key.path[0]

    def asset(self, name: str) -> dg.AssetKey:
        """Another asset of the model."""
        return dg.AssetKey([self.model, name])

    def seen(self, source: str) -> Seen | None:
        """The last report of a source."""
        queryer = self._context.asset_graph_view.get_inner_queryer_for_back_compat()
        record = queryer.get_asset_record(self.asset(source))
        return seen_in(record.asset_entry.last_materialization) if record else None

    def latest(self, name: str, kind: type[R]) -> R | None:
        """What an asset was made last."""
        return self.ground.references.latest(self.asset(name), kind)

    def requested(self, name: str) -> bool:
        """Whether this very tick asks for an asset."""
        subset = self._context.request_subsets_by_key.get(self.asset(name))
        return subset is not None and not subset.is_empty

    def busy(self, name: str) -> bool:
        """Whether a run that makes the asset has not ended."""
        return self.asset(name) in TICK.get().busy

    def closed_gates(self, names: Sequence[str], digest: str) -> list[str]:
        """Of some checks on registered_model, those that have not passed for a version."""
        keys = [dg.AssetCheckKey(self.asset("registered_model"), name) for name in names]
        storage = self._context.asset_graph_view.instance.event_log_storage
        return [key.name for key in keys if not _passed(storage, key, digest)]


#: How far back the answer about a version is looked for: so many later ones may wait beside it.
MOST_ANSWERS = 20


def _passed(storage: EventLogStorage, key: dg.AssetCheckKey, digest: str) -> bool:
    """The last answer about a version. A later run may have planned to ask again, and have died."""
    for record in storage.get_asset_check_execution_history(
        key, limit=MOST_ANSWERS, status=ANSWERED
    ):
        answer = record.event.dagster_event if record.event else None
        evaluation = answer.asset_check_evaluation_data if answer else None
        about = evaluation.metadata.get("digest") if evaluation else None
        if evaluation and about and about.value == digest:
            return evaluation.passed
    return False


class SnapshotOnChange(Level):
    """The files or the newest contract differ from the last snapshot's, or monitoring asks."""

    def wanted(self, look: Look) -> Wanted:
        """Fingerprint of the files, digest of the contract."""
        code, data = look.seen(TRAINING_CODE), look.seen(RAW_DATA)
        if code is None or data is None:
            return wait(f"no report of {TRAINING_CODE if code is None else RAW_DATA} yet")
        inputs = {RAW_DATA: data.version, "contract": str(code.metadata["contract"])}
        return Wanted(inputs | asked_inputs(look.ground.registry, look.model))


class RetrainOnChange(Level):
    """The code, or the snapshot, differs from the last training's."""

    follows = "dataset"

    def wanted(self, look: Look) -> Wanted:
        """Digest of the code, digest of the snapshot."""
        code, dataset = look.seen(TRAINING_CODE), look.latest("dataset", DatasetSnapshot)
        if code is None or dataset is None:
            return wait("")
        if dataset.contract != code.metadata["contract"]:
            return wait("no snapshot has met the newest contract yet")
        return Wanted({TRAINING_CODE: code.version, "dataset": dataset.digest})


class RegisterWhenTrained(Level):
    """A trained model is not the one that was registered last, or its gates were not asked."""

    follows = "trained_model"

    def wanted(self, look: Look) -> Wanted:
        """The trained model's identity."""
        trained = look.latest("trained_model", TrainedModel)
        return Wanted({"trained_model": trained.identity}) if trained else wait("")

    def _decide(self, look: Look) -> tuple[bool, str]:
        requested, reason = super()._decide(look)
        version = look.latest("registered_model", RegisteredModel)
        if requested or reason or version is None:
            return requested, reason
        # A run may be killed between the version and its gates.
        requested, reason = self._due(look, look.asset(GATES_ATTEMPT), gates_inputs(version))
        return requested, reason and f"gates: {reason}"


class PackageWhenGatesOpen(Level):
    """A version is registered, and its model's own gates are open."""

    follows = "registered_model"

    def wanted(self, look: Look) -> Wanted:
        """The version's digest."""
        version = look.latest("registered_model", RegisteredModel)
        if version is None:
            return wait("")
        inputs = {"registered_model": version.digest}
        if difference(look.ground.attempts.last(look.key), inputs) is None:
            return wait("")
        closed = look.closed_gates(list(GATES), version.digest)
        if closed:
            return wait(f"version {version.version} is held back by {', '.join(closed)}")
        return Wanted(inputs)


class DeployWhenGatesOpen(Level):
    """A release has not come to this environment, and nothing there is closed to it.

    Asked are the check gate_<environment>, the environment it promotes from, and a person where
    approval is required. After a rollback the environment stays as it is until the next release.
    """

    waits_for = ()  # the next release may go on meanwhile

    def wanted(self, look: Look) -> Wanted:
        """The newest release that nothing is closed to, if it is newer than the last one tried."""
        asked = look.ground.attempts.last(look.asset(GATES_ATTEMPT))
        if asked and not asked.ended and look.busy("registered_model"):
            # A tick between two answers would deploy each environment in a run of its own.
            return wait("its gates are being asked")
        last = look.ground.attempts.last(look.key)
        reason = ""
        for released in reversed(newer_releases(look.ground.registry, look.model, last)):
            closed = self._closed(look, released)
            if closed is None:
                return Wanted({RELEASE_INPUT: str(released.release)})
            reason = reason or closed
        return wait(reason)

    def _closed(self, look: Look, released: Release) -> str | None:
        """What holds a release back, in words."""
        environment = look.ground.profile.environment(environment_of(look.key))
        version = look.ground.registry.version(look.model, released.version)
        check = environment_check(environment.name)
        if look.closed_gates([check], version.digest):
            return f"version {version.version} is held back by {check}"
        held = [v for v in promotion(look.ground.registry, version, environment) if not v.passed]
        before = environment.promotes_from
        if before and look.requested(asset_name(before)):
            # Served there in the same run before this environment's turn comes.
            asked = TICK.get().changed.get(look.asset(asset_name(before)), {})
            if asked.get(RELEASE_INPUT) == str(released.release):
                held = [verdict for verdict in held if verdict.gate != "promotion"]
        return held[0].reason if held else None


def newer_releases(registry: Registry, model: str, last: Attempt | None) -> list[Release]:
    """Releases after the last one that was tried, that one too if its attempt was cut short."""
    done = int(last.inputs.get(RELEASE_INPUT, 0)) if last else 0
    if last and not last.ended:
        done -= 1
    return [release for release in releases(registry, model) if release.release > done]


class Conditions:
    """One condition of each kind, shared by all models."""

    def __init__(self, ground: Ground) -> None:
        self._by_asset: dict[str, Level] = {
            "dataset": SnapshotOnChange(ground),
            "trained_model": RetrainOnChange(ground),
            "registered_model": RegisterWhenTrained(ground),
            "package": PackageWhenGatesOpen(ground),
        }
        deploy = DeployWhenGatesOpen(ground)
        for environment in ground.profile.environments:
            if not environment.development:  # people deploy there what they try out
                self._by_asset[asset_name(environment.name)] = deploy

    def of(self, asset: str) -> Level | None:
        """The condition of an asset of every model; None where people alone make it."""
        return self._by_asset.get(asset)
