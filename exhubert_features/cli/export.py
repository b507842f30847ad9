"""``exhubert export STORE --to npz|csv|parquet``: features for other tools."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from .wording import FORMULAS, printable

if TYPE_CHECKING:
    import pandas as pd

    from ..store import FeatureStore

FORMATS = ("npz", "csv", "parquet")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("store", metavar="STORE", type=Path, help="a folder or a packed .h5 file")
    parser.add_argument("--to", choices=FORMATS, required=True, help="format of the file")
    parser.add_argument("-o", "--output", metavar="FILE", type=Path, help="default: STORE.<format>")
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--layer", type=int, help="hidden-state id; default: the last one stored")
    group.add_argument("--layers", help="several: all, 0,12,24,48 or 0-48; columns layer12_0, ...")
    parser.add_argument("--pool", help="default: the first one stored")
    parser.add_argument(
        "--features-only",
        action="store_true",
        help="csv or parquet: file, start and end and the features, for tools that take every "
        "other column as a feature (nkululeko, audformat)",
    )
    parser.add_argument("--force", action="store_true", help="replace a file that is there")
    parser.add_argument("--formulas", action="store_true", help=FORMULAS)


def run(options: argparse.Namespace) -> int:
    """Export some layers of all rows."""
    from ..errors import UsageError
    from ..files import publish
    from ..spec import parse_layers
    from ..store import FeatureStore
    from ..tables import without_formulas

    store = FeatureStore(options.store)
    layers: int | Sequence[int] = store.layers[-1] if options.layer is None else options.layer
    if options.layers is not None:
        chosen = parse_layers(options.layers)
        layers = store.layers if chosen is None else [chosen] if isinstance(chosen, int) else chosen
    pool = options.pool or store.pools[0]
    base = str(options.store.resolve()).removesuffix(".h5")
    output = options.output or Path(f"{base}.{options.to}")
    if options.features_only and options.to == "npz":
        raise UsageError("--features-only with --to npz", expected="--to csv or parquet")
    if output.exists() and not options.force:
        raise UsageError(
            f"{output} exists", remedy="Choose another name with -o, or replace it with --force"
        )
    if options.to == "npz":
        content = _npz(store, layers, pool)
    else:
        make = _features_only if options.features_only else _table
        table = make(store, layers, pool)
        shown = table if options.formulas else without_formulas(table)
        content = shown.to_csv(index=False).encode() if options.to == "csv" else _parquet(table)
    if not publish(content, output, replace=options.force):
        raise UsageError(f"{output} exists by now", remedy="Choose another name with -o")
    named = f"layer {layers}" if isinstance(layers, int) else f"{len(layers)} layers"
    print(printable(f"{output}: {len(store):,} rows, {named}, {pool}"))
    return 0


def _npz(store: FeatureStore, layers: int | Sequence[int], pool: str) -> bytes:
    """``features`` (N, D), or (N, L, D) with ``layers``, and a column each of what is known."""
    import io

    import numpy as np

    wanted = [layers] if isinstance(layers, int) else list(layers)
    features = np.stack([store.matrix(layer=layer, pool=pool) for layer in wanted], axis=1)
    arrays = {
        "features": features[:, 0] if isinstance(layers, int) else features,
        "layers": np.array(wanted),
        "ids": np.array(store.ids),
        "files": np.array(store.column("file")),
        "starts": np.array(store.column("start")),
        "ends": np.array(store.column("end")),
        "classes": np.array(store.classes),
    }
    if store.has_logits:
        arrays["logits"] = store.logits()
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()


def _table(store: FeatureStore, layers: int | Sequence[int], pool: str) -> pd.DataFrame:
    """Build the table of rows with ``logit_<class>`` and the columns of features."""
    import pandas as pd

    rows = store.to_dataframe()
    parts = [rows]
    if store.has_logits:
        names = [f"logit_{name}" for name in store.classes]
        parts.append(pd.DataFrame(store.logits(), index=rows.index, columns=names))
    parts.append(store.to_dataframe(layer=layers, pool=pool))
    frame = pd.concat(parts, axis=1).reset_index()
    for name in ("start", "end"):
        frame[name] = frame[name].dt.total_seconds()
    return frame


def _features_only(store: FeatureStore, layers: int | Sequence[int], pool: str) -> pd.DataFrame:
    """Build the features on audformat's index, as it writes that: ``0 days 00:00:01.500000``."""
    frame = store.to_dataframe(layer=layers, pool=pool).reset_index()
    for name in ("start", "end"):
        frame[name] = frame[name].astype(str)
    return frame


def _parquet(frame: pd.DataFrame) -> bytes:
    import io

    from ..errors import MissingDependency

    buffer = io.BytesIO()
    try:
        frame.to_parquet(buffer, index=False)
    except ImportError as error:
        raise MissingDependency(
            "Parquet files need pyarrow", remedy="pip install 'exhubert-features[parquet]'"
        ) from error
    return buffer.getvalue()
