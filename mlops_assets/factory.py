"""From a model.yaml and the environments to one chain of assets.

Each kind of asset is one op, shared by all models: the model is the first part of the asset's
key. Building an op costs a hundred times more than naming it anew, which is what keeps a code
location with a hundred models as quick to load as one with a single model.
"""

import copy
from collections.abc import Sequence

import dagster as dg
from dagster import AssetChecksDefinition

from mlops_assets.assets import dataset, endpoint, package, registered_model, trained_model
from mlops_assets.gates import GATES
from mlops_assets.spec import ModelSpec
from resources.environment import Environment


class ModelFactory:
    """Builds the definitions of one model after another, for the same environments."""

    def __init__(self, environments: Sequence[Environment]) -> None:
        self._environments = tuple(environments)
        names = tuple(environment.name for environment in environments)
        self._gates = registered_model.gates_op(names)
        self._gate_names = (*GATES, *map(registered_model.environment_check, names))
        self._live_checks = endpoint.live_checks_op()

    def build(self, spec: ModelSpec) -> dg.Definitions:
        """The chain of one model: from dataset to one endpoint per environment."""
        assets = [
            self._asset(spec, dataset.dataset, "dataset", checks=dataset.CHECKS, blocking="contract"),
            self._asset(spec, trained_model.trained_model, "trained_model", ["dataset"]),
            self._asset(
                spec, registered_model.registered_model, "registered_model", ["trained_model"]
            ),
            self._asset(
                spec, package.package, "package", ["registered_model"], checks=package.CHECKS
            ),
            *(self._endpoint(spec, environment) for environment in self._environments),
        ]
        checks = [
            self._checks(spec, self._gates, "registered_model", self._gate_names, blocking=GATES),
            *(
                self._checks(
                    spec, self._live_checks, endpoint.asset_name(e.name), endpoint.LIVE_CHECKS
                )
                for e in self._environments
            ),
        ]
        return dg.Definitions(assets=assets, asset_checks=checks)

    def _endpoint(self, spec: ModelSpec, environment: Environment) -> dg.AssetsDefinition:
        name = endpoint.asset_name(environment.name)
        if environment.promotes_from is None:
            return self._asset(spec, endpoint.first_endpoint, name, ["registered_model"])
        upstream = endpoint.asset_name(environment.promotes_from)
        return self._asset(
            spec,
            endpoint.promoted_endpoint,
            name,
            ["registered_model", upstream],
            inputs={"promotes_from": upstream},
        )

    def _asset(
        self,
        spec: ModelSpec,
        op: dg.OpDefinition,
        name: str,
        upstream: Sequence[str] = (),
        checks: Sequence[str] = (),
        blocking: str | None = None,
        inputs: dict[str, str] | None = None,
    ) -> dg.AssetsDefinition:
        key = dg.AssetKey([spec.name, name])
        by_asset = {asset: given for given, asset in (inputs or {}).items()}
        return dg.AssetsDefinition(
            keys_by_input_name={
                by_asset.get(asset, asset): dg.AssetKey([spec.name, asset]) for asset in upstream
            },
            keys_by_output_name={"result": key},
            node_def=_named(op, f"{spec.name}__{name}"),
            specs=[
                dg.AssetSpec(
                    key=key,
                    deps=[dg.AssetKey([spec.name, asset]) for asset in upstream],
                    description=op.description,
                    group_name=spec.name,
                    owners=[spec.owner],
                    kinds=KINDS.get(name, {"endpoint"}),
                )
            ],
            check_specs_by_output_name={
                check: dg.AssetCheckSpec(check, asset=key, blocking=check == blocking)
                for check in checks
            },
        )

    def _checks(
        self,
        spec: ModelSpec,
        op: dg.OpDefinition,
        name: str,
        checks: Sequence[str],
        blocking: Sequence[str] = (),
    ) -> dg.AssetChecksDefinition:
        key = dg.AssetKey([spec.name, name])
        return AssetChecksDefinition.create(
            keys_by_input_name={op.ins and next(iter(op.ins)) or "asset": key},
            node_def=_named(op, f"{spec.name}__{name}_checks"),
            check_specs_by_output_name={
                check: dg.AssetCheckSpec(check, asset=key, blocking=check in blocking)
                for check in checks
            },
            can_subset=True,
        )


#: Icons of the page, by asset; an endpoint has its own.
KINDS = {
    "dataset": {"parquet", "pandera"},
    "trained_model": {"scikitlearn", "python"},
    "registered_model": {"model"},
    "package": {"package"},
}


def _named(op: dg.OpDefinition, name: str) -> dg.OpDefinition:
    """The same op under another name: ``with_replaced_properties`` would resolve all types anew."""
    named = copy.copy(op)
    named._name = name  # noqa: SLF001
    return named
