"""``exhubert extract INPUT... -o STORE``: audio to a crash-safe feature store."""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import AudioError
from .extract_on_ray import add_ray_arguments, run_on_ray
from .extracting import FailureCounts, begun_precision, read_settings, stopped, summarise
from .interrupt import Interrupt
from .options import (
    add_audio_arguments,
    add_earlier_name,
    add_model_arguments,
    add_running_arguments,
    chosen_encoder,
    positive,
)
from .wording import count, duration, size

if TYPE_CHECKING:
    from ..extraction import Extraction, Outlook
    from ..store import WriteProgress

SPARE_BYTES = 256 << 20  # left free on the disk, for the index and for everybody else


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "input",
        nargs="+",
        metavar="INPUT",
        help="audio files, folders, URLs of either, CSV/TSV manifests (file, and optionally id, "
        "start, end, ...), SpeechBrain manifests",
    )
    parser.add_argument(
        "-o", "--output", metavar="STORE", type=Path, required=True, help="folder of the store"
    )
    group = parser.add_argument_group("features")
    group.add_argument(
        "--layers", default="all", help="all, last, 0,12,24,48 or 0-48 (default: %(default)s)"
    )
    group.add_argument("--pools", default="mean", help="any of mean,std,max (default: %(default)s)")
    add_earlier_name(group, "--pool", dest="pools")
    group.add_argument(
        "--frame-layers",
        metavar="LAYERS",
        help="layers to keep frame by frame (100 KB a second each)",
    )
    add_earlier_name(group, "--frames", dest="frame_layers")
    group.add_argument(
        "--no-logits",
        dest="logits",
        action="store_false",
        help="without class scores: layers above the highest one that is kept do not run",
    )
    group.add_argument(
        "--segments", action="store_true", help="one row for each window instead of each clip"
    )
    group.add_argument(
        "--dtype",
        choices=("float16", "float32"),
        default="float16",
        help="of what is stored (default: %(default)s)",
    )
    add_audio_arguments(parser)
    add_model_arguments(parser)
    add_running_arguments(parser)
    group = parser.add_argument_group("the run")
    group.add_argument("--strict", action="store_true", help="stop at the first clip that fails")
    group.add_argument("--dry-run", action="store_true", help="show the plan, do nothing")
    group.add_argument(
        "--shard-clips", type=positive, default=256, help="clips in one file (default: %(default)s)"
    )
    group.add_argument(
        "--part",
        metavar="I/N",
        help="only the I-th of N parts: clips are dealt out by their ids, and any number of "
        "machines may do parts into one store at the same time",
    )
    add_ray_arguments(parser)


def run(options: argparse.Namespace) -> int:
    """Plan, extract what is missing, and list what failed."""
    from ..extraction import parse_part, plan

    if options.engine == "ray" and not options.dry_run:
        return run_on_ray(options)
    # Wrong usage shows before the source is read, and a typo before the model is loaded.
    settings = read_settings(options)
    part = None if options.part is None else parse_part(options.part)
    work = plan(options.input, data_root=options.data_root)
    if part is not None:
        work = work.part(part.number, part.count)
    if options.precision == "auto":
        options.precision = begun_precision(options.output) or "auto"
    extraction = chosen_encoder(options).extract(
        work,
        **settings,
        strict=options.strict,
        batch_size=options.batch_size,
        workers=options.workers,
    )
    outlook = extraction.outlook(options.output)
    if options.strict and outlook.failures:
        raise AudioError(outlook.failures[0].reason, kind=outlook.failures[0].kind)
    _show_plan(extraction, outlook, options.output)
    if options.dry_run:
        return 0
    tried = 0

    def watch(state: WriteProgress) -> None:
        nonlocal tried
        tried = state.total
        interrupt.check()

    with Interrupt() as interrupt:
        try:
            store = extraction.write(
                options.output,
                progress=True,
                outlook=outlook,
                shard_clips=options.shard_clips,
                on_progress=watch,
            )
        except KeyboardInterrupt:
            return stopped(options.output)
    return summarise(store, FailureCounts(extraction.failures), tried)


def _show_plan(extraction: Extraction, outlook: Outlook, output: Path) -> None:
    """Say what will happen; refuse what the disk cannot hold."""
    from ..errors import StoreError
    from ..store import estimate_bytes

    needed = estimate_bytes(extraction.fingerprint, outlook.rows, outlook.frames)
    folder = next(path for path in (output.absolute(), *output.absolute().parents) if path.exists())
    free = shutil.disk_usage(folder).free
    source, revision = (extraction.provenance[name] for name in ("source", "revision"))
    model = f"{source}@{revision[:8]}" if revision else source
    about = "" if outlook.exact else "about "
    print(
        f"Plan: {about}{count(outlook.clips or 0, 'clip')}, {about}{duration(outlook.seconds)} of "
        f"audio -> {about}{size(needed)} in {output} ({size(free)} free); "
        f"{model}, {extraction.encoder.precision} on {extraction.encoder.device}."
    )
    if outlook.present:
        print(f"In the store already: {about}{count(outlook.present, 'clip')}.")
    if outlook.failures:
        print(f"Cannot be read: {count(len(outlook.failures), 'clip')}, listed at the end.")
    if extraction.plan.left_out:
        print(f"Left out, as their names are not those of audio: {extraction.plan.left_out:,}.")
    sys.stdout.flush()
    if needed + SPARE_BYTES > free:
        raise StoreError(
            f"the store will take {about}{size(needed)} and {folder} has {size(free)} free",
            expected=size(needed + SPARE_BYTES),
            remedy="Choose fewer --layers, --pools or --frame-layers, --dtype float16, or another "
            "disk",
        )
