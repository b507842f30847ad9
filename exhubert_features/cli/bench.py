"""``exhubert bench``: how fast everything is on this machine; ``store`` and ``extract``: those."""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from .options import PRECISIONS, positive
from .wording import count, duration, size

if TYPE_CHECKING:
    from ..bench.whole import Bench


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the actions and their options."""
    parser.description = MACHINE
    parser.add_argument(
        "--quick", action="store_true", help="with 4 of 48 layers: a minute in place of 15"
    )
    parser.add_argument(
        "--hours", type=float, default=100.0, help="of audio to plan for (default: 100)"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("-o", "--output", metavar="JSON", type=Path, help="write the figures")
    parser.add_argument("--folder", type=Path, help="where to write; default: a temporary folder")
    actions = parser.add_subparsers(dest="action", metavar="ACTION")
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
    extract.add_argument("--precision", choices=PRECISIONS, default="auto")
    extract.add_argument("--folder", type=Path, help="where to write; default: a temporary folder")
    extract.add_argument("--json", action="store_true", help="for machines")


MACHINE = (
    "Measures this machine's matrix products and copying, the encoder with random weights of the "
    "released size in each precision and batch size beside a plain loop, extraction from files "
    "and the store; says which settings to use."
)
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
    runs = {None: _run_machine, "store": _run_store, "extract": _run_extract}
    return runs[options.action](options)


def _run_machine(options: argparse.Namespace) -> int:
    """Measure everything and recommend."""
    import json

    from ..bench.whole import bench_machine

    _check_output(options)
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        found = bench_machine(Path(name), device=options.device, quick=options.quick)
    _print_machine(found)
    seconds = found.seconds_for(options.hours)
    print(
        f"{options.hours:g} h of audio will take {duration(seconds)} here with the released model: "
        f"`exhubert extract --precision {found.chosen} --batch-size {found.best.batch_size}` "
        "(auto chooses this precision)"
    )
    if options.output:
        best = {**asdict(found.best), "audio_hours": options.hours, "seconds_needed": seconds}
        data = {**asdict(found), "recommendation": best}
        options.output.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
    return 0


def _check_output(options: argparse.Namespace) -> None:
    """Refuse, before minutes are spent, what could not be written or planned after them."""
    from ..errors import UsageError

    if not options.hours > 0:
        raise UsageError(f"--hours {options.hours}", expected="hours of audio, above 0")
    if options.output and not options.output.absolute().parent.is_dir():
        raise UsageError(f"-o {options.output}: its folder does not exist")


def _print_machine(found: Bench) -> None:
    """Print all figures."""
    machine, extra, store = found.machine, found.pipeline, found.store
    peaks = ", ".join(f"{name} {peak / 1e9:,.0f}" for name, peak in machine.peaks.items())
    print(f"{machine.device}, {count(machine.threads, 'thread')}")
    print(f"matrix products: {peaks} Gop/s; copying: {machine.copied_per_second / 1e9:.1f} GB/s")
    print(f"clips of 3 s through {found.layers} layers of the released width, random weights:")
    head = ("batch", "clips/s", "real time", "of peak", "memory", "plain loop")
    print(f"{'':12}" + "".join(f"{word:>11}" for word in head))
    for speed in found.speeds:
        cells = (
            f"{speed.batch_size}",
            f"{speed.clips_per_second:.2f}",
            f"{speed.real_time:.1f} x",
            f"{100 * speed.share_of_peak:.0f} %",
            "" if speed.memory is None else size(speed.memory),
            f"{speed.ratio:.2f} x",
        )
        print(f"{speed.name:12}" + "".join(f"{cell:>11}" for cell in cells))
    print(f"from files into a store: {100 * extra.wall:.1f} % more time than the encoder alone")
    print(
        f"the store: writes {store.write_clips_per_second:,.0f} and reads "
        f"{store.read_clips_per_second:,.0f} clips/s, all layers of the released width"
    )


def _run_store(options: argparse.Namespace) -> int:
    """Measure the store."""
    import json

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
