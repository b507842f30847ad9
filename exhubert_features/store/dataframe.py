"""Rows of a store as pandas has them, on audformat's index."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any, Protocol

import numpy as np
import pandas as pd


class _Rows(Protocol):
    """What a table needs of a store."""

    @property
    def ids(self) -> list[str]: ...
    def column(self, name: str) -> list[Any]: ...
    def matrix(self, *, layer: int, pool: str = "mean") -> np.ndarray: ...


def clip_dataframe(store: _Rows) -> pd.DataFrame:
    """Build a table of ``id``, ``status`` and the columns of the manifest, a row for each row."""
    rows = [json.loads(text) for text in store.column("meta")]
    columns: dict[str, Any] = {"id": _decodable(store.ids), "status": store.column("status")}
    for key in dict.fromkeys(key for row in rows for key in row):
        columns.setdefault(key, _decodable(row.get(key) for row in rows))
    return pd.DataFrame(columns, index=_index(store))


def feature_dataframe(store: _Rows, layers: Sequence[int], pool: str) -> pd.DataFrame:
    """Build a table of the numbers of some layers, (N, len(layers) * D) in float32."""
    index = _index(store)
    parts = [
        pd.DataFrame(store.matrix(layer=layer, pool=pool).astype(np.float32), index=index)
        for layer in layers
    ]
    named = [part.add_prefix(f"layer{layer}_") for part, layer in zip(parts, layers, strict=True)]
    return pd.concat(named, axis=1)


def _index(store: _Rows) -> pd.MultiIndex:
    """(file, start, end); clips that came as arrays have their id for a file."""
    files = [file or name for file, name in zip(store.column("file"), store.ids, strict=True)]
    bounds = [pd.to_timedelta(store.column(name), unit="s") for name in ("start", "end")]
    return pd.MultiIndex.from_arrays([_decodable(files), *bounds], names=["file", "start", "end"])


def _decodable(words: Iterable[str | None]) -> list[str | None]:
    """Words with escapes for the undecodable bytes of file names, which pandas refuses."""
    return [word and word.encode("utf-8", "backslashreplace").decode() for word in words]
