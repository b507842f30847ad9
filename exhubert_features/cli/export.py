"""``exhubert export STORE --to npz|csv|parquet``: features for other tools."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

    from ..store import FeatureStore

FORMATS = ("npz", "csv", "parquet")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("store", metavar="STORE", type=Path, help="a folder or a packed .h5 file")
    parser.add_argument("--to", choices=FORMATS, required=True, help="format of the file")
    parser.add_argument("-o", "--output", metavar="FILE", type=Path, help="default: STORE.<format>")
    parser.add_argument("--layer", type=int, help="hidden-state id; default: the last one stored")
    parser.add_argument("--pool", help="default: the first one stored")


def run(options: argparse.Namespace) -> int:
    """Export one layer of all rows."""
    from ..errors import UsageError
    from ..files import publish
    from ..store import FeatureStore

    store = FeatureStore(options.store)
    layer = store.layers[-1] if options.layer is None else options.layer
    pool = options.pool or store.pools[0]
    base = str(options.store.resolve()).removesuffix(".h5")
    output = options.output or Path(f"{base}.{options.to}")
    content = _to_npz(store, layer, pool) if options.to == "npz" else None
    if content is None:
        content = _to_text(_table(store, layer, pool), options.to)
    if not publish(content, output):
        raise UsageError(f"{output} exists", remedy="Delete it or choose another name with -o")
    print(f"{output}: {len(store):,} rows, layer {layer}, {pool}")
    return 0


def _to_npz(store: FeatureStore, layer: int, pool: str) -> bytes:
    """``features`` (N, D), ``ids``, ``files``, ``starts``, ``ends``, ``logits``, ``labels``."""
    import io

    import numpy as np

    arrays = {
        "features": store.matrix(layer=layer, pool=pool),
        "ids": np.array(store.ids),
        "files": np.array(store.column("file")),
        "starts": np.array(store.column("start")),
        "ends": np.array(store.column("end")),
        "labels": np.array(store.classes),
    }
    if store.has_logits:
        arrays["logits"] = store.logits()
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()


def _table(store: FeatureStore, layer: int, pool: str) -> pd.DataFrame:
    """Build the table of rows with ``logit_<label>`` and ``feature_<n>`` columns."""
    import pandas as pd

    rows = store.to_dataframe()
    parts = [rows]
    if store.has_logits:
        names = [f"logit_{label}" for label in store.classes]
        parts.append(pd.DataFrame(store.logits(), index=rows.index, columns=names))
    features = store.matrix(layer=layer, pool=pool).astype("float32")
    names = [f"feature_{number}" for number in range(features.shape[1])]
    parts.append(pd.DataFrame(features, index=rows.index, columns=names))
    return pd.concat(parts, axis=1)


def _to_text(frame: pd.DataFrame, form: str) -> bytes:
    """Write the table as a CSV or Parquet file."""
    import io

    from ..errors import MissingDependency

    frame = frame.reset_index()
    for name in ("start", "end"):
        frame[name] = frame[name].dt.total_seconds()
    if form == "csv":
        return frame.to_csv(index=False).encode()
    buffer = io.BytesIO()
    try:
        frame.to_parquet(buffer, index=False)
    except ImportError as error:
        raise MissingDependency(
            "Parquet files need pyarrow", remedy="pip install 'exhubert-features[parquet]'"
        ) from error
    return buffer.getvalue()
