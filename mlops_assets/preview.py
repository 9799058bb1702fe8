"""Experiments that serve for a while, each branch in an environment of its own.

The server knows its own end, so that a preview ends whether or not anything else still runs.
"""

from __future__ import annotations

import datetime as dt
import json
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg

from mlops_assets.errors import UserError
from mlops_assets.files import digest_bytes, remove_tree, to_json, write_atomic
from mlops_assets.gates import Facts, GatesClosedError, require_open, verdicts
from mlops_assets.judgement import policy
from mlops_assets.rollout import RolloutError, roll_out
from mlops_assets.samples import load_samples
from mlops_assets.wiring import build_resources
from resources.endpoints.base import VersionRef
from resources.endpoints.local import LocalEndpoints, LocalSettings
from resources.environment import Environment, Profile
from resources.experiments import Experiments
from resources.registry import Version
from resources.verification import Verification

#: In the folder of a preview's endpoint.
FILE = "preview.json"
COLUMNS = ("MODEL", "BRANCH", "EXPERIMENT", "ENDS", "URL", "KEY")


class PreviewError(UserError):
    """A branch cannot be served; the message says why."""


@dataclass(frozen=True)
class Preview:
    """One branch that serves."""

    model: str
    branch: str
    experiment: int | None
    ends: dt.datetime
    url: str
    key: str

    def metadata(self) -> dict[str, Any]:
        """For Dagster's page."""
        return {
            "branch": self.branch,
            "experiment": self.experiment or 0,
            "preview": dg.MetadataValue.url(self.url),
            "ends": dg.MetadataValue.timestamp(self.ends),
        }

    def cells(self) -> list[str]:
        """One row of the table, see COLUMNS."""
        ends = self.ends.astimezone().strftime("%Y-%m-%d %H:%M")
        return [self.model, self.branch, str(self.experiment or "-"), ends, self.url, self.key]


def environment_of(branch: str) -> str:
    """The name of a branch's own environment: its letters, and what makes it the only one."""
    letters = re.sub(r"[^a-z0-9]+", "_", branch.lower()).strip("_")[:20].strip("_")
    first = letters if letters[:1].isalpha() else f"b_{letters}".strip("_")
    return f"{first}_{digest_bytes(branch.encode())[:6]}"


def serve(
    profile: Profile,
    model: str,
    branch: str,
    hours: float | None = None,
    log: Callable[[str], None] = lambda _: None,
) -> Preview:
    """Serve a branch's newest experiment until its time is over.

    Args:
        profile: the profile; one of its environments says how, with ``preview``.
        model: the model's name.
        branch: whose experiment was kept.
        hours: until it ends; at most those of the environment.
        log: told every step.

    Raises:
        PreviewError: previews are not set up, a gate is closed, or a sample failed.
        UserError: there is no such experiment.
    """
    wanted = _wanted(profile)
    assert wanted.preview is not None, "that is how it was found"
    most = wanted.preview.hours
    if hours is not None and hours > most:
        raise PreviewError(f"{wanted.name}.json lets a preview live for {most:g} hours at most")
    _sweep(profile)
    version = Experiments.of(build_resources(profile)).newest(model, branch)
    samples = load_samples(profile.samples_of(model, wanted.name))
    _require_open(version, branch, wanted)
    ends = time.time() + 3600 * (most if hours is None else hours)
    settings = LocalSettings(
        workers=wanted.local.workers_of(model),
        cors_origins=tuple(wanted.server.cors_origins),
        access_log=wanted.server.access_log,
        ends=ends,
    )
    name, endpoints = environment_of(branch), _endpoints(profile)
    reference = VersionRef(model, version.version, version.digest, version.bundle)
    folder = _folder(profile, model, name)
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(folder / FILE, to_json({"branch": branch, "ends": ends}))
    with endpoints.open(model, name, settings) as target:
        try:
            roll_out(target, reference, samples, log=log)
        except RolloutError as error:
            raise PreviewError(f"{model} of {branch}: {error}") from None
    found = _read(profile, model, name)
    assert found is not None, "it was just written"
    return found


def previews(profile: Profile) -> list[Preview]:
    """All that serve, those whose time is over swept away."""
    _sweep(profile)
    known = _endpoints(profile).known()
    found = [_read(profile, model, name) for model, name in sorted(known)]
    return [preview for preview in found if preview is not None]


def end(profile: Profile, model: str, branch: str) -> bool:
    """End a preview before its time; False if there was none."""
    name = environment_of(branch)
    return _remove(profile, model, name) if _read(profile, model, name) else False


def _wanted(profile: Profile) -> Environment:
    if profile.preview is None:
        raise PreviewError(
            f'no environment of profile {profile.name} has "preview": {{"hours": 24}}; add a file '
            "such as preview.json with it, target local, and samples of that name"
        )
    return profile.preview


def _require_open(version: Version, branch: str, wanted: Environment) -> None:
    """What holds in every environment; that it is an experiment is why it is here."""
    mismatched = version.mismatched()
    if mismatched:
        raise PreviewError(f"experiment {version.version}: changed on disk: {mismatched}")
    facts = Facts(
        manifest=version.manifest,
        evidence=version.evidence,
        integrity=Verification().verify(version.bundle, version.digest),
        digest=version.digest,
        champion=None,
    )
    development = wanted.model_copy(update={"development": True})
    try:
        what = f"{version.model} of {branch} in a preview"
        require_open(what, verdicts(facts, policy(version.manifest, development)))
    except GatesClosedError as error:
        raise PreviewError(str(error)) from None


def _endpoints(profile: Profile) -> LocalEndpoints:
    return LocalEndpoints(profile.home / "endpoints")


def _folder(profile: Profile, model: str, name: str) -> Path:
    return profile.home / "endpoints" / name / model


def _read(profile: Profile, model: str, name: str) -> Preview | None:
    try:
        kept = json.loads((_folder(profile, model, name) / FILE).read_bytes())
        ends = dt.datetime.fromtimestamp(kept["ends"], dt.UTC)
        branch = str(kept["branch"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    status = _endpoints(profile).status(model, name)
    url = status.url or "-"
    return Preview(model, branch, status.version, ends, url, status.key_command)


def _sweep(profile: Profile) -> None:
    """Remove what is left of previews whose time is over; their servers have ended themselves."""
    now = dt.datetime.now(dt.UTC)
    for model, name in _endpoints(profile).known():
        found = _read(profile, model, name)
        if found is not None and found.ends <= now:
            _remove(profile, model, name)


def _remove(profile: Profile, model: str, name: str) -> bool:
    stopped = _endpoints(profile).stop(model, name)
    remove_tree(_folder(profile, model, name))
    return stopped
