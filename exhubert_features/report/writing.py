"""One evaluation as a person reads it: ``report.html``, ``report.json`` and the figures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .content import (
    Report,
    chance_level,
    confusion_counts,
    group_scores,
    is_grouped,
    metric_name,
    plain,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_FIGURES = ("result", "confusion", "scatter", "layers", "groups", "calibration", "map_target",
            "map_groups")  # fmt: skip


def write_report(directory: str | Path, report: Report) -> Path:
    """Write ``report.html``, ``report.json`` and one PNG per figure into a folder.

    Returns
    -------
    Path
        The HTML file.
    """
    from . import page, plots  # matplotlib: only who writes a report waits for its import

    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    for name in _FIGURES:  # those of an earlier report of another kind would mislead
        (directory / f"{name}.png").unlink(missing_ok=True)
    vectors = {}
    with plots.style():
        for name, figure in _figures(report).items():
            (directory / f"{name}.png").write_bytes(plots.to_png(figure))
            vectors[name] = plots.to_svg(figure, name)
    summary = json.dumps(plain(_summary(report)), indent=1, allow_nan=False, ensure_ascii=False)
    (directory / "report.json").write_text(summary + "\n", encoding="utf-8")
    written = directory / "report.html"
    written.write_text(page.render(report, vectors), encoding="utf-8")
    return written


def _figures(report: Report) -> dict[str, Figure]:
    from . import plots

    name, main = next(iter(report.metrics.items()))
    short, chance = metric_name(name), chance_level(report)
    listed = {
        metric_name(key): value
        for key, value in report.metrics.items()
        if key != "mae" and (len(report.classes) <= 12 or not key.startswith("recall "))
    }
    drawn = {"result": plots.draw_result(listed, chance)}
    if report.classes:
        drawn["confusion"] = plots.draw_confusion(confusion_counts(report), report.classes)
    else:
        drawn["scatter"] = plots.draw_scatter(report.truth, report.prediction, report.target)
    if report.layer_curve is not None:
        drawn["layers"] = plots.draw_layers(report.layer_curve, short, chance)
    scores = [group for group in group_scores(report) if np.isfinite(group.score)]
    if scores and is_grouped(report):
        drawn["groups"] = plots.draw_groups(scores, main, short)
    if report.probabilities is not None:
        series = {"as trained": report.probabilities}
        if temperature := report.calibration.get("temperature"):
            series[f"at temperature {temperature:.2f}"] = _rescale(
                report.probabilities, temperature
            )
        drawn["calibration"] = plots.draw_calibration(report.truth, series)
    if report.map_points is not None:
        if report.classes:
            labels = np.array(report.classes, dtype=object)[report.truth.astype(int)]
            drawn["map_target"] = plots.draw_map(report.map_points, labels)
        else:
            drawn["map_target"] = plots.draw_value_map(
                report.map_points, report.truth, report.target
            )
        if is_grouped(report):
            drawn["map_groups"] = plots.draw_map(report.map_points, report.groups.astype(object))
    return drawn


def _rescale(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """Probabilities (N, C) at a temperature: the softmax at T is the one at 1 to the power 1/T."""
    powers = (probabilities / probabilities.max(axis=1, keepdims=True)) ** (1 / temperature)
    return powers / powers.sum(axis=1, keepdims=True)


def _summary(report: Report) -> dict[str, Any]:
    """What ``report.json`` holds, the main result first."""
    name, main = next(iter(report.metrics.items()))
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
        "chance": chance_level(report),
        "metrics": report.metrics,
        "comparison": report.comparison,
        "warnings": report.warnings,
        "failures": report.failures,
        "protocol": report.protocol,
        "confusion": confusion_counts(report) if report.classes else None,
        "groups": group_scores(report),
        "folds": report.folds,
        "layer_curve": report.layer_curve,
        "calibration": report.calibration,
        "reproduce": report.reproduce,
        "clips": {"id": report.ids, "group": report.groups, **named,
                  "probabilities": report.probabilities},
    }  # fmt: skip
