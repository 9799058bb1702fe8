"""From a model.yaml and the environments to one chain of assets.

Each kind of asset is one op, shared by all models: the model is the first part of the asset's
key. Building an op costs a hundred times more than naming it anew, which is what keeps a code
location with a hundred models as quick to load as one with a single model.
"""

import copy
from collections.abc import Mapping, Sequence

import dagster as dg

from mlops_assets.assets import (
    approval,
    dataset,
    endpoint,
    experiment,
    monitoring,
    package,
    registered_model,
    sources,
    trained_model,
)
from mlops_assets.assets.live_checks import LIVE_CHECKS
from mlops_assets.automation import Conditions
from mlops_assets.gates import GATES
from mlops_assets.spec import ModelSpec
from mlops_assets.watch import asset_name
from resources.environment import Environment


class ModelFactory:
    """Builds the definitions of one model after another, for the same environments."""

    def __init__(self, environments: Sequence[Environment], conditions: Conditions) -> None:
        self._conditions = conditions
        self._environments = tuple(environments)
        names = tuple(environment.name for environment in environments)
        self._gates = registered_model.gates_op(names)
        self._gate_checks = GATES | {
            registered_model.environment_check(name): f"Whether {name} would take the version."
            for name in names
        }

    def build(self, spec: ModelSpec) -> dg.Definitions:
        """The chain of one model: from dataset to one endpoint per environment."""
        chain = _Chain(spec, self._conditions)
        chain.assets += sources.specs(spec.name, spec.owner)
        chain.assets.append(experiment.spec(spec.name, spec.owner))
        outside = (sources.TRAINING_CODE, sources.RAW_DATA)
        chain.asset("dataset", dataset.dataset, dataset.CHECKS, ("contract",), outside)
        chain.asset(
            "trained_model",
            trained_model.trained_model,
            deps=(sources.TRAINING_CODE,),
            dataset="dataset",
        )
        chain.asset(
            "registered_model", registered_model.registered_model, trained_model="trained_model"
        )
        chain.checks("registered_model", self._gates, self._gate_checks, blocking=tuple(GATES))
        chain.asset("package", package.package, package.CHECKS, registered_model="registered_model")
        for environment in self._environments:
            name, inputs = endpoint.asset_name(environment.name), {}
            deps: tuple[str, ...] = ()
            if environment.approval == "required":
                deps = (approval.asset_name(environment.name),)
                chain.asset(deps[0], approval.approval, deps=("registered_model",))
            op = endpoint.first_endpoint
            if environment.promotes_from:
                op = endpoint.promoted_endpoint
                inputs = {"promotes_from": endpoint.asset_name(environment.promotes_from)}
            inputs["registered_model"] = "registered_model"
            chain.asset(name, op, LIVE_CHECKS, deps=deps, **inputs)
            if environment.capture is not None:
                watch = asset_name(environment.name)
                chain.asset(watch, monitoring.monitoring, monitoring.CHECKS, endpoint=name)
        return dg.Definitions(assets=chain.assets, asset_checks=chain.asset_checks)


class _Chain:
    """The assets and checks of one model, as they are added."""

    def __init__(self, spec: ModelSpec, conditions: Conditions) -> None:
        self._spec, self._conditions = spec, conditions
        self.assets: list[dg.AssetsDefinition | dg.AssetSpec] = []
        self.asset_checks: list[dg.AssetChecksDefinition] = []

    def asset(
        self,
        name: str,
        op: dg.OpDefinition,
        checks: Mapping[str, str] | None = None,
        blocking: Sequence[str] = (),
        deps: Sequence[str] = (),
        **inputs: str,
    ) -> None:
        """Add an asset that an op materializes.

        Args:
            name: the asset's.
            op: what materializes it.
            checks: name -> description of those that the op evaluates itself.
            blocking: those of them that hold back what comes after.
            deps: assets it follows from, for the graph alone: a run does not wait for them.
            inputs: the op's inputs -> assets.
        """
        spec, key = self._spec, self._key(name)
        by_input = {given: self._key(asset) for given, asset in inputs.items()}
        self.assets.append(
            dg.AssetsDefinition(
                keys_by_input_name=by_input,
                keys_by_output_name={"result": key},
                node_def=_named(op, f"{spec.name}__{name}"),
                specs=[
                    dg.AssetSpec(
                        key=key,
                        deps=[*by_input.values(), *map(self._key, deps)],
                        description=op.description,
                        group_name=spec.name,
                        owners=[spec.owner],
                        kinds=KINDS.get(name) or KINDS[name.rpartition("_")[2]],
                        automation_condition=self._conditions.of(name),
                    )
                ],
                check_specs_by_output_name=_check_specs(key, checks or {}, blocking),
            )
        )

    def checks(
        self,
        name: str,
        op: dg.OpDefinition,
        checks: Mapping[str, str],
        blocking: Sequence[str] = (),
    ) -> None:
        """Add checks of an asset, which one op evaluates, together or some of them."""
        key = self._key(name)
        self.asset_checks.append(
            dg.AssetChecksDefinition.create(
                keys_by_input_name={next(iter(op.ins)): key},
                node_def=_named(op, f"{self._spec.name}__{name}_checks"),
                check_specs_by_output_name=_check_specs(key, checks, blocking),
                can_subset=True,
            )
        )

    def _key(self, name: str) -> dg.AssetKey:
        return dg.AssetKey([self._spec.name, name])


def _check_specs(
    key: dg.AssetKey, checks: Mapping[str, str], blocking: Sequence[str]
) -> dict[str, dg.AssetCheckSpec]:
    return {
        name: dg.AssetCheckSpec(name, asset=key, description=description, blocking=name in blocking)
        for name, description in checks.items()
    }


#: Icons of the page, by asset or by the last word of its name.
KINDS = {
    "dataset": {"parquet", "pandera"},
    "trained_model": {"scikitlearn", "python"},
    "registered_model": {"model"},
    "package": {"package"},
    "approval": {"approval"},
    "endpoint": {"endpoint"},
    "monitoring": {"monitoring"},
}


def _named(op: dg.OpDefinition, name: str) -> dg.OpDefinition:
    """The same op under another name: ``with_replaced_properties`` would resolve all types anew."""
    named = copy.copy(op)
    named._name = name  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
    return named
