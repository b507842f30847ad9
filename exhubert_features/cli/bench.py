"""``exhubert bench store`` and ``extract``: how fast they are on this machine."""

from __future__ import annotations

import argparse
from pathlib import Path

from .options import positive


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the actions and their options."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    store = actions.add_parser(
        "store", help="writing and reading features, beside two other ways", description=STORE
    )
    store.add_argument(
        "--clips", type=positive, default=2000, help="of 100 KB each; three times that"
    )
    store.add_argument("--large", type=positive, default=100_000, help="clips of the store to open")
    store.add_argument("--folder", type=Path, help="where to write; default: a temporary folder")
    store.add_argument("--json", action="store_true", help="for machines")
    extract = actions.add_parser(
        "extract", help="what extraction costs beyond the bare encoder", description=EXTRACT
    )
    extract.add_argument("--clips", type=positive, default=200, help="of 1 to 3 s (default: 200)")
    extract.add_argument(
        "--hidden",
        type=positive,
        default=256,
        help="width of a random 12-layer model (default: 256)",
    )
    extract.add_argument("--model", metavar="ID|DIR", help="a checkpoint instead of random weights")
    extract.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    extract.add_argument("--precision", default="float32", help="float32, bfloat16 or float16")
    extract.add_argument("--folder", type=Path, help="where to write; default: a temporary folder")
    extract.add_argument("--json", action="store_true", help="for machines")


STORE = (
    "Writes all 49 layers of synthetic clips with this package's store, as one HDF5 dataset per "
    "clip, and with SpeechBrain's cache; reads them back in random order and by layer."
)
EXTRACT = (
    "Runs synthetic recordings through the encoder alone and through extraction into a store, by "
    "turns. A small model shows a larger overhead than the real one."
)


def run(options: argparse.Namespace) -> int:
    """Run one benchmark."""
    return {"store": _run_store, "extract": _run_extract}[options.action](options)


def _run_store(options: argparse.Namespace) -> int:
    """Measure the store."""
    import json
    import tempfile
    from dataclasses import asdict

    from ..bench.store import (
        bench_datasets,
        bench_large,
        bench_speechbrain,
        bench_store,
        peak_memory,
    )

    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        before = peak_memory()
        ours = bench_store(folder, options.clips)
        grown = peak_memory() - before
        others = [run(folder, options.clips) for run in (bench_datasets, bench_speechbrain)]
        large = bench_large(folder, options.large)
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


def _run_extract(options: argparse.Namespace) -> int:
    """Measure extraction."""
    import json
    import tempfile
    from dataclasses import asdict

    from ..bench.extract import bench_extract
    from ..checkpoint.saving import write_random_checkpoint
    from ..encoder import load_encoder

    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        wide = options.hidden
        model = options.model or write_random_checkpoint(
            Path(name) / "model", layers=12, hidden=wide, heads=wide // 32, ffn=4 * wide, conv=512
        )
        encoder = load_encoder(model, device=options.device, precision=options.precision)
        found = bench_extract(Path(name), encoder, clips=options.clips)
    if options.json:
        print(json.dumps(asdict(found), indent=1))
        return 0
    each = [1000 * seconds / found.clips for seconds in (found.bare_seconds, found.whole_seconds)]
    print(f"{found.clips:,} clips, {found.audio_seconds:.0f} s of audio, on {encoder.device}")
    print(f"the encoder alone:        {each[0]:8.1f} ms a clip")
    print(f"from files into a store:  {each[1]:8.1f} ms a clip")
    print(f"overhead: {100 * found.wall:.1f} % of time, {100 * found.cpu:.1f} % of CPU time")
    print(f"memory: {found.memory / 1e6:,.0f} MB above the encoder's own peak")
    return 0
