"""What a model's input looks like: the columns of its training frame, in training order.

Standard library only: the orchestrator, the training process and the server share this.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

FeatureType = Literal["float", "integer", "string", "boolean", "timestamp"]
FEATURE_TYPES: tuple[FeatureType, ...] = ("float", "integer", "string", "boolean", "timestamp")

Ranges = Literal["ignore", "warn", "refuse"]
RANGES: tuple[Ranges, ...] = ("ignore", "warn", "refuse")


@dataclass(frozen=True, slots=True)
class Feature:
    """One column of the input; ``Schema.ranges`` says what its bounds are for."""

    name: str
    type: FeatureType
    nullable: bool = False
    minimum: float | None = None
    maximum: float | None = None
    categories: tuple[Any, ...] | None = None

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Feature:
        """Read one entry of ``manifest.json``'s ``features``; raises ValueError."""
        kind = value["type"]
        if kind not in FEATURE_TYPES:
            raise ValueError(
                f"feature '{value['name']}' has type '{kind}'; allowed: {', '.join(FEATURE_TYPES)}"
            )
        categories = value.get("categories")
        return cls(
            name=str(value["name"]),
            type=kind,
            nullable=bool(value.get("nullable", False)),
            minimum=value.get("minimum"),
            maximum=value.get("maximum"),
            categories=None if categories is None else tuple(categories),
        )

    def to_dict(self) -> dict[str, Any]:
        """The entry of ``manifest.json``; the inverse of ``from_dict``."""
        return {
            "name": self.name,
            "type": self.type,
            "nullable": self.nullable,
            "minimum": self.minimum,
            "maximum": self.maximum,
            "categories": None if self.categories is None else list(self.categories),
        }


@dataclass(frozen=True, slots=True)
class Schema:
    """Input and output of one version, as its manifest states them."""

    model: str
    task: str
    target: str
    features: tuple[Feature, ...]
    labels: tuple[Any, ...] | None = None
    #: What becomes of a value outside the contract's range or categories.
    ranges: Ranges = "ignore"
    #: Rising edges that part a regression's predictions into intervals, to count them by.
    edges: tuple[float, ...] = ()
    #: Columns that name a row. A request may have them beside the features: they are not scored.
    keys: tuple[Feature, ...] = ()

    @classmethod
    def from_manifest(cls, manifest: Mapping[str, Any]) -> Schema:
        """Read the schema out of a ``manifest.json``; raises KeyError or ValueError."""
        labels = manifest.get("labels")
        ranges = manifest.get("serving", {}).get("ranges", "ignore")
        if ranges not in RANGES:
            raise ValueError(f"serving.ranges is '{ranges}'; allowed: {', '.join(RANGES)}")
        return cls(
            model=str(manifest["model"]),
            task=str(manifest["task"]),
            target=str(manifest["target"]),
            features=tuple(Feature.from_dict(entry) for entry in manifest["features"]),
            labels=None if labels is None else tuple(labels),
            ranges=ranges,
            edges=tuple(manifest.get("predictions") or ()),
            keys=tuple(Feature.from_dict(entry) for entry in manifest.get("keys") or ()),
        )

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the features, in training order."""
        return tuple(feature.name for feature in self.features)

    @property
    def key_names(self) -> tuple[str, ...]:
        """Names of the keys."""
        return tuple(feature.name for feature in self.keys)

    @property
    def label_names(self) -> list[str]:
        """The labels as the keys of their probabilities."""
        return [x if isinstance(x, str) else json.dumps(x) for x in self.labels or ()]
