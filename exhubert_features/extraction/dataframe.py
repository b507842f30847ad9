"""audformat's index (file, start, end) for what becomes of clips."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..records import ClipFailure, ClipFeatures

if TYPE_CHECKING:
    import pandas as pd


def clip_index(rows: Sequence[ClipFeatures | ClipFailure]) -> pd.MultiIndex:
    """Index rows as audformat does: file, start and end as timedeltas.

    Clips that came as arrays have their id for a file; a failure covers its whole file (its end
    is NaT).
    """
    import pandas as pd

    starts = [0.0 if isinstance(row, ClipFailure) else row.start for row in rows]
    ends = [float("nan") if isinstance(row, ClipFailure) else row.end for row in rows]
    return pd.MultiIndex.from_arrays(
        [
            [row.file or row.id for row in rows],
            pd.to_timedelta(starts, unit="s"),
            pd.to_timedelta(ends, unit="s"),
        ],
        names=["file", "start", "end"],
    )
