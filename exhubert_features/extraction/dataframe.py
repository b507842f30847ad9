"""What becomes of clips as a DataFrame, on audformat's index (file, start, end)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..records import ClipFailure, ClipFeatures

if TYPE_CHECKING:
    import pandas as pd


def clip_table(
    rows: Sequence[ClipFeatures | ClipFailure], columns: Mapping[str, Any]
) -> pd.DataFrame:
    """Put columns of one value for each row into a DataFrame.

    Parameters
    ----------
    rows
        What the index tells: file, start and end (timedeltas). Clips that came as arrays have
        their id for a file; a failure covers its whole file (its end is NaT).
    columns
        By name; in a list of texts None stays None.
    """
    import pandas as pd

    starts = [0.0 if isinstance(row, ClipFailure) else row.start for row in rows]
    ends = [float("nan") if isinstance(row, ClipFailure) else row.end for row in rows]
    index = pd.MultiIndex.from_arrays(
        [
            [row.file or row.id for row in rows],
            pd.to_timedelta(starts, unit="s"),
            pd.to_timedelta(ends, unit="s"),
        ],
        names=["file", "start", "end"],
    )
    typed = {
        name: pd.Series(values, index=index, dtype=object) if isinstance(values, list) else values
        for name, values in columns.items()
    }
    return pd.DataFrame(typed, index=index)
