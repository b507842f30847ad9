"""``exhubert predict AUDIO...``: class probabilities, arousal and valence."""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..spec import ExtractionSpec
from .options import add_audio_arguments, add_model_arguments, add_running_arguments, load_model

if TYPE_CHECKING:
    from ..extraction import Extraction
    from ..heads import Head
    from ..prediction import Prediction
    from ..records import ClipFailure

BAR = 32  # characters of a certain class
TIMELINE_HOP = 1.0  # seconds; three windows see each second


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "audio", nargs="+", metavar="AUDIO", help="audio files, folders or manifests"
    )
    parser.add_argument(
        "--head", metavar="DIR", help="a head from `exhubert train` in place of the classifier"
    )
    parser.add_argument("--format", choices=("table", "json", "csv"), default="table")
    parser.add_argument(
        "--timeline",
        action="store_true",
        help=f"one prediction for each window, every {TIMELINE_HOP:g} s unless --hop says else",
    )
    parser.add_argument(
        "--plot", metavar="PNG", type=Path, help="draw the timeline of one recording"
    )
    add_audio_arguments(parser)
    add_model_arguments(parser)
    add_running_arguments(parser)
    # None: what the head was trained with, or else the usual.
    parser.set_defaults(precision=None, preprocess=None, window=None)


def run(options: argparse.Namespace) -> int:
    """Predict and print; 3 when a clip failed."""
    from ..prediction import Prediction, predict
    from ..records import ClipFailure

    extraction, head = prepare(options)
    found = list(predict(extraction, head))
    predictions = [item for item in found if isinstance(item, Prediction)]
    failures = [item for item in found if isinstance(item, ClipFailure)]
    if options.plot and predictions:
        plot(extraction, predictions, options.plot)
    show = {"table": show_table, "json": show_json, "csv": show_csv}[options.format]
    show(predictions, failures)
    for failure in failures:
        print(f"failed: {failure.reason}", file=sys.stderr)
    return 3 if failures else 0


def prepare(options: argparse.Namespace) -> tuple[Extraction, Head | None]:
    """Audio, model and head, ready to run."""
    from ..extraction import Extraction
    from ..extraction.sources import plan_clips
    from ..heads import load_head
    from ..prediction import prediction_spec

    timeline = bool(options.timeline or options.plot)
    asked = read_spec(options, timeline=timeline)
    plan = plan_clips(
        options.audio, channel=options.channel, data_root=options.data_root, workers=options.workers
    )
    if options.plot:
        check_plot(options.plot, len(plan.clips) + len(plan.rejected))
    head = load_head(options.head) if options.head else None
    if options.precision is None:
        trained = head.fingerprint.model.precision if head else "float32"
        options.precision = trained
    encoder = load_model(options)
    spec = prediction_spec(head, asked, timeline=timeline)
    running = {"batch_size": options.batch_size, "workers": options.workers}
    return Extraction(plan, encoder, spec, **running), head


def check_plot(path: Path, clips: int) -> None:
    """Refuse, before the work is done, what could not be drawn after it."""
    from ..errors import UsageError
    from ..report.timeline import SUFFIXES

    if clips != 1:
        raise UsageError(f"--plot with {clips} clips", expected="one recording")
    if path.suffix.lower() not in SUFFIXES:
        raise UsageError(f"--plot {path}", expected=f"a name ending in {', '.join(SUFFIXES)}")
    if not path.absolute().parent.is_dir():
        raise UsageError(f"--plot {path}: its folder does not exist", remedy="Make the folder")


def read_spec(options: argparse.Namespace, *, timeline: bool) -> ExtractionSpec:
    """What the options ask for."""
    from ..errors import UsageError

    if options.head and (options.preprocess or options.window is not None):
        raise UsageError(
            "--preprocess and --window with --head", expected="what the head was trained with"
        )
    window = 3.0 if options.window is None else options.window
    usual_hop = min(TIMELINE_HOP, window) if timeline else window
    return ExtractionSpec(
        preprocess=options.preprocess or "card",
        window=window,
        hop=usual_hop if options.hop is None else options.hop,
        channel=options.channel,
    )


def show_table(predictions: Sequence[Prediction], failures: Sequence[ClipFailure]) -> None:
    """Every class of each clip with a bar; of a window in a timeline one line."""
    for place, prediction in enumerate(predictions):
        clip = prediction.id.rpartition("#")[0]
        if prediction.is_window:
            if not place or predictions[place - 1].id.rpartition("#")[0] != clip:
                print(clip)
            print(f"  {prediction.start:7.1f} - {prediction.end:7.1f} s  {summary(prediction)}")
            continue
        print(f"{prediction.id}  {prediction.start:.1f} - {prediction.end:.1f} s")
        for line in score_lines(prediction):
            print(f"  {line}")


def summary(prediction: Prediction) -> str:
    """The likeliest class, arousal and valence in one line."""
    if not prediction.classes:
        return f"{prediction.target} {prediction.scores[0]:.4g}"
    width = max(map(len, prediction.classes))
    parts = [f"{prediction.label:<{width}} {prediction.scores.max():.3f}"]
    for name, levels in prediction.marginals.items():
        parts.append(
            f"{name} " + " ".join(f"{level} {share:.3f}" for level, share in levels.items())
        )
    return "   ".join(parts)


def score_lines(prediction: Prediction) -> Iterator[str]:
    """Classes from the likeliest, then arousal and valence; or the value."""
    if prediction.warnings:
        yield f"warning: {', '.join(prediction.warnings)}"
    if not prediction.classes:
        yield summary(prediction)
        return
    width = max(map(len, prediction.classes))
    ranked = sorted(zip(prediction.scores, prediction.classes, strict=True), reverse=True)
    for score, label in ranked:
        yield f"{label:<{width}}  {score:.3f}  {'#' * round(BAR * score)}".rstrip()
    for name, levels in prediction.marginals.items():
        shares = "  ".join(f"{level} {share:.3f}" for level, share in levels.items())
        yield f"{name:<{width}}  {shares}"


def show_json(predictions: Sequence[Prediction], failures: Sequence[ClipFailure]) -> None:
    """One object with both lists."""
    content = {
        "predictions": [describe(prediction) for prediction in predictions],
        "failures": [asdict(failure) for failure in failures],
    }
    print(json.dumps(content, indent=1, ensure_ascii=False))


def describe(prediction: Prediction) -> dict[str, Any]:
    """A prediction as JSON data."""
    described: dict[str, Any] = {
        "id": prediction.id,
        "file": prediction.file,
        "start": prediction.start,
        "end": prediction.end,
        "warnings": list(prediction.warnings),
    }
    scores = prediction.scores.tolist()
    if not prediction.classes:
        return {**described, "target": prediction.target, "value": scores[0]}
    probabilities = dict(zip(prediction.classes, scores, strict=True))
    described |= {"label": prediction.label, "probabilities": probabilities}
    return described | prediction.marginals


def show_csv(predictions: Sequence[Prediction], failures: Sequence[ClipFailure]) -> None:
    """A row for each prediction; failures have no row."""
    rows = [flatten(describe(prediction)) for prediction in predictions]
    if rows:
        writer = csv.DictWriter(sys.stdout, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def flatten(described: dict[str, Any]) -> dict[str, Any]:
    """Nested numbers as columns: classes by their name, arousal and valence as arousal_high."""
    row: dict[str, Any] = {}
    for key, value in described.items():
        if isinstance(value, dict):
            prefix = "" if key == "probabilities" else f"{key}_"
            row |= {f"{prefix}{name}": round(number, 6) for name, number in value.items()}
        else:
            row[key] = " ".join(value) if isinstance(value, list) else value
    return row


def plot(extraction: Extraction, predictions: Sequence[Prediction], path: Path) -> None:
    """Draw the recording and what was heard in it."""
    from ..extraction.decoding import load_clip
    from ..report.timeline import draw_timeline

    (clip,) = extraction.clips
    wave = load_clip(clip, extraction.plan, extraction.spec.channel)
    if not isinstance(wave, Exception):  # it was read once; it can only have gone since
        draw_timeline(path, wave, predictions, title=Path(clip.file).name or clip.id)
        print(f"{path}: the timeline", file=sys.stderr)
