"""``exhubert predict AUDIO...``: class probabilities, arousal and valence."""

from __future__ import annotations

import argparse
import importlib.util
import sys
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING

from ..spec import SAMPLE_RATE
from .options import add_audio_arguments, add_model_arguments, add_running_arguments, chosen_encoder
from .predicted import Predicted
from .wording import FORMULAS, count

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..extraction import Plan
    from ..records import ClipFailure, PlannedClip

PROGRESS_SECONDS = 30.0  # of audio: less is done before anybody wonders
FILES = (".csv", ".tsv", ".json", ".parquet")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "audio", nargs="+", metavar="AUDIO", help="audio files, folders or manifests"
    )
    parser.add_argument(
        "--head", metavar="DIR", help="a head from `exhubert train` in place of the classifier"
    )
    parser.add_argument(
        "--timeline",
        action="store_true",
        help="one prediction for each window, every second unless --hop says else",
    )
    parser.add_argument(
        "--plot", metavar="PNG", type=Path, help="draw the timeline of one recording"
    )
    group = parser.add_argument_group("output")
    group.add_argument("--format", choices=("table", "json", "csv"), help="default: table")
    group.add_argument(
        "-o", "--output", metavar="FILE", type=Path, help=f"write a file: {', '.join(FILES)}"
    )
    group.add_argument("--force", action="store_true", help="replace FILE if it is there")
    group.add_argument("--formulas", action="store_true", help=FORMULAS)
    add_audio_arguments(parser)
    add_model_arguments(parser)
    add_running_arguments(parser)
    # None: what the head was trained with, or else the usual.
    parser.set_defaults(precision=None, preprocess=None, window=None)


def run(options: argparse.Namespace) -> int:
    """Predict; print, write or draw what was heard; 3 when a clip failed."""
    from ..extraction import measured, plan
    from ..heads import load_head
    from ..prediction import class_columns, prediction_spec

    how = {
        "windows": bool(options.timeline or options.plot),
        **{name: getattr(options, name) for name in ("preprocess", "window", "hop", "channel")},
    }
    head = load_head(options.head) if options.head else None
    prediction_spec(head, **how)  # wrong usage shows before any work is done
    _check_output(options.output, force=options.force)
    work = plan(options.audio, data_root=options.data_root)
    _check_plot(options.plot, work)
    if options.precision is None:
        options.precision = head.fingerprint.model.precision if head else "auto"
    encoder = chosen_encoder(options)
    table = encoder.predict(
        work,
        head=head,
        **how,
        batch_size=options.batch_size,
        workers=options.workers,
        progress=_is_long(measured(work, options.channel)),
    )
    predicted = Predicted(
        table,
        classes=class_columns(encoder.classes if head is None else head.config.classes),
        targets=() if head is None else head.config.targets,
        windows=prediction_spec(head, **how).segments,
        formulas=options.formulas,
    )
    if options.plot and predicted.rows:
        _draw(predicted, work, options)
    if options.output:
        _write(predicted, options.output, force=options.force)
    if options.format or not options.output:
        print(predicted.text(options.format or "table"), end="")
    failed = table["error"].dropna()
    for reason in failed:
        print(f"failed: {reason}", file=sys.stderr)
    return 3 if len(failed) else 0


def _check_output(path: Path | None, *, force: bool) -> None:
    """Refuse, before the work is done, a file that could not be written after it."""
    from ..errors import MissingDependency, UsageError

    if path is None:
        return
    if path.suffix.lower() not in FILES:
        raise UsageError(f"-o {path}", expected=f"a name ending in {', '.join(FILES)}")
    if not path.absolute().parent.is_dir():
        raise UsageError(f"-o {path}: its folder does not exist", remedy="Make the folder")
    if path.is_dir() or (path.exists() and not force):
        raise UsageError(f"{path} exists", remedy="Choose another name, or replace it with --force")
    if path.suffix.lower() == ".parquet" and importlib.util.find_spec("pyarrow") is None:
        raise MissingDependency(
            "Parquet files need pyarrow", remedy="pip install 'exhubert-features[parquet]'"
        )


def _is_long(clips: Iterable[PlannedClip | ClipFailure]) -> bool:
    """Whether there is so much audio that somebody will wonder how far it is."""
    seconds = accumulate(getattr(clip, "samples", 0) / SAMPLE_RATE for clip in clips)
    return any(so_far > PROGRESS_SECONDS for so_far in seconds)


def _check_plot(path: Path | None, plan: Plan) -> None:
    """Refuse, before the work is done, what could not be drawn after it."""
    from ..errors import UsageError
    from ..report.timeline import SUFFIXES

    if path is None:
        return
    if (clips := plan.count()) != 1:
        raise UsageError(f"--plot with {clips} clips", expected="one recording")
    if path.suffix.lower() not in SUFFIXES:
        raise UsageError(f"--plot {path}", expected=f"a name ending in {', '.join(SUFFIXES)}")
    if not path.absolute().parent.is_dir():
        raise UsageError(f"--plot {path}: its folder does not exist", remedy="Make the folder")


def _write(predicted: Predicted, path: Path, *, force: bool) -> None:
    """Write the file, whole or not at all."""
    from ..errors import UsageError
    from ..files import publish

    if not publish(predicted.content(path.suffix.lower()), path, replace=force):
        raise UsageError(f"{path} exists by now", remedy="Choose another name")
    failed = len(predicted.flat) - len(predicted.rows)
    print(f"{path}: {count(len(predicted.rows), 'prediction')}, {failed} failed", file=sys.stderr)


def _draw(predicted: Predicted, plan: Plan, options: argparse.Namespace) -> None:
    """Draw the recording and what was heard in it."""
    from ..audio import read_audio
    from ..extraction import measured
    from ..report.timeline import draw_timeline

    (clip,) = measured(plan, options.channel)
    draw_timeline(
        options.plot,
        read_audio(clip.file, start=clip.start, end=clip.end, channel=options.channel),
        predicted.rows,
        classes=predicted.classes,
        targets=predicted.targets,
        title=Path(clip.file).name,
    )
    print(f"{options.plot}: the timeline", file=sys.stderr)
