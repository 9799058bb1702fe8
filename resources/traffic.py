"""How traffic comes to a new version: the block ``traffic`` of an environment's file."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator, model_validator

from mlops_assets.strict import Strict

#: Longer than any rollout should hold its endpoint: a day.
LONGEST_SECONDS = 86_400


class Step(Strict):
    """One share of the traffic, kept and judged for a while."""

    percent: int = Field(ge=1, le=100, description="Share of the requests.")
    seconds: float = Field(
        default=0,
        ge=0,
        le=LONGEST_SECONDS,
        description="How long the version is judged at this share; 0 goes on at once.",
    )


class Limits(Strict):
    """How much worse than the live version a new one may do.

    A difference counts where chance does not explain it and it is greater than the limit.
    """

    minimum_requests: int = Field(
        default=50,
        ge=10,
        description="Requests that each of the two must have answered before latency and "
        "predictions are compared; errors are compared from the first one.",
    )
    too_few: Literal["continue", "discard"] = Field(
        default="continue",
        description="What becomes of a version that has had too few requests to be judged.",
    )
    error_rate: float = Field(
        default=0.01,
        ge=0,
        lt=1,
        description="Share of requests that may fail, or be refused, beyond the live version's.",
    )
    p95_ratio: float = Field(
        default=1.5,
        ge=1,
        description="95th percentile of the latency, as a multiple of the live version's ...",
    )
    p95_excess_ms: float = Field(
        default=5.0, ge=0, description="... that many milliseconds above it at least."
    )
    distribution: float | None = Field(
        default=0.2,
        gt=0,
        description="Population stability index of the predictions; null does not compare them.",
    )


class Traffic(Strict):
    """The way of a new version from no traffic to all of it."""

    steps: list[Step] = Field(
        default_factory=lambda: [Step(percent=100)],
        description="Rising shares; all the traffic follows the last one.",
    )
    sticky_header: str | None = Field(
        default=None,
        pattern=r"^[A-Za-z][A-Za-z0-9-]{0,99}$",
        description="Requests with the same value of this header go to the same version.",
    )
    mirror_percent: int = Field(
        default=0,
        ge=0,
        le=50,
        description="Share of the requests that is copied to the new version before it has "
        "traffic; nobody gets its answers.",
    )
    mirror_seconds: float = Field(
        default=0, ge=0, le=LONGEST_SECONDS, description="How long requests are copied to it."
    )
    limits: Limits = Field(default_factory=Limits)

    @field_validator("steps")
    @classmethod
    def _rising_to_all(cls, steps: list[Step]) -> list[Step]:
        shares = [step.percent for step in steps]
        if shares != sorted(set(shares)):
            raise ValueError(f"the percents must rise, found {shares}")
        return steps if shares and shares[-1] == 100 else [*steps, Step(percent=100)]

    @field_validator("sticky_header")
    @classmethod
    def _in_lower_case(cls, name: str | None) -> str | None:
        return None if name is None else name.lower()

    @model_validator(mode="after")
    def _mirrors_for_a_while(self) -> Traffic:
        if (self.mirror_percent > 0) != (self.mirror_seconds > 0):
            raise ValueError("mirror_percent and mirror_seconds must be given together")
        return self
