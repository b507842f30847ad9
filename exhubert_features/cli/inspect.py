"""``exhubert inspect STORE``: what is in a store, how it was made, what failed."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .wording import printable

if TYPE_CHECKING:
    from ..store import FeatureStore

SHOWN = 20  # failures and pending clips; --json has them all


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("store", metavar="STORE", type=Path, help="a folder or a packed .h5 file")
    parser.add_argument("--json", action="store_true", help="everything, for machines")


def run(options: argparse.Namespace) -> int:
    """Describe the store."""
    import json

    from ..store import FeatureStore

    store = FeatureStore(options.store)
    summary = _summarise(store)
    if options.json:
        print(json.dumps(summary, indent=1))
    else:
        _show(store, summary)
    return 0


def _summarise(store: FeatureStore) -> dict[str, Any]:
    """Say all there is to say about a store, as JSON data."""
    import json
    from collections import Counter
    from dataclasses import asdict

    from ..spec import SAMPLE_RATE

    warned = {
        name: status
        for name, status in zip(store.ids, store.column("status"), strict=True)
        if status != "ok"
    }
    columns = dict.fromkeys(key for text in store.column("meta") for key in json.loads(text))
    return {
        "path": str(store.path),
        "rows": len(store),
        "clips": len(set(store.column("clip_id"))),
        "hours": sum(store.column("samples")) / SAMPLE_RATE / 3600,
        "bytes": store.stored_bytes,
        "shards": store.shard_count,
        "fingerprint_key": store.fingerprint.key,
        "fingerprint": store.fingerprint.to_dict(),
        "provenance": store.provenance,
        "manifest_columns": list(columns),
        "warnings": warned,
        "failures": [asdict(failure) for failure in store.failures],
        "failures_by_kind": dict(Counter(failure.kind for failure in store.failures)),
        "pending": list(store.pending),
    }


def _show(store: FeatureStore, summary: dict[str, Any]) -> None:
    model, spec = store.fingerprint.model, store.fingerprint.spec
    source = store.provenance.get("source", "a model of unknown origin")
    frames = f"of layers {_ranges(store.frame_layers)}" if store.frame_layers else "no"
    lines = [
        f"{store.path}: {summary['rows']:,} rows of {summary['clips']:,} clips",
        f"  audio     {summary['hours']:.2f} h",
        f"  on disk   {summary['bytes']:,} bytes in {summary['shards']:,} shards",
        f"  model     {source}, weights {model.weights_sha256[:12]}, {model.precision}",
        f"  layers    {_ranges(store.layers)} of {model.num_states}, {spec.dtype}",
        f"  pooled    {', '.join(store.pools)}",
        f"  frames    {frames}",
        f"  logits    {', '.join(model.classes) if store.has_logits else 'no'}",
        f"  rows are  {'windows' if spec.segments else 'clips'}; {spec.preprocess}, "
        f"{spec.window:g} s every {spec.hop:g} s",
        f"  columns   {', '.join(summary['manifest_columns']) or 'none'}",
        f"  settings  {store.fingerprint.key[:16]}",
    ]
    lines += _list("warnings", [f"{name!r}: {text}" for name, text in summary["warnings"].items()])
    lines += _list(
        "failed",
        [f"{one.id!r} ({one.kind}, {one.attempts} x): {one.reason}" for one in store.failures],
    )
    lines += _list("still to extract", [repr(name) for name in summary["pending"]])
    for line in lines:
        print(printable(line))


def _list(title: str, lines: list[str]) -> list[str]:
    if not lines:
        return []
    more = [f"    ... and {len(lines) - SHOWN:,} more (--json lists all)"]
    return [
        f"  {title}: {len(lines):,}",
        *(f"    {line}" for line in lines[:SHOWN]),
        *(more if len(lines) > SHOWN else []),
    ]


def _ranges(numbers: Sequence[int]) -> str:
    """0, 1, 2, 5 as ``0-2,5``."""
    parts: list[list[int]] = []
    for number in numbers:
        if parts and number == parts[-1][-1] + 1:
            parts[-1].append(number)
        else:
            parts.append([number])
    return ",".join(f"{p[0]}-{p[-1]}" if len(p) > 1 else str(p[0]) for p in parts)
