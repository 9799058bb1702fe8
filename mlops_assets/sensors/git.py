"""The git sensor: which commit each model's source branch is at, for all models at once.

A tick asks every repository once where its branches stand. Nothing else happens unless one moved:
then the digest of each model's folders decides which models that concerns.
"""

import json
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import dagster as dg

from mlops_assets.assets.sources import (
    TRAINING_CODE,
    Seen,
    commit_metadata,
    report,
    seen,
    unreadable_contract,
)
from mlops_assets.sensors import INTERVAL_SECONDS
from mlops_assets.spec import ModelSpec
from resources.git import Branch, GitError, GitSource, Heads, NotInCommitError, SeenCommit

#: How often the last reports are compared with what this sensor knows, in seconds.
RECHECK_SECONDS = 60.0
#: The folder of the platform's own repository that holds one folder per model.
MODELS_FOLDER = "mlops_assets/models"


@dataclass(frozen=True)
class Cursor:
    """What the last tick saw; it saves work and decides nothing."""

    #: "repository branch" -> commit at its head.
    heads: dict[str, str] = field(default_factory=dict[str, str])
    #: "model repository branch folders" -> digest of the folders; empty where the head does not
    #: hold the model.
    trees: dict[str, str] = field(default_factory=dict[str, str])
    #: When the trees were last compared with the last reports, Unix seconds.
    checked: float = 0.0
    #: As trees: what another had reported last when this sensor corrected it.
    overruled: dict[str, str] = field(default_factory=dict[str, str])

    @classmethod
    def parse(cls, text: str | None) -> "Cursor":
        """The cursor in a text; an empty one where the text is none of ours."""
        try:
            held = json.loads(text or "")
        except ValueError:
            return cls()
        if not isinstance(held, dict):
            return cls()
        checked = held.get("checked")
        return cls(
            _texts(held.get("heads")),
            _texts(held.get("trees")),
            checked if isinstance(checked, float) else 0.0,
            _texts(held.get("overruled")),
        )

    def text(self) -> str:
        """As Dagster stores it."""
        return json.dumps(asdict(self), sort_keys=True)


def _texts(value: Any) -> dict[str, str]:
    if not isinstance(value, dict):
        return {}
    return {k: v for k, v in value.items() if isinstance(k, str) and isinstance(v, str)}


@dataclass
class Tick:
    """One look at all branches."""

    log: Any
    git: GitSource
    specs: Sequence[ModelSpec]
    before: Cursor
    heads: Heads
    events: list[dg.AssetMaterialization] = field(default_factory=list[dg.AssetMaterialization])
    #: What hindered, by branch.
    errors: dict[Branch, str] = field(init=False)
    #: As the cursor's, of this tick.
    trees: dict[str, str] = field(init=False)

    def __post_init__(self) -> None:
        self.errors = {branch: str(error) for branch, error in self.heads.errors.items()}
        places = [_place(self.git, spec) for spec in self.specs]
        self.trees = {p: self.before.trees[p] for p in places if p in self.before.trees}

    def moved(self) -> list[ModelSpec]:
        """Models whose branch is elsewhere than at the last tick, and models new to us."""
        return [
            spec
            for spec in self.specs
            if (branch := self.git.branch(spec)) in self.heads.found
            and (_place(self.git, spec) not in self.trees or self._moved(branch))
        ]

    def look(self, moved: Iterable[ModelSpec], last: dict[tuple[str, str], Seen]) -> None:
        """Report the models that the new heads change; an error ends its own branch alone."""
        compared: set[Branch] = set()
        for spec in moved:
            branch = self.git.branch(spec)
            if branch in self.errors:
                continue
            try:
                self._look_at(spec, branch, last.get((spec.name, TRAINING_CODE)))
                if branch not in compared and spec.source.repository == ".":
                    compared.add(branch)
                    self._compare_folders(spec, branch)
            except GitError as error:
                self.errors[branch] = str(error)

    def after(self) -> Cursor:
        """What to remember; a branch that gave an error is where it was."""
        heads = {str(branch): head for branch, head in self.heads.found.items()}
        for branch in self.errors:
            heads.pop(str(branch), None)
            if str(branch) in self.before.heads:
                heads[str(branch)] = self.before.heads[str(branch)]
        return replace(self.before, heads=heads, trees=self.trees)

    def summary(self) -> str:
        """How many were looked at."""
        repositories = len({self.git.branch(spec).url for spec in self.specs})
        return f"{_count(repositories, 'repository')}, {_count(len(self.specs), 'model')}"

    def _moved(self, branch: Branch) -> bool:
        return self.before.heads.get(str(branch)) != self.heads.found[branch]

    def _look_at(self, spec: ModelSpec, branch: Branch, last: Seen | None) -> None:
        head = self.heads.found[branch]
        try:
            tree = self.git.head_tree(spec, head)
        except NotInCommitError as error:
            self.log.warning(f"{spec.name}: {error}; if it was removed, reload the code location")
            self.trees[_place(self.git, spec)] = ""
            return
        known = last is not None and last.version == tree
        if known and self.trees.get(_place(self.git, spec)) == tree:
            self.log.info(f"{spec.name}: nothing of it changes with {head[:10]} of {branch}")
            return
        found = self.git.seen_commit(spec, head, _commit(last))
        self._compare(spec, found)
        if known:
            self.log.info(f"{spec.name}: {head[:10]} of {branch} holds what was last reported")
        else:
            self.events.append(report(spec.name, TRAINING_CODE, tree, _metadata(found)))
            self.log.info(f"{spec.name}: {_line(found)} of {branch}: reported")
        self.trees[_place(self.git, spec)] = tree

    def _compare(self, spec: ModelSpec, found: SeenCommit) -> None:
        """Say where the loaded model.yaml is too old to follow the new one."""
        if found.spec is None:
            self.log.warning(f"{spec.name}: {found.problem}; releasing it will fail")
            return
        if spec.source.repository != ".":
            return  # the loaded model.yaml is not the one that lies beside the code
        of_both = ((n, getattr(spec, n), getattr(found.spec, n)) for n in ("owner", "source"))
        differing = [name for name, loaded, new in of_both if loaded != new]
        if differing:
            self._wants_reload(
                f"{spec.name}: {' and '.join(differing)} in model.yaml of "
                f"{found.commit.commit[:10]} differ from what is loaded"
            )

    def _compare_folders(self, spec: ModelSpec, branch: Branch) -> None:
        head = self.heads.found[branch]
        there = self.git.head_folders(spec, head, MODELS_FOLDER)
        new = sorted(
            name
            for name in there - {spec.name for spec in self.specs}
            if not name.startswith(("_", "."))
        )
        if new:
            self._wants_reload(f"{head[:10]} of {branch} holds models not loaded: {', '.join(new)}")

    def _wants_reload(self, why: str) -> None:
        self.log.warning(f"{why}: reload the code location")


def git_sensor(
    specs: Sequence[ModelSpec],
    git: GitSource,
    status: dg.DefaultSensorStatus,
    now: Callable[[], float] = time.time,
) -> dg.SensorDefinition:
    """The sensor that reports ``training_code`` of all models.

    Args:
        specs: the models of the code location.
        git: their repositories.
        status: whether it runs without being switched on.
        now: Unix seconds.
    """
    # A failed tick's cursor is dropped by Dagster: while one repository is unreachable, what is
    # known of the others is kept here, as (the cursor Dagster gave, what it should have been).
    kept: tuple[str | None, Cursor] | None = None

    @dg.sensor(
        name="git_sensor",
        description="Reports the commit at the head of each model's source branch.",
        minimum_interval_seconds=INTERVAL_SECONDS,
        default_status=status,
    )
    def look(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        nonlocal kept
        given = context.cursor
        before = kept[1] if kept and kept[0] == given else Cursor.parse(given)
        before = _recheck(context, specs, git, before, now())
        tick = Tick(context.log, git, specs, before, git.heads(specs))
        moved = tick.moved()
        if moved:
            tick.look(moved, seen(context.instance, [(s.name, TRAINING_CODE) for s in moved]))
        after = tick.after()
        if tick.errors:
            for event in tick.events:
                context.instance.report_runless_asset_event(event)
            kept = (given, after)
            raise GitError("; ".join(dict.fromkeys(tick.errors.values())))
        kept = None
        said = _said(tick, moved)
        return dg.SensorResult(asset_events=tick.events, cursor=after.text(), skip_reason=said)

    return look


def _place(git: GitSource, spec: ModelSpec) -> str:
    return " ".join([spec.name, str(git.branch(spec)), spec.folder, *spec.source.paths])


def _recheck(
    context: dg.SensorEvaluationContext,
    specs: Sequence[ModelSpec],
    git: GitSource,
    before: Cursor,
    now: float,
) -> Cursor:
    """Now and then, let go of what somebody else has reported otherwise: it is looked at anew.

    A run may report a head that it read before, after this sensor has reported a newer one.
    """
    if 0 <= now - before.checked < RECHECK_SECONDS:
        return before
    trees, overruled = dict(before.trees), dict(before.overruled)
    last = seen(context.instance, [(spec.name, TRAINING_CODE) for spec in specs])
    for spec in specs:
        place, found = _place(git, spec), last.get((spec.name, TRAINING_CODE))
        version = found.version if found else ""
        # To insist would start a run for ever where runs read another folder than is loaded here.
        if trees.get(place) and trees[place] != version and overruled.get(place) != version:
            del trees[place]
            overruled[place] = version
    return replace(before, trees=trees, overruled=overruled, checked=now)


def _said(tick: Tick, moved: Sequence[ModelSpec]) -> str:
    if not moved:
        return f"{tick.summary()}: nothing moved"
    names = ", ".join(event.asset_key.path[0] for event in tick.events)
    return f"{tick.summary()}: {len(moved)} looked at, reported: {names or 'none'}"


def _count(number: int, name: str) -> str:
    many = f"{name[:-1]}ies" if name.endswith("y") else f"{name}s"
    return f"{number} {name if number == 1 else many}"


def _commit(last: Seen | None) -> str | None:
    commit = last.metadata.get("commit") if last else None
    return commit if isinstance(commit, str) else None


def _line(found: SeenCommit) -> str:
    commit = found.commit
    return f"{commit.commit[:10]} «{commit.message}» by {commit.author}"


def _metadata(found: SeenCommit) -> dict[str, Any]:
    tree = found.commit.tree
    contract = found.spec.contract_digest if found.spec else unreadable_contract(tree)
    problem = {"problem": found.problem} if found.problem else {}
    return {
        **commit_metadata(found.commit, contract),
        "tree": tree,
        "changed": _changed(found),
        **problem,
    }


def _changed(found: SeenCommit) -> str:
    if found.changed_files is None:
        return "not known: the commit of the last report is not at hand"
    more = found.changed_files - len(found.changed)
    return "\n".join([*found.changed, *([f"and {more} more"] if more else [])])
