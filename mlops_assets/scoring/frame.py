"""The one place that turns columns into the frame an estimator sees, in training and serving.

Whatever "missing" means is decided here and nowhere else: a second spelling would move
predictions without a word.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from mlops_assets.scoring.schema import Feature


def to_frame(columns: Mapping[str, Any], features: Sequence[Feature]) -> pd.DataFrame:
    """Build the input frame: one column per feature, in the features' order.

    Args:
        columns: name -> values of one length: a list, a numpy array, a pandas Series or a
            pyarrow column, with None, NaN, NaT or null for missing. Further names are ignored.
        features: the columns wanted; what each type becomes:
            float -> float64, missing NaN; integer -> int64, nullable: float64 with NaN;
            boolean -> bool, nullable: float64 of 0, 1 and NaN; string -> object, missing "";
            timestamp -> datetime64[us] without a zone (zoned values are moved to UTC), NaT.

    Raises:
        KeyError: a feature has no column.
        ValueError: a value does not fit its feature's type; the message names the column.
    """
    import pandas as pd

    data: dict[str, Any] = {}
    for feature in features:
        values = columns[feature.name]
        try:
            data[feature.name] = _column(values, feature)
        except (ValueError, TypeError, OverflowError) as error:
            message = f"column '{feature.name}' ({feature.type}): {error}"
            raise ValueError(message) from error
    return pd.DataFrame(data, copy=False)


def _column(values: Any, feature: Feature) -> Any:
    """A numpy array where that says it all: a Series of each would cost a row most of its time."""
    import numpy as np
    import pandas as pd

    if hasattr(values, "to_pylist"):  # pyarrow, which is not imported here
        values = _from_arrow(values)
    if feature.type == "float":
        return _floats(values)
    if feature.type == "string":
        return pd.Series(_texts(values), dtype=object, copy=False)
    if feature.type == "timestamp":
        return pd.Series(_times(values), copy=False)
    if feature.nullable:
        return _floats(values)
    if feature.type == "boolean":
        return _present(values).astype(np.bool_)
    return _integers(_present(values))


def _from_arrow(values: Any) -> Any:
    kind = str(values.type)
    if kind in ("double", "float", "halffloat") or (values.null_count == 0 and "int" in kind):
        return values.to_numpy()
    return values.to_pylist()


def _floats(values: Any) -> np.ndarray[Any, Any]:
    import numpy as np
    import pandas as pd

    array = np.asarray(values)
    if array.dtype.kind in "fiub":
        return array.astype(np.float64)
    if array.dtype.kind != "O":
        raise ValueError(f"not numeric: {array.dtype}")
    array = np.where(pd.isna(array), np.nan, array)  # pd.NA does not convert by itself
    return array.astype(np.float64)


def _present(values: Any) -> np.ndarray[Any, Any]:
    import numpy as np
    import pandas as pd

    array = np.asarray(values)
    if array.dtype.kind in "Of" and bool(pd.isna(array).any()):
        raise ValueError("holds missing values, and the column is not nullable")
    return array


def _integers(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    import numpy as np

    converted = array.astype(np.int64)
    if array.dtype.kind != "i" and not bool((converted == array).all()):
        raise ValueError("holds numbers that are no 64-bit integers")
    return converted


def _texts(values: Any) -> np.ndarray[Any, Any]:
    import numpy as np
    import pandas as pd

    array = np.empty(len(values), dtype=object)
    array[:] = values
    missing = pd.isna(array)
    if bool(missing.any()):
        array[missing] = ""
    return array


def _times(values: Any) -> Any:
    import pandas as pd

    index = pd.DatetimeIndex(pd.to_datetime(pd.Series(values), utc=True, format="ISO8601"))
    return index.tz_convert(None).as_unit("us")
