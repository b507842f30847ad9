"""``exhubert inspect STORE``: what is in a store, how it was made, what failed."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
        _show(summary)
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


def _show(summary: dict[str, Any]) -> None:
    model, spec = summary["fingerprint"]["model"], summary["fingerprint"]["spec"]
    source = summary["provenance"].get("source", "a model of unknown origin")
    print(f"{summary['path']}: {summary['rows']:,} rows of {summary['clips']:,} clips")
    print(f"  audio     {summary['hours']:.2f} h")
    print(f"  on disk   {summary['bytes']:,} bytes in {summary['shards']:,} shards")
    print(f"  model     {source}, weights {model['weights_sha256'][:12]}, {model['precision']}")
    print(f"  layers    {_ranges(spec['layers'])} of {model['num_states']}, {spec['dtype']}")
    print(f"  pooled    {', '.join(spec['pools'])}")
    print(
        f"  frames    of layers {_ranges(spec['frame_layers'])}"
        if spec["frame_layers"]
        else "  frames    no"
    )
    print(
        f"  logits    {', '.join(model['classes']) or 'no'}" if spec["logits"] else "  logits    no"
    )
    rows = "windows" if spec["segments"] else "clips"
    print(f"  rows are  {rows}; {spec['preprocess']}, {spec['window']:g} s every {spec['hop']:g} s")
    print(f"  columns   {', '.join(summary['manifest_columns']) or 'none'}")
    print(f"  settings  {summary['fingerprint_key'][:16]}")
    _show_list("warnings", [f"{name!r}: {text}" for name, text in summary["warnings"].items()])
    _show_list(
        "failed",
        [
            f"{failure['id']!r} ({failure['kind']}, {failure['attempts']} x): {failure['reason']}"
            for failure in summary["failures"]
        ],
    )
    _show_list("still to extract", [repr(name) for name in summary["pending"]])


def _show_list(title: str, lines: list[str]) -> None:
    if not lines:
        return
    print(f"  {title}: {len(lines):,}")
    for line in lines[:SHOWN]:
        print(f"    {_printable(line)}")
    if len(lines) > SHOWN:
        print(f"    ... and {len(lines) - SHOWN:,} more (--json lists all)")


def _printable(text: str) -> str:
    """Text with escapes for undecodable bytes of file names, which a terminal refuses."""
    return text.encode("utf-8", "backslashreplace").decode()


def _ranges(numbers: list[int]) -> str:
    """0, 1, 2, 5 as ``0-2,5``."""
    parts: list[list[int]] = []
    for number in numbers:
        if parts and number == parts[-1][-1] + 1:
            parts[-1].append(number)
        else:
            parts.append([number])
    return ",".join(f"{p[0]}-{p[-1]}" if len(p) > 1 else str(p[0]) for p in parts)
