"""``exhubert extract INPUT... -o STORE``: audio to a crash-safe feature store."""

from __future__ import annotations

import argparse
import shutil
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import AudioError
from ..spec import ExtractionSpec, parse_layers
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
    from ..records import ClipFailure
    from ..store import FeatureStore, WriteProgress

FAILURES_SHOWN = 5  # of each kind; all of them are in the store
SPARE_BYTES = 256 << 20  # left free on the disk, for the index and for everybody else


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "input",
        nargs="+",
        metavar="INPUT",
        help="audio files, folders, CSV/TSV manifests (file, and optionally id, start, end, ...), "
        "SpeechBrain manifests",
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


def run(options: argparse.Namespace) -> int:
    """Plan, extract what is missing, and list what failed."""
    from ..extraction import parse_part, plan

    settings = _read_settings(options)  # wrong usage shows before the source is read, and a
    part = parse_part(options.part) if options.part else None  # typo before the model is loaded
    work = plan(options.input, data_root=options.data_root)
    if part is not None:
        work = work.part(part.number, part.count)
    if options.precision == "auto":
        options.precision = _begun_precision(options.output) or "auto"
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
            return _stopped(options.output)
    return _summarise(store, extraction, tried)


def _read_settings(options: argparse.Namespace) -> dict[str, Any]:
    """Read what the options ask for, as :meth:`Encoder.extract` takes it; refuse what cannot be."""
    settings: dict[str, Any] = {
        "pools": tuple(name.strip() for name in options.pools.split(",")),
        "preprocess": options.preprocess,
        "window": options.window,
        "hop": options.window if options.hop is None else options.hop,
        "segments": options.segments,
        "dtype": options.dtype,
        "logits": options.logits,
        "channel": options.channel,
    }
    ExtractionSpec(**settings)
    frame_layers = parse_layers(options.frame_layers) if options.frame_layers else ()
    return {**settings, "layers": parse_layers(options.layers), "frame_layers": frame_layers}


def _begun_precision(output: Path) -> str | None:
    """Tell the precision of the store that is there already: it goes on in that."""
    from ..store import FeatureStore

    if not (output / "store.json").is_file():
        return None
    return FeatureStore(output).fingerprint.model.precision


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


def _stopped(output: Path) -> int:
    """After Ctrl-C: what is safe, and how to go on."""
    from ..store import FeatureStore

    rows = len(FeatureStore(output)) if (output / "store.json").is_file() else 0
    print(
        f"Stopped. {output} holds {count(rows, 'row')}. "
        "Run the same command again to go on from there.",
        file=sys.stderr,
    )
    return 130


def _summarise(store: FeatureStore, extraction: Extraction, tried: int) -> int:
    """Say what is in the store now and what failed; 3 when anything of this run did."""
    status = zip(store.column("clip_id"), store.column("status"), strict=True)
    silent = {name for name, state in status if "silent" in state}
    print(f"{store.path}: {count(len(store), 'row')}")
    if silent:
        print(f"Warning: {count(len(silent), 'silent clip')}, such as {min(silent)}")
    failures = extraction.failures
    if not failures:
        return 0
    print(f"Failed: {len(failures):,} of {count(tried, 'clip')}", file=sys.stderr)
    _show_failures(failures)
    print(f"All of them: exhubert inspect {store.path}", file=sys.stderr)
    return 3


def _show_failures(failures: Sequence[ClipFailure]) -> None:
    """Print the first few of each kind to stderr."""
    kinds: dict[str, list[ClipFailure]] = defaultdict(list)
    for failure in failures:
        kinds[failure.kind].append(failure)
    for kind, members in sorted(kinds.items(), key=lambda item: -len(item[1])):
        print(f"  {kind}: {len(members):,}", file=sys.stderr)
        for failure in members[:FAILURES_SHOWN]:
            print(f"    {failure.id}: {failure.reason}", file=sys.stderr)
        if len(members) > FAILURES_SHOWN:
            print(f"    and {len(members) - FAILURES_SHOWN:,} more", file=sys.stderr)
