"""The rows of a store as a DataFrame, on audformat's index (file, start, end)."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pandas as pd


def row_table(
    ids: Sequence[str], column: Callable[[str], list[Any]], features: Mapping[int, np.ndarray]
) -> pd.DataFrame:
    """Put the rows of a store into a table.

    Parameters
    ----------
    ids
        Names of the rows; those of clips that came as arrays stand for their file.
    column
        From the name of a column of the store to its values.
    features
        (N, D) by layer: the columns of the table, which are those of the manifest without any.
    """
    import pandas as pd

    names = _decodable(ids)
    files = [file or name for file, name in zip(column("file"), names, strict=True)]
    bounds = [pd.to_timedelta(column(name), unit="s") for name in ("start", "end")]
    index = pd.MultiIndex.from_arrays([_decodable(files), *bounds], names=["file", "start", "end"])
    if features:
        parts = (
            pd.DataFrame(vectors.astype(np.float32), index=index).add_prefix(f"layer{layer}_")
            for layer, vectors in features.items()
        )
        return pd.concat(parts, axis=1)
    rows = [json.loads(text) for text in column("meta")]
    columns: dict[str, Any] = {"id": names, "status": column("status")}
    for key in dict.fromkeys(key for row in rows for key in row):
        columns.setdefault(key, _decodable(row.get(key) for row in rows))
    return pd.DataFrame(columns, index=index)


def _decodable(words: Iterable[str | None]) -> list[str | None]:
    """Escape the undecodable bytes of file names, which pandas refuses."""
    return [word and word.encode("utf-8", "backslashreplace").decode() for word in words]
