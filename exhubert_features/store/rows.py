"""Rows as people look for them: by id, and as a table on audformat's index (file, start, end)."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import StoreError
from ..frames import frame_centres
from ..spec import FRAME_STRIDE, ExtractionSpec
from ..windows import frame_starts

if TYPE_CHECKING:
    import pandas as pd


class UnknownId(StoreError, KeyError):
    """An id that is not in the store."""

    def __str__(self) -> str:
        return Exception.__str__(self)  # KeyError would show the message quoted


def unknown_id(name: str, ids: Sequence[str], store: Path) -> UnknownId:
    """Give the error for an id that is not in a store, naming ids that may have been meant."""
    stem = str(name).rsplit("/", 1)[-1].rsplit(".", 1)[0]
    near = [other for other in ids if stem and stem in other][:3]
    # Comparing letter by letter is slow: a sample is enough for a hint.
    near = near or difflib.get_close_matches(str(name), ids[:5000], n=3)
    return UnknownId(
        f"id {name!r} is not among the {len(ids)} rows of {store}",
        expected="an id such as " + ", ".join(map(repr, near)) if near else "",
    )


def row_times(
    numbers: Mapping[str, np.ndarray], row: int, frames: np.ndarray | None, spec: ExtractionSpec
) -> np.ndarray | None:
    """When the frames (F, T, D) of a row are: seconds inside the file, (T,); None without frames.

    They are one stride apart, but where windows meet in stores that version 0.1.0 began; None
    when such a row has not the frames that its samples give.
    """
    if frames is None:
        return None
    starts = FRAME_STRIDE * np.arange(frames.shape[1])
    if not (spec.gapless or spec.segments):
        starts = frame_starts(int(numbers["samples"][row]), spec)
        if len(starts) != frames.shape[1]:
            return None
    return float(numbers["start"][row]) + frame_centres(starts)


def row_index(
    names: Sequence[str], files: Sequence[str], starts: Sequence[float], ends: Sequence[float]
) -> pd.MultiIndex:
    """File, start and end of each row; one that came as an array has its id for a file."""
    import pandas as pd

    known = [file or name for file, name in zip(files, names, strict=True)]
    bounds = (pd.to_timedelta(list(seconds), unit="s") for seconds in (starts, ends))
    return pd.MultiIndex.from_arrays([_decodable(known), *bounds], names=["file", "start", "end"])


def meta_table(
    index: pd.MultiIndex, names: Sequence[str], statuses: Sequence[str], meta: Sequence[str]
) -> pd.DataFrame:
    """Columns ``id``, ``status`` and those of the manifest, whose rows are JSON objects."""
    import pandas as pd

    rows = [json.loads(text) for text in meta]
    columns: dict[str, Any] = {"id": _decodable(names), "status": list(statuses)}
    for key in dict.fromkeys(key for row in rows for key in row):
        columns.setdefault(key, _decodable(row.get(key) for row in rows))
    return pd.DataFrame(columns, index=index)


def _decodable(words: Iterable[str | None]) -> list[str | None]:
    """Words with escapes for the undecodable bytes of file names, which pandas refuses."""
    return [word and word.encode("utf-8", "backslashreplace").decode() for word in words]
