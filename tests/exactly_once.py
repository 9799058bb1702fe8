"""Random actions in a world, until it has come to rest."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from mlops_assets.runs import PROCESS_TAG
from mlops_assets.sensors.data import RECHECK_SECONDS
from resources.git import GitError
from tests.world import MOST_CUTS, SENSORS, Run, World

#: Rounds of ticks after which nothing more may be asked for.
MOST_ROUNDS = 20

#: What happens, which one of several it happens to, and how far.
Action = tuple[str, int, int]


class Play(World):
    """What happens to runs, and the order in which all happens."""

    def advance(self, run: Run, far: int, anywhere: bool = False) -> None:
        """Let a run go on for some points, to one where it may stand still."""
        process = run.start()
        while process.point and (far > 0 or not (anywhere or process.point.still)):
            process.go()
            if process.point:
                self._watch(run, process.point.name)
                far -= anywhere or process.point.still
        self.tell(f"  {run} {'stands ' + process.point.name if process.point else 'has ended'}")
        if process.point is None:
            self.runs.remove(run)

    def _watch(self, run: Run, point: str) -> None:
        if point == "before train in a process":
            self.trainings += 1
        if point.startswith("before rename /artifacts/trained/"):
            identity = point.rpartition("/")[2]
            assert not (self.home / "artifacts" / "trained" / identity).exists(), (
                f"{run} has trained {identity[:8]}, which was trained before"
            )
            self.completed += 1

    def finish(self) -> None:
        """Let all runs end."""
        while self.runs:
            self.advance(self.runs[0], 10**6)

    def kill(self, run: Run) -> None:
        """End a run's process where it stands; one that never began is lost."""
        if self.cuts >= MOST_CUTS:
            return
        self.cuts += 1
        self.lost += 1
        self.runs.remove(run)
        if run.process and run.process.point:
            self.tell(f"  {run} is killed {run.process.point.name}")
            run.process.kill()
        record = self.instance.get_run_by_id(run.task.run_id)
        assert record is not None
        if PROCESS_TAG not in record.tags:
            # It died before its first step: Dagster's code server or its monitoring say so.
            self.instance.report_run_failed(record, "ended before its first step")

    def act(self, action: Action) -> None:
        """One action; nothing where there is nothing to act on."""
        kind, which, far = action
        self.tell(f"{kind} {which} {far}")
        run = self.runs[which % len(self.runs)] if self.runs else None
        match kind:
            case "tick":
                self.tick(SENSORS[which % len(SENSORS)])
            case "round":
                for name in SENSORS:
                    self.tick(name)
            case "no remote":
                self._without_remote()
            case "advance" if run:
                self.advance(run, far)
            case "finish":
                self.finish()
            case "kill" if run:
                self.advance(run, far, anywhere=True)
                if run in self.runs:
                    self.kill(run)
            case "lose" if run:
                self.kill(run)
            case "drop":
                self.drops = True
            case "forget":
                self.cursors[SENSORS[which % len(SENSORS)]] = None
            case "restart":
                self.restart()
            case "crash":
                self._crash()
            case "rest":
                self.rest()
            case "advance" | "kill" | "lose":
                pass
            case _:
                self.change(kind, which, far)

    def _without_remote(self) -> None:
        away = self.bare.path.with_name("away.git")
        self.bare.path.rename(away)
        try:
            self.tick("git_sensor")
        except GitError as error:
            self.tell(f"  {error}")
        else:
            raise AssertionError("the git sensor did not say that its remote is gone")
        finally:
            away.rename(self.bare.path)

    def _crash(self) -> None:
        """The machine goes down, and comes back."""
        begun = [run for run in self.runs if run.process]
        if begun and self.cuts < MOST_CUTS:
            cuts = self.cuts
            for run in begun:
                self.cuts = cuts  # one cut for each of them
                self.kill(run)
        self.restart()

    def rest(self) -> None:
        """Ticks, and runs to their ends, until nothing is asked for any more."""
        quiet = 0
        for _ in range(MOST_ROUNDS):
            news = [self.tick(name) for name in SENSORS]
            self.finish()
            quiet = 0 if any(news) else quiet + 1
            # What a sensor looks at only now and then, it has to look at twice.
            self.clock += RECHECK_SECONDS if quiet else 0
            if quiet == 3:
                self.cuts = 0
                return
        raise AssertionError("does not come to rest")


def played(folder: Path, actions: list[Action], check: Callable[[Play], None]) -> Play:
    """Play actions in a new world, let it rest, and check; what goes wrong tells the story."""
    begun = time.monotonic()
    world = Play(folder)
    try:
        for action in actions:
            world.act(action)
            if action[0] == "rest":
                check(world)
        world.tell("rest")
        world.rest()
        check(world)
    except BaseException as error:
        error.add_note("\n".join([f"actions = {actions}", *world.story]))
        raise
    finally:
        world.close()
    print(
        f"{len(actions)} actions, {world.changes} changes, {world.trainings} trainings begun, "
        f"{world.completed} completed: {time.monotonic() - begun:.1f} s"
    )
    return world


#: Kind of an action -> how likely it is.
WEIGHTS = {
    "tick": 8,
    "round": 3,
    "advance": 8,
    "finish": 2,
    "kill": 3,
    "lose": 1,
    "drop": 1,
    "crash": 1,
    "restart": 1,
    "forget": 1,
    "no remote": 1,
    "rest": 1,
    "push good": 4,
    "push worse": 1,
    "push broken": 1,
    "revert": 1,
    "rewind": 1,
    "upload": 3,
    "touch": 1,
    "upload broken": 1,
    "remove": 2,
}
KINDS = [kind for kind, weight in WEIGHTS.items() for _ in range(weight)]


def actions(number: int) -> st.SearchStrategy[list[Action]]:
    """So many random actions."""
    kinds = st.sampled_from(KINDS)
    action = st.tuples(kinds, st.integers(0, 5), st.integers(0, 40))
    return st.lists(action, min_size=number, max_size=number)


def fuzzed(test: Callable[..., None], number: int, examples: int) -> Callable[..., None]:
    """A test of a folder, as a test of ``examples`` times ``number`` random actions.

    The same ones each time, unless MLOPS_FUZZ_SEED, a number, asks for others;
    MLOPS_FUZZ_EXAMPLES says how many times. What fails is told as it happened, and not made
    smaller: that would take hours.
    """
    chosen = os.environ.get("MLOPS_FUZZ_SEED")
    configured = settings(
        max_examples=int(os.environ.get("MLOPS_FUZZ_EXAMPLES", examples)),
        derandomize=chosen is None,
        deadline=None,
        database=None,
        phases=(Phase.generate,),
        suppress_health_check=list(HealthCheck),
        print_blob=False,
    )
    test = configured(given(actions(number))(test))
    return test if chosen is None else seed(int(chosen))(test)
