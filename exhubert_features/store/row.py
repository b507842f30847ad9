"""One row of a store, the table of rows, and the error for a row that is not there."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import MissingDependency, StoreError

if TYPE_CHECKING:
    import pandas as pd


class UnknownId(StoreError, KeyError):
    """An id that is not in the store."""

    def __str__(self) -> str:
        return Exception.__str__(self)  # KeyError would show the message quoted


@dataclass(frozen=True, kw_only=True)
class StoredFeatures:
    """One row of a store.

    ``pooled`` is (L, P, D), ``logits`` (C,) or None, ``frames`` (F, T, D) or None.
    """

    id: str
    clip_id: str
    file: str
    start: float
    end: float
    samples: int
    audio_sha256: str
    status: str  # "ok", or warnings joined by commas
    pooled: np.ndarray
    logits: np.ndarray | None
    frames: np.ndarray | None
    meta: dict[str, str]


def row_table(
    ids: Sequence[str],
    *,
    files: Sequence[str],
    starts: Sequence[float],
    ends: Sequence[float],
    statuses: Sequence[str],
    meta: Sequence[str],
) -> pd.DataFrame:
    """Rows on audformat's index (file, start, end); ``meta`` are JSON objects."""
    try:
        import pandas as pd
    except ImportError as error:
        raise MissingDependency("pandas cannot be imported") from error
    names = printable(ids)
    index = pd.MultiIndex.from_arrays(
        [
            [file or name for file, name in zip(printable(files), names, strict=True)],
            pd.to_timedelta(list(starts), unit="s"),
            pd.to_timedelta(list(ends), unit="s"),
        ],
        names=["file", "start", "end"],
    )
    rows = [json.loads(text) for text in meta]
    keys = dict.fromkeys(key for row in rows for key in row)
    columns: dict[str, Any] = {"id": names, "status": statuses}
    columns |= {key: printable(row.get(key) for row in rows) for key in keys if key not in columns}
    return pd.DataFrame(columns, index=index)


def printable(words: Iterable[str | None]) -> list[str | None]:
    """Words with escapes for the undecodable bytes of file names, which pandas refuses."""
    return [word and word.encode("utf-8", "backslashreplace").decode() for word in words]


def unknown_id(name: str, ids: list[str], store: Path) -> UnknownId:
    """The error for an id that is not in a store, naming ids that may have been meant."""
    stem = str(name).rsplit("/", 1)[-1].rsplit(".", 1)[0]
    near = [other for other in ids if stem and stem in other][:3]
    # Comparing letter by letter is slow: a sample is enough for a hint.
    near = near or difflib.get_close_matches(str(name), ids[:5000], n=3)
    return UnknownId(
        f"id {name!r} is not among the {len(ids)} rows of {store}",
        expected="an id such as " + ", ".join(map(repr, near)) if near else "",
    )
