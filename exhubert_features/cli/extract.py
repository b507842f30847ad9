"""``exhubert extract INPUT... -o STORE``: audio to a crash-safe feature store."""

from __future__ import annotations

import argparse
import shutil
import sys
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..spec import SAMPLE_RATE, ExtractionSpec, Layers, parse_layers, resolve_layers
from .options import (
    add_audio_arguments,
    add_model_arguments,
    add_running_arguments,
    load_model,
    positive,
)
from .progress import Interrupt, Progress
from .wording import count, duration, size

if TYPE_CHECKING:
    from ..extraction import Extraction
    from ..records import ClipFailure, PlannedClip
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
    group.add_argument(
        "--pools", "--pool", default="mean", help="any of mean,std,max (default: %(default)s)"
    )
    group.add_argument(
        "--frame-layers",
        "--frames",
        metavar="LAYERS",
        help="layers to keep frame by frame (100 KB a second each)",
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


def run(options: argparse.Namespace) -> int:
    """Plan, extract what is missing, and list what failed."""
    from ..extraction import Extraction
    from ..extraction.sources import plan_clips

    # Read before audio and model, so that wrong usage shows at once.
    spec = read_spec(options)
    layers = parse_layers(options.layers)
    frames = parse_layers(options.frame_layers) if options.frame_layers else ()
    plan = plan_clips(
        options.input,
        channel=options.channel,
        data_root=options.data_root,
        workers=options.workers,
    )
    encoder = load_model(options)
    extraction = Extraction(
        plan,
        encoder,
        choose_layers(spec, layers, frames, encoder.num_states),
        batch_size=options.batch_size,
        workers=options.workers,
        strict=options.strict,
    )
    missing = clips_to_do(extraction, options.output)
    show_plan(extraction, missing, options.output)
    if options.dry_run:
        return 0
    with Interrupt() as interrupt:
        try:
            store = write(extraction, missing, interrupt, options)
        except KeyboardInterrupt:
            return stopped(options.output)
    return summarise(store, extraction)


def read_spec(options: argparse.Namespace) -> ExtractionSpec:
    """What the options ask for, but for the layers, which the model must be known for."""
    return ExtractionSpec(
        pools=tuple(name.strip() for name in options.pools.split(",")),
        preprocess=options.preprocess,
        window=options.window,
        hop=options.window if options.hop is None else options.hop,
        segments=options.segments,
        dtype=options.dtype,
        channel=options.channel,
    )


def choose_layers(
    spec: ExtractionSpec, layers: Layers, frames: Layers, num_states: int
) -> ExtractionSpec:
    """The same with the model's own layer ids; no frames for ``()``."""
    return replace(
        spec,
        layers=resolve_layers(layers, num_states),
        frame_layers=resolve_layers(frames, num_states) if frames != () else (),
    )


def clips_to_do(extraction: Extraction, output: Path) -> list[PlannedClip]:
    """Planned clips that the store does not hold yet."""
    from ..store import FeatureStore
    from ..store.journal import require_same

    if not (output / "store.json").is_file():
        return list(extraction.clips)
    store = FeatureStore(output)
    require_same(output, store.fingerprint, extraction.fingerprint)
    stored = dict(zip(store.column("clip_id"), store.column("audio_sha256"), strict=True))
    return [clip for clip in extraction.clips if stored.get(clip.id) != clip.audio_sha256]


def show_plan(extraction: Extraction, missing: Sequence[PlannedClip], output: Path) -> None:
    """Say what will happen; refuse what the disk cannot hold."""
    from ..errors import StoreError
    from ..store import estimate_bytes

    needed = estimate_bytes(extraction.fingerprint, *extraction.count_rows(missing))
    folder = next(path for path in (output.absolute(), *output.absolute().parents) if path.exists())
    free = shutil.disk_usage(folder).free
    source, revision = (extraction.provenance[name] for name in ("source", "revision"))
    model = f"{source}@{revision[:8]}" if revision else source
    print(
        f"Plan: {count(len(missing), 'clip')}, {duration(seconds_of(missing))} of audio -> "
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
            remedy="Choose fewer --layers, --pool or --frames, --dtype float16, or another disk",
        )


def seconds_of(clips: Iterable[PlannedClip]) -> float:
    """Audio in clips."""
    return sum(clip.samples for clip in clips) / SAMPLE_RATE


def write(
    extraction: Extraction,
    missing: Sequence[PlannedClip],
    interrupt: Interrupt,
    options: argparse.Namespace,
) -> FeatureStore:
    """Extract into the store, showing how far it is."""
    from ..store import FeatureStore, ShardLimits

    progress = Progress(len(missing), seconds_of(missing))
    failed = len(extraction.rejected)

    def report(state: WriteProgress) -> None:
        nonlocal failed
        clips = [state.clip] if state.clip else []
        progress.update(seconds_of(clips), failed=state.failed > failed)
        failed = state.failed
        if interrupt.requested:
            raise KeyboardInterrupt

    try:
        return FeatureStore.write(
            options.output,
            extraction,
            limits=ShardLimits(clips=options.shard_clips),
            on_progress=report,
        )
    finally:
        progress.close()


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


def summarise(store: FeatureStore, extraction: Extraction) -> int:
    """Say what is in the store now and what failed; 3 when anything of this run did."""
    names = {clip.id for clip in extraction.clips} | {clip.id for clip in extraction.rejected}
    status = zip(store.column("clip_id"), store.column("status"), strict=True)
    silent = {name for name, state in status if name in names and "silent" in state}
    print(f"{store.path}: {count(len(store), 'row')}")
    if silent:
        print(f"Warning: {count(len(silent), 'silent clip')}, such as {min(silent)}")
    failures = [failure for failure in store.failures if failure.id in names]
    if not failures:
        return 0
    print(f"Failed: {len(failures):,} of {count(len(names), 'clip')}", file=sys.stderr)
    show_failures(failures)
    print(f"All of them: exhubert inspect {store.path}", file=sys.stderr)
    return 3


def show_failures(failures: Sequence[ClipFailure]) -> None:
    """The first few of each kind, on stderr."""
    kinds: dict[str, list[ClipFailure]] = defaultdict(list)
    for failure in failures:
        kinds[failure.kind].append(failure)
    for kind, members in sorted(kinds.items(), key=lambda item: -len(item[1])):
        print(f"  {kind}: {len(members):,}", file=sys.stderr)
        for failure in members[:FAILURES_SHOWN]:
            print(f"    {failure.id}: {failure.reason}", file=sys.stderr)
        if len(members) > FAILURES_SHOWN:
            print(f"    and {len(members) - FAILURES_SHOWN:,} more", file=sys.stderr)
