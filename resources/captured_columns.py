"""Whether what environments capture, or keep out of it, are columns that any model has."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from pathlib import Path

from mlops_assets.scoring.capture.settings import PREDICTION
from mlops_assets.spec import ModelSpec
from resources.environment import Profile


def unknown_columns(profile: Profile, specs: Iterable[ModelSpec]) -> Iterator[tuple[Path, str]]:
    """Files of environments and what is wrong there: a misspelt name keeps no column out.

    Args:
        profile: whose environments.
        specs: of all its models; of some alone, names of the others would be called wrong.
    """
    known = {name for spec in specs for name in spec.data.columns}
    if not known:
        return
    known.add(PREDICTION)
    for environment in (*profile.environments, profile.preview):
        if environment is None or environment.capture is None:
            continue
        policy = environment.capture
        for place, names in (("columns", policy.columns or []), ("exclude", policy.exclude)):
            for name in names:
                if name not in known:
                    problem = (
                        f"capture.{place}: no model has a column '{name}'; {_mend(name, known)}"
                    )
                    yield profile.file_of(environment.name), problem


def _mend(name: str, known: set[str]) -> str:
    by_small = {column.lower(): column for column in known}
    close = difflib.get_close_matches(name.lower(), sorted(by_small))
    if not close:
        return "write it as model.yaml does, or leave it out"
    return "perhaps " + " or ".join(f"'{by_small[small]}'" for small in close)
