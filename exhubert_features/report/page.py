"""The words, tables and HTML of a report; the template is ``page.html``."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

import numpy as np
from jinja2 import Environment, StrictUndefined

from ..records import Interval
from ..version import __version__
from .content import (
    LayerCurve,
    Report,
    as_json,
    comparison_words,
    dealing_words,
    metric_name,
    setting_words,
)

_MEANING = {
    "uar": "Unweighted average recall: the mean over the classes of the share that was "
    "recognised, so that a rare class counts as much as a frequent one.",
    "ccc": "Concordance correlation: 1 is perfect agreement in trend, level and spread, 0 is none.",
    "mean_ccc": "The mean over the targets of the concordance correlation: 1 is perfect agreement "
    "in trend, level and spread, 0 is none.",
}
_CALIBRATION = {
    "ece": "Expected calibration error",
    "brier": "Brier score",
    "temperature": "Temperature of the head",
    "ece_scaled": "Calibration error, scaled",
    "brier_scaled": "Brier score, scaled",
}
_SOFT = (
    "KL and JS divergence tell how far the stated probabilities are from the shares of the classes "
    "among the labels: 0 is the same. Chance is what the mean shares of the training clips score. "
    "A head in whose training every class counted alike is worse at shares than at UAR."
)
_SOFT_CALIBRATION = (
    "Here the probabilities are fitted to shares of classes, so that they are rightly less sure "
    "than the majority is right, which is what this picture counts. "
)
_LISTED_FAILURES = 200  # in the page; report.json has them all
_LISTED_GROUPS = 6  # of one fold, in its row


def render(report: Report, figures: Mapping[str, str], sounds: Sequence[str] = ()) -> str:
    """Write the whole page.

    The template engine escapes every value but our own SVG ``figures``; ``sounds`` are the
    audio addresses of the report's mistakes.
    """
    environment = Environment(autoescape=True, undefined=StrictUndefined)
    source = files(__package__).joinpath("page.html").read_text(encoding="utf-8")
    fingerprint = report.reproduce.get("fingerprint")
    return environment.from_string(
        source
    ).render(
        report=report,
        figures=figures,
        version=__version__,
        chance=report.chance,
        main=_headline(report),
        grouped=report.grouped,
        facts=_facts(report),
        comparisons=[comparison_words(found, report.metric) for found in report.comparisons],
        dealings=dealing_words(report.dealings, report.metric),
        warnings=_warnings(report),
        metric_rows=[
            (metric_name(key), _number(value.value), _span(value), *_chance(report, key))
            for key, value in report.metrics.items()
            if not key.startswith("recall ")  # they stand in the table of classes
        ],
        metric_head=("", "value", "95 % interval", *(["chance"] if report.baselines else [])),
        soft_words=_SOFT if report.baselines else "",
        retrained=_retrained_words(report),
        part_rows=[
            (part.kind, part.name, part.clips, _number(part.score.value), _span(part.score))
            for part in report.parts
        ],
        class_rows=_class_rows(report),
        layer_words=_layer_words(report.layer_curve) if report.layer_curve else "",
        layer_rows=_layer_rows(report.layer_curve) if report.layer_curve else [],
        group_words=_group_words(report),
        group_rows=[(g.name, g.clips, _number(g.score)) for g in report.group_scores],
        calibration_words=_calibration_words(report),
        calibration_rows=[
            (_CALIBRATION.get(key, key), _number(value))
            for key, value in report.calibration.items()
        ],
        mistakes=list(zip(report.mistakes, sounds or [""] * len(report.mistakes), strict=True)),
        mistaken=_mistaken(report),
        fold_rows=_fold_rows(report),
        failure_rows=[
            [failure.get(key, "") for key in ("id", "file", "kind", "reason")]
            for failure in report.failures[:_LISTED_FAILURES]
        ],
        reproduce_rows=_reproduce_rows(report),
        fingerprint=json.dumps(as_json(fingerprint), indent=1) if fingerprint else "",
    )


def _chance(report: Report, key: str) -> list[str]:
    """One more cell of the table of metrics, where labels are soft."""
    if not report.baselines:
        return []
    chance = report.chance if key == "uar" else report.baselines.get(key)
    return [_number(chance) if chance is not None else ""]


def _headline(report: Report) -> dict[str, Any]:
    """Put the main figure into words, and into percentages of the gauge's width."""
    key, interval = report.metric, report.main
    low, place, high = (
        100 * float(np.clip(np.nan_to_num(x), 0, 1))
        for x in (interval.low, interval.value, interval.high)
    )
    return {
        "short": metric_name(key),
        "value": _number(interval.value),
        "low": _number(interval.low),
        "high": _number(interval.high),
        "left": low,
        "width": high - low,
        "place": place,
        "meaning": _MEANING.get(key, ""),
    }


def _facts(report: Report) -> list[tuple[str, Any]]:
    facts: list[tuple[str, Any]] = [
        ("target", report.target),
        (report.unit, len(report.ids)),
        ("groups", len(np.unique(report.groups)) if report.grouped else "none"),
    ]
    if report.classes:
        facts.append(("classes", len(report.classes)))
    facts += [("folds", len(report.folds)), ("failed clips", len(report.failures))]
    return [*facts, ("model", report.model or "unknown"), ("date", report.made or "unknown")]


def _retrained_words(report: Report) -> str:
    if report.retrained is None:
        return ""
    return (
        f"If models were trained anew on other groups of this number, the 95 % interval of "
        f"{metric_name(report.metric)} is {_span(report.retrained)} (an approximation that tends "
        "to be too wide)."
    )


def _calibration_words(report: Report) -> str:
    """Say what was scaled by which temperature, in the mode at hand."""
    soft = _SOFT_CALIBRATION if report.baselines else ""
    if not report.fitted:
        return soft + (
            "Nothing was fitted on these clips: “scaled” divides by the temperature that the head "
            "learned when it was trained."
        )
    return soft + (
        "“Scaled” divides each fold's logits by a temperature learned on its inner folds. The "
        "head's own temperature, for new clips, is learned from all out-of-fold outputs."
    )


def _mistaken(report: Report) -> str:
    if report.classes:
        wrong = int((report.truth != report.prediction).sum())
        return f"{wrong} of {len(report.ids)} {report.unit} were taken for another class"
    return f"The {report.unit} with the largest errors"


def _warnings(report: Report) -> list[str]:
    """List the run's own warnings, and how many clips are missing from every figure."""
    warnings = list(report.warnings)
    if report.failures:
        kinds = Counter(str(failure.get("kind", "unknown")) for failure in report.failures)
        listed = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common())
        count = len(report.failures)
        clips = "1 clip has" if count == 1 else f"{count} clips have"
        missing = "is" if count == 1 else "are"
        warnings.append(f"{clips} no features and {missing} in no figure here: {listed}.")
    return warnings


def _class_rows(report: Report) -> list[tuple[Any, ...]]:
    """Name, clips, recall, precision and the most frequent confusion of each class."""
    rows: list[tuple[Any, ...]] = []
    counts = report.confusion
    if counts is None:
        return rows
    for index, name in enumerate(report.classes):
        clips, predicted, right = counts[index].sum(), counts[:, index].sum(), counts[index, index]
        others = counts[index].copy()
        others[index] = 0
        worst = int(others.argmax())
        mistaken = f"{report.classes[worst]} ({others[worst]})" if others[worst] else "—"
        interval = report.metrics.get(f"recall {name}")
        recall = _number(right / clips) if clips else "—"
        if interval is not None:
            recall += f" ({interval.low:.2f}, {interval.high:.2f})"
        precision = _number(right / predicted) if predicted else "—"
        rows.append((name, clips, recall, precision, mistaken))
    return rows


def _layer_words(curve: LayerCurve) -> str:
    folds = sum(curve.chosen.values())
    often = sorted(curve.chosen, key=lambda layer: -curve.chosen[layer])
    counts = ", ".join(f"layer {layer} in {curve.chosen[layer]}" for layer in often)
    words = f"Each fold used the layer that its inner folds chose: {counts} of {folds} folds"
    if curve.weighted is not None:
        words += (
            f". A learned weighting over all layers scores {_number(curve.weighted.value)} "
            f"({_span(curve.weighted)})"
        )
    top = int(np.nanargmax(curve.mean))
    return (
        f"{words}. The curve describes the layers and chooses none: its highest point, layer "
        f"{curve.layers[top]}, was found on the tested clips, and its score is too high for it."
    )


def _layer_rows(curve: LayerCurve) -> list[tuple[int, str, str]]:
    columns = zip(curve.layers, curve.mean, curve.low, curve.high, strict=True)
    return [
        (layer, _number(mean), f"{_number(low)} to {_number(high)}")
        for layer, mean, low, high in columns
    ]


def _group_words(report: Report) -> str:
    scores = report.group_scores
    defined = np.array([group.score for group in scores if np.isfinite(group.score)])
    if not len(defined):
        return "No group has clips enough for a score of its own."
    low, middle, high = np.quantile(defined, [0, 0.5, 1])
    words = (
        f"Worst {_number(low)}, median {_number(middle)}, best {_number(high)}; in brackets the "
        "number of clips. "
    )
    if report.classes:
        words += "A group's score covers the classes it has. "
    words += "With few clips it scatters by chance alone."
    undefined = len(scores) - len(defined)
    return f"{words} {undefined} without a defined score are left out." if undefined else words


def _fold_rows(report: Report) -> list[tuple[Any, ...]]:
    rows = []
    for fold in report.folds:
        groups = [str(name) for name in fold.get("test_groups", ())]
        held_out = ", ".join(groups[:_LISTED_GROUPS])
        if len(groups) > _LISTED_GROUPS:
            held_out += f" and {len(groups) - _LISTED_GROUPS} more"
        chosen = setting_words(fold.get("chosen", {}))
        score = fold.get(report.metric)
        rows.append((fold.get("name", ""), held_out, fold.get("train_clips", ""),
                     fold.get("test_clips", ""), _number(score), chosen))  # fmt: skip
    return rows


def _reproduce_rows(report: Report) -> list[tuple[str, Any]]:
    """Seed, versions and whatever else belongs to the run, one row each."""
    rows: list[tuple[str, Any]] = []
    for key, value in report.reproduce.items():
        if isinstance(value, Mapping) and key != "fingerprint":
            rows.extend((str(name), item) for name, item in value.items())
        elif key not in ("command", "fingerprint"):
            rows.append((str(key), value))
    return rows


def _number(value: float | None) -> str:
    """Three decimals, or a dash where there is no number."""
    return "—" if value is None or not np.isfinite(value) else f"{value:.3f}"


def _span(interval: Interval) -> str:
    return f"{_number(interval.low)} to {_number(interval.high)}"
