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
        their id for a file; of failures the end may not be known (NaT).
    columns
        By name; in a list of texts None stays None.
    """
    import pandas as pd

    from ..store.rows import row_index

    index = row_index(
        [row.id for row in rows],
        [row.file for row in rows],
        [row.start for row in rows],
        [float("nan") if row.end is None else row.end for row in rows],
    )
    typed = {
        name: pd.Series(values, index=index, dtype=object) if isinstance(values, list) else values
        for name, values in columns.items()
    }
    return pd.DataFrame(typed, index=index)
