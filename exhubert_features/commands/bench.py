"""``exhubert bench store``: how fast it is on this machine."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the actions and their options."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    store = actions.add_parser(
        "store", help="writing and reading features, beside two other ways", description=STORE
    )
    store.add_argument("--clips", type=int, default=2000, help="of 100 KB each; three times that")
    store.add_argument("--large", type=int, default=100_000, help="clips of the store to open")
    store.add_argument("--folder", type=Path, help="where to write; default: a temporary folder")
    store.add_argument("--json", action="store_true", help="for machines")


STORE = (
    "Writes all 49 layers of synthetic clips with this package's store, as one HDF5 dataset per "
    "clip, and with SpeechBrain's cache; reads them back in random order and by layer."
)


def run(options: argparse.Namespace) -> int:
    """Run one benchmark."""
    return {"store": run_store}[options.action](options)


def run_store(options: argparse.Namespace) -> int:
    """Measure the store."""
    import json
    import tempfile
    from dataclasses import asdict

    from .. import bench

    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        before = bench.peak_memory()
        ours = bench.bench_store(folder, options.clips)
        grown = bench.peak_memory() - before
        others = [
            run(folder, options.clips) for run in (bench.bench_datasets, bench.bench_speechbrain)
        ]
        large = bench.bench_large(folder, options.large)
    rows = [row for row in (ours, *others) if row]
    if options.json:
        data = {"ways": [asdict(row) for row in rows], "large": asdict(large), "memory": grown}
        print(json.dumps(data, indent=1))
        return 0
    print(f"{options.clips:,} clips of 49 layers x 1024, float16")
    print(f"{'':24}{'write':>12}{'read':>12}{'one layer':>12}{'a clip':>14}")
    for row in rows:
        print(
            f"{row.name:24}{row.write_clips_per_second:>10,.0f}/s{row.read_clips_per_second:>10,.0f}/s"
            f"{1000 * row.layer_seconds:>9,.1f} ms{row.bytes_per_clip:>8,.0f} bytes"
        )
    print(f"memory grew by {grown / 1e6:,.0f} MB while the store wrote and read")
    print(
        f"a store of {large.clips:,} clips in {large.shards:,} shards: "
        f"opens in {1000 * large.open_seconds:,.1f} ms, first lookup "
        f"{1000 * large.first_lookup_seconds:,.1f} ms, then {large.lookups_per_second:,.0f}/s"
    )
    return 0
