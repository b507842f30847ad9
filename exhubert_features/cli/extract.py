"""``exhubert extract INPUT... -o STORE``: audio to a crash-safe feature store."""

from __future__ import annotations

import argparse
import shutil
import sys
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..spec import SAMPLE_RATE, ExtractionSpec, parse_layers
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
    from ..extraction import Extraction
    from ..records import ClipFailure, PlannedClip
    from ..store import FeatureStore

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
    group = parser.add_argument_group("several machines")
    group.add_argument(
        "--part",
        metavar="I/N",
        help="only the I-th of N parts, for schedulers' arrays; which clips these are depends on "
        "their ids alone, and any number of parts may write into one store",
    )
    group.add_argument(
        "--engine", choices=("here", "ray"), default="here", help="default: %(default)s"
    )
    group.add_argument(
        "--address", help="of a Ray cluster, such as auto (default: one is started here)"
    )
    group.add_argument(
        "--actors", type=positive, help="workers on Ray (default: one a GPU, or a machine)"
    )
    group.add_argument(
        "--gpus-per-actor", type=float, default=0.0, help="may be a fraction (default: 0)"
    )


def run(options: argparse.Namespace) -> int:
    """Plan, extract what is missing, and list what failed."""
    from ..extraction import parse_part, plan_clips

    if options.engine == "ray":
        from .extract_on_ray import run_on_ray

        return run_on_ray(options)
    settings = read_settings(options)  # wrong usage shows before audio is read, and audio that
    plan = plan_clips(  # is not there before the model is loaded
        options.input,
        channel=options.channel,
        data_root=options.data_root,
        workers=options.workers,
        part=parse_part(options.part) if options.part else None,
    )
    extraction = chosen_encoder(options).extract(
        plan,
        **settings,
        strict=options.strict,
        batch_size=options.batch_size,
        workers=options.workers,
    )
    missing = extraction.missing_in(options.output)
    _show_plan(extraction, missing, options.output)
    if options.dry_run:
        return 0
    with Interrupt() as interrupt:
        try:
            store = extraction.write(
                options.output,
                progress=True,
                missing=missing,
                shard_clips=options.shard_clips,
                on_progress=interrupt.check,
            )
        except KeyboardInterrupt:
            return stopped(options.output)
    return summarise(store, {clip.id for clip in extraction.plan.planned})


def read_settings(options: argparse.Namespace) -> dict[str, Any]:
    """Read what the options ask for, as :meth:`Encoder.extract` takes it; refuse what cannot be."""
    settings: dict[str, Any] = {
        "pools": tuple(name.strip() for name in options.pools.split(",")),
        "preprocess": options.preprocess,
        "window": options.window,
        "hop": options.window if options.hop is None else options.hop,
        "segments": options.segments,
        "dtype": options.dtype,
        "channel": options.channel,
    }
    ExtractionSpec(**settings)
    frame_layers = parse_layers(options.frame_layers) if options.frame_layers else ()
    return {**settings, "layers": parse_layers(options.layers), "frame_layers": frame_layers}


def _show_plan(extraction: Extraction, missing: Sequence[PlannedClip], output: Path) -> None:
    """Say what will happen; refuse what the disk cannot hold."""
    from ..errors import StoreError
    from ..store import estimate_bytes

    needed = estimate_bytes(extraction.fingerprint, *extraction.expected_size(missing))
    folder = next(path for path in (output.absolute(), *output.absolute().parents) if path.exists())
    free = shutil.disk_usage(folder).free
    source, revision = (extraction.provenance[name] for name in ("source", "revision"))
    model = f"{source}@{revision[:8]}" if revision else source
    print(
        f"Plan: {count(len(missing), 'clip')}, {duration(_seconds_of(missing))} of audio -> "
        f"{size(needed)} in {output} ({size(free)} free); "
        f"{model}, {extraction.encoder.precision} on {extraction.encoder.device}."
    )
    if stored := len(extraction.clips) - len(missing):
        print(f"In the store already: {count(stored, 'clip')}.")
    if extraction.rejected:
        print(f"Cannot be read: {count(len(extraction.rejected), 'clip')}, listed at the end.")
    if extraction.plan.left_out:
        print(f"Left out, as their names are not those of audio: {extraction.plan.left_out:,}.")
    sys.stdout.flush()
    if needed + SPARE_BYTES > free:
        raise StoreError(
            f"the store will take {size(needed)} and {folder} has {size(free)} free",
            expected=size(needed + SPARE_BYTES),
            remedy="Choose fewer --layers, --pools or --frame-layers, --dtype float16, or another "
            "disk",
        )


def _seconds_of(clips: Iterable[PlannedClip]) -> float:
    """Audio in clips."""
    return sum(clip.samples for clip in clips) / SAMPLE_RATE


def stopped(output: Path) -> int:
    """After Ctrl-C: what is safe, and how to go on."""
    from ..store import FeatureStore

    rows = len(FeatureStore(output)) if (output / "store.json").is_file() else 0
    print(
        f"Stopped. {output} holds {count(rows, 'row')}. "
        "Run the same command again to go on from there.",
        file=sys.stderr,
    )
    return 130


def summarise(store: FeatureStore, names: Collection[str]) -> int:
    """Say what is in the store now and what failed; 3 when any of these clips did."""
    status = zip(store.column("clip_id"), store.column("status"), strict=True)
    silent = {name for name, state in status if name in names and "silent" in state}
    print(f"{store.path}: {count(len(store), 'row')}")
    if silent:
        print(f"Warning: {count(len(silent), 'silent clip')}, such as {min(silent)}")
    failures = [failure for failure in store.failures if failure.id in names]
    if not failures:
        return 0
    print(f"Failed: {len(failures):,} of {count(len(names), 'clip')}", file=sys.stderr)
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
