"""What an environment asks of a model beside what the model asks of itself: never less."""

from __future__ import annotations

from mlops_assets.spec import ModelSpec, ParityLimits, SliceGate, metric_problems
from resources.environment import Environment


def looser_limits(environment: Environment, spec: ModelSpec) -> list[str]:
    """Where an environment's limits for a model are wrong, or looser than the model's own."""
    own = environment.gates_of(spec.name)
    place = f"gates.{spec.name}"
    problems = [
        f"{place}.{problem.removeprefix('gates.')}"
        for problem in metric_problems(spec.task, own.model_dump(exclude_none=True))
    ]
    if problems:
        return problems
    for metric, limit in own.quality.items():
        model_limit = spec.gates.quality.get(metric)
        if model_limit is None:
            continue
        if model_limit.minimum is not None and (limit.minimum or 0) < model_limit.minimum:
            problems.append(
                f"{place}.quality.{metric}.minimum: {limit.minimum} is looser than model.yaml's "
                f"{model_limit.minimum}; an environment may only be stricter"
            )
        if model_limit.maximum is not None and (limit.maximum or 0) > model_limit.maximum:
            problems.append(
                f"{place}.quality.{metric}.maximum: {limit.maximum} is looser than model.yaml's "
                f"{model_limit.maximum}; an environment may only be stricter"
            )
    champion, model_champion = own.champion, spec.gates.champion
    if (
        champion
        and champion.metric == model_champion.metric
        and champion.tolerance > model_champion.tolerance
    ):
        problems.append(
            f"{place}.champion.tolerance: {champion.tolerance} is looser than model.yaml's "
            f"{model_champion.tolerance}; an environment may only be stricter"
        )
    problems += _looser_slices(place, own.slices, spec)
    for name, limit in (own.parity or ParityLimits()).model_dump(exclude_none=True).items():
        model_limit = getattr(spec.gates.parity, name)
        if limit > model_limit:
            problems.append(
                f"{place}.parity.{name}: {limit} is looser than model.yaml's {model_limit}; an "
                "environment may only be stricter"
            )
    return problems


def _looser_slices(place: str, own: SliceGate | None, spec: ModelSpec) -> list[str]:
    model = spec.gates.slices
    if own is not None and not spec.slices:
        return [f"{place}.slices: judges slices, and {spec.name}'s model.yaml names none"]
    if own is None or model is None or own.metric != model.metric:
        return []
    problems: list[str] = []
    for name, sign in (("minimum", -1), ("maximum", 1), ("tolerance", 1)):
        limit, known = getattr(own, name), getattr(model, name)
        if limit is not None and known is not None and sign * (limit - known) > 0:
            problems.append(
                f"{place}.slices.{name}: {limit} is looser than model.yaml's {known}; an "
                "environment may only be stricter"
            )
    return problems
