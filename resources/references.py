"""References between assets, stored per run, so that one run never sees two versions of one input.

The bytes lie in the artifact store; what travels is a small JSON document.
"""

from typing import Any, TypeVar

import dagster as dg

from mlops_assets.references import Reference
from mlops_assets.runs import PROCESS_TAG, process_name
from resources.documents import Documents

R = TypeVar("R", bound=Reference)


class MissingReferenceError(Exception):
    """An asset was never materialized."""


class References(dg.ConfigurableResource):  # pyright: ignore[reportMissingTypeArgument]
    """Documents ``references/<asset>/<run>.json``, and ``latest.json`` beside them."""

    documents: dg.ResourceDependency[Documents]

    def write(self, key: dg.AssetKey, run_id: str, reference: Reference) -> None:
        """Keep what a run made; runs that start later read it."""
        text = reference.model_dump_json(indent=2)
        self.documents.write(_name(key, run_id), text)
        self.documents.write(_name(key, "latest"), text)

    def read(self, key: dg.AssetKey, run_id: str, kind: type[R]) -> R:
        """What this run made or has read before, else the latest, from now on fixed for the run.

        Raises:
            MissingReferenceError: the asset was never materialized.
        """
        name = _name(key, run_id)
        found = self.documents.read(name)
        if found is None:
            latest = self.documents.read(_name(key, "latest"))
            if latest is None:
                raise MissingReferenceError(
                    f"{key.to_user_string()} has never been materialized; materialize it first"
                )
            created = self.documents.create(name, latest.decode())
            found = latest if created else self.documents.read(name) or latest
        return kind.model_validate_json(found)

    def of_run(self, key: dg.AssetKey, run_id: str, kind: type[R]) -> R | None:
        """What this very run made or has read, if it has."""
        found = self.documents.read(_name(key, run_id))
        return None if found is None else kind.model_validate_json(found)

    def latest(self, key: dg.AssetKey, kind: type[R]) -> R | None:
        """What was made last by any run, if anything was."""
        return self.of_run(key, "latest", kind)


def _name(key: dg.AssetKey, name: str) -> str:
    return "/".join(("references", *key.path, f"{name}.json"))


class ReferenceIOManager(dg.ConfigurableIOManager):  # pyright: ignore[reportMissingTypeArgument]
    """Carries references between assets; the parameter's annotation says which kind."""

    references: dg.ResourceDependency[References]

    def setup_for_execution(self, context: dg.InitResourceContext) -> None:
        """Say which process works on the run: every step comes by here."""
        if context.instance and context.run and context.instance.has_run(context.run.run_id):
            context.instance.add_run_tags(context.run.run_id, {PROCESS_TAG: process_name()})

    def handle_output(self, context: dg.OutputContext, obj: Any) -> None:
        """Keep an asset's reference under its run."""
        if isinstance(obj, Reference):
            self.references.write(context.asset_key, context.run_id, obj)

    def load_input(self, context: dg.InputContext) -> Any:
        """Read an upstream asset's reference for this run."""
        kind = context.dagster_type.typing_type
        return self.references.read(context.asset_key, context.step_context.run_id, kind)
