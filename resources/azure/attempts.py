"""Attempts on Azure: none begins where Azure is not as it must be."""

from collections.abc import Generator, Mapping
from contextlib import contextmanager

import dagster as dg
from pydantic import PrivateAttr

from resources.attempts import Attempts, CutShort, Work
from resources.azure.on_azure import OnAzure
from resources.azure.preflight import QUICK, TRAINING, Ground, preflight
from resources.environment import Profile

#: The asset that needs the cluster: a rollback must not fail for a cluster that it does not need.
_TRAINED = "trained_model"


class AttemptsOnAzure(OnAzure, Attempts):
    """The same, but a run looks first at what it stands on, once, and fails at once."""

    _profile: Profile = PrivateAttr()
    #: What was looked at: (run, whether the cluster too).
    _seen: set[tuple[str, bool]] = PrivateAttr(default_factory=set)

    def of_profile(self, profile: Profile) -> "AttemptsOnAzure":
        """The same, for what a profile names."""
        self._profile = profile
        return self

    @contextmanager
    def working(
        self,
        context: dg.AssetExecutionContext | dg.AssetCheckExecutionContext,
        key: dg.AssetKey,
        inputs: Mapping[str, str],
    ) -> Generator[Work]:
        """See Attempts.working; CutShort, with every finding, before the attempt begins."""
        self._look(context.run.run_id, key.path[-1] in (_TRAINED, "dataset"))
        with super().working(context, key, inputs) as work:
            yield work

    def _look(self, run: str, trains: bool) -> None:
        if (run, trains) in self._seen or (run, True) in self._seen:
            return
        checks = [*QUICK, TRAINING] if trains else QUICK
        found = preflight(Ground(self._profile, self._clients), checks)
        errors = [str(finding) for finding in found if finding.severity == "error"]
        if errors:
            # Not an error of the asset's own: it is tried again, when Azure is mended.
            lines = [*errors, "`mlops doctor` looks at everything"]
            raise CutShort("\n".join(lines), allow_retries=False)
        self._seen.add((run, trains))
