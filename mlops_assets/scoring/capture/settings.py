"""What of the requests is kept, and where; standard library only, workers read it too."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mlops_assets.scoring.schema import Feature, Schema

#: Of the endpoint's folder: where workers hand on what they answered, who takes it, and what is
#: not yet in a Parquet file.
SOCKET, PROCESS, SPOOL = "capture.sock", "capture.json", "spool"
#: Columns that every captured row has begin so; a model's own column of such a name is left out.
PREFIX = "mlops_"
PREDICTION = "mlops_prediction"
#: Ids of the platform's own requests, the samples of a rollout among them, begin so.
OWN_REQUEST = "mlops-sample-"


@dataclass(frozen=True, slots=True)
class CaptureSettings:
    """How an endpoint keeps what it is asked and answers."""

    #: Folder of the Parquet files, one folder of a day below it.
    folder: str
    #: Share of the requests that are kept, each with all its rows.
    share: float = 1.0
    #: The columns that are kept; None for all.
    columns: tuple[str, ...] | None = None
    #: Columns that are kept nowhere; the target's name stands for the prediction.
    exclude: tuple[str, ...] = ()
    #: A file is finished when so much waits for it, or so long after its first row.
    rotate_megabytes: float = 16.0
    rotate_seconds: float = 60.0
    #: Days whose files are kept.
    keep_days: int = 30

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> CaptureSettings:
        """Read them from JSON; raises TypeError."""
        columns, exclude = value.pop("columns", None), value.pop("exclude", ())
        return cls(
            **value,
            columns=None if columns is None else tuple(columns),
            exclude=tuple(exclude),
        )

    def kept(self, schema: Schema) -> tuple[Feature, ...]:
        """The columns of a version that are kept, its keys last."""
        return tuple(
            feature
            for feature in (*schema.features, *schema.keys)
            if feature.name not in self.exclude
            and (self.columns is None or feature.name in self.columns)
            and not feature.name.startswith(PREFIX)
        )

    def keeps_prediction(self, schema: Schema) -> bool:
        """Whether what was predicted is kept."""
        return not {schema.target, PREDICTION} & set(self.exclude)
