"""One evaluation as a person reads it: ``report.html``, ``report.json`` and the figures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..files import make_folder, publish
from ..stamps import stamped
from ..tables import harmless
from .content import (
    Report,
    as_json,
    metric_name,
)
from .sound import audio_address

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_FIGURES = ("result", "confusion", "scatter", "layers", "groups", "calibration", "map_target",
            "map_groups")  # fmt: skip


def write_report(
    directory: str | Path, report: Report, *, table: str = "", embed_audio: bool = False
) -> Path:
    """Write ``report.html``, ``report.json`` and one PNG per figure into a folder.

    Each file is whole or not there; the page comes last. A figure that an earlier report of
    another kind left there is removed, for it would mislead.

    Parameters
    ----------
    table
        Predictions as CSV, for ``predictions.csv``; none is written without them.
    embed_audio
        Put the audio of listed clips into the page instead of links to their files.

    Returns
    -------
    Path
        The HTML file.
    """
    from . import page, plots  # matplotlib: only who writes a report waits for its import

    directory = Path(directory)
    make_folder(directory)
    vectors, files = {}, {}
    with plots.style():
        for name, figure in _figures(report).items():
            files[f"{name}.png"] = plots.to_png(figure)
            vectors[name] = plots.to_svg(figure, name)
    found = stamped(as_json(_summary(report)))
    summary = json.dumps(found, indent=1, allow_nan=False, ensure_ascii=False)
    sounds = [audio_address(clip, directory, embed=embed_audio) for clip in report.mistakes]
    if table:
        files["predictions.csv"] = table.encode()
    files["report.json"] = f"{summary}\n".encode()
    files["report.html"] = harmless(page.render(report, vectors, sounds)).encode()
    for name, content in files.items():
        publish(content, directory / name, replace=True)
    for name in _FIGURES:
        if name not in vectors:
            (directory / f"{name}.png").unlink(missing_ok=True)
    return directory / "report.html"


def _figures(report: Report) -> dict[str, Figure]:
    from . import plots

    short, chance = metric_name(report.metric), report.chance
    listed = {
        metric_name(key): value
        for key, value in report.metrics.items()
        if not key.startswith(("mae", "kl", "js"))
        and (len(report.classes) <= 12 or not key.startswith("recall "))
    }
    drawn = {"result": plots.draw_result(listed, chance)}
    if report.confusion is not None:
        drawn["confusion"] = plots.draw_confusion(report.confusion, report.classes)
    else:
        drawn["scatter"] = plots.draw_scatter(report.truth, report.prediction, report.targets)
    if report.layer_curve is not None:
        drawn["layers"] = plots.draw_layers(report.layer_curve, short, chance)
    scores = [group for group in report.group_scores if np.isfinite(group.score)]
    if scores and report.grouped:
        drawn["groups"] = plots.draw_groups(scores, report.main, short)
    if report.calibration_curves:
        drawn["calibration"] = plots.draw_calibration(report.calibration_curves)
    if report.map_points is not None:
        if report.classes:
            labels = np.array(report.classes, dtype=object)[report.truth.astype(int)]
            drawn["map_target"] = plots.draw_map(report.map_points, labels)
        else:
            drawn["map_target"] = plots.draw_value_map(
                report.map_points, report.truth, report.targets
            )
        if report.grouped:
            drawn["map_groups"] = plots.draw_map(report.map_points, report.groups.astype(object))
    return drawn


def _summary(report: Report) -> dict[str, Any]:
    """Collect what ``report.json`` holds, the main result first."""
    name, main = report.metric, report.main
    classes = np.array(report.classes, dtype=object)
    named = {
        key: classes[getattr(report, key).astype(int)] if report.classes else getattr(report, key)
        for key in ("truth", "prediction")
    }
    return {
        name: main.value,
        f"{name}_interval": [main.low, main.high],
        "title": report.title,
        "task": report.task,
        "target": report.target,
        "classes": report.classes,
        "targets": report.targets,
        "chance": report.chance,
        "metrics": report.metrics,
        "baselines": report.baselines,
        "intervals": report.interval_words,
        "retrained": report.retrained,
        "comparisons": report.comparisons,
        "dealings": report.dealings,
        "warnings": report.warnings,
        "failures": report.failures,
        "protocol": report.protocol,
        "confusion": report.confusion,
        "groups": report.group_scores,
        "parts": report.parts,
        "folds": report.folds,
        "layer_curve": report.layer_curve,
        "calibration": {**report.calibration, "curves": report.calibration_curves},
        "rows": report.unit,
        "model": report.model,
        "made": report.made,
        "reproduce": report.reproduce,
        "clips": {"id": report.ids, "group": report.groups, **named,
                  "probabilities": report.probabilities,
                  "raw_probabilities": report.raw_probabilities, "shares": report.shares},
    }  # fmt: skip
