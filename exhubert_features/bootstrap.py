"""Speaker-clustered bootstrap: 95 % intervals and paired comparisons; numpy only.

The bootstrap draws speakers, not clips: clips of one speaker are not independent, and an
interval over clips would be too narrow. Every figure is a function of sums over clips, so one
draw costs one small product over per-speaker sums, whatever the number of clips.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .errors import UsageError
from .evaluation.metrics import (
    CLASSIFICATION,
    REGRESSION,
    Interval,
    class_recalls,
    moments,
    validate_classes,
    validate_values,
)

RESAMPLES = 2000  # the ends of a 95 % interval then rest on 50 draws each
FEW_GROUPS = 8  # below this, an interval over speakers is only a rough guide


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """First head minus second head on the same clips."""

    metric: str
    difference: Interval
    p_value: float  # two-sided, from the clustered bootstrap


def classification_metrics(
    truth: np.ndarray,
    prediction: np.ndarray,
    *,
    classes: Sequence[str],
    groups: np.ndarray,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, Interval]:
    """``uar`` first, then accuracy, macro-F1 and ``recall <class>`` of each class present.

    Parameters
    ----------
    truth, prediction
        (N,) class indices.
    groups
        (N,) speaker (or session) of each clip: what the bootstrap draws. Where there is only
        one, clips are drawn.
    """
    sums = _confusions(truth, prediction, len(classes), groups)
    whole, drawn = sums.sum(axis=0), _drawn(sums, resamples, seed)
    figures = {
        name: _interval(statistic(whole), statistic(drawn))
        for name, statistic in CLASSIFICATION.items()
    }
    recalls, drawn_recalls = class_recalls(whole), class_recalls(drawn)
    for position in np.flatnonzero(~np.isnan(recalls)).tolist():
        values = drawn_recalls[:, position]
        held = values[~np.isnan(values)]  # draws without this class say nothing about it
        figures[f"recall {classes[position]}"] = _interval(recalls[position], held)
    return figures


def regression_metrics(
    truth: np.ndarray,
    prediction: np.ndarray,
    *,
    groups: np.ndarray,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, Interval]:
    """``ccc`` first, then Pearson and MAE, of (N,) values; ``groups`` (N,) are drawn."""
    sums = _moment_sums(truth, prediction, groups)
    whole, drawn = sums.sum(axis=0), _drawn(sums, resamples, seed)
    return {
        name: _interval(statistic(whole), statistic(drawn))
        for name, statistic in REGRESSION.items()
    }


def compare(
    truth: np.ndarray,
    first: np.ndarray,
    second: np.ndarray,
    *,
    groups: np.ndarray,
    metric: str = "uar",
    classes: int = 0,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Comparison:
    """Is one head better than another on the same clips?

    Both heads are scored on the same drawn speakers, so what the speakers have in common
    cancels. The p-value is twice the share of draws on the far side of zero.

    Parameters
    ----------
    truth, first, second
        (N,) class indices with ``classes`` set, else values.
    groups
        (N,) speaker of each clip.
    metric
        A key of ``metrics.CLASSIFICATION`` or ``metrics.REGRESSION``.
    """
    known = CLASSIFICATION if classes else REGRESSION
    if metric not in known:
        raise UsageError(f"metric is {metric!r}", expected=f"one of {', '.join(known)}")
    figures, drawn = [], []
    for prediction in (first, second):
        if classes:
            sums = _confusions(truth, prediction, classes, groups)
        else:
            sums = _moment_sums(truth, prediction, groups)
        figures.append(float(known[metric](sums.sum(axis=0))))
        drawn.append(known[metric](_drawn(sums, resamples, seed)))
    gap = drawn[0] - drawn[1]
    far_side = min(np.sum(gap <= 0), np.sum(gap >= 0))
    return Comparison(
        metric=metric,
        difference=_interval(figures[0] - figures[1], gap),
        p_value=float(min(1.0, 2 * (far_side + 1) / (resamples + 1))),
    )


def _confusions(
    truth: np.ndarray, prediction: np.ndarray, classes: int, groups: np.ndarray
) -> np.ndarray:
    """Confusion matrix of each group, (G, C, C)."""
    validate_classes(truth, prediction, classes)
    index, count = _group_index(groups, len(truth))
    cells = (index * classes + truth) * classes + prediction
    sums = np.bincount(cells, minlength=count * classes * classes)
    return sums.reshape(count, classes, classes)


def _moment_sums(truth: np.ndarray, prediction: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Sums of the moments of each group, (G, 7)."""
    validate_values(truth, prediction)
    index, count = _group_index(groups, len(truth))
    sums = np.zeros((count, 7))
    np.add.at(sums, index, moments(truth.astype(float), prediction.astype(float)))
    return sums


def _group_index(groups: np.ndarray, clips: int) -> tuple[np.ndarray, int]:
    if groups.shape != (clips,):
        raise UsageError(f"groups have shape {groups.shape}", expected=f"({clips},)")
    names, index = np.unique(groups, return_inverse=True)
    if len(names) == 1:  # one speaker again and again would give an interval of no width
        return np.arange(clips), clips
    return index, len(names)


def _drawn(sums: np.ndarray, resamples: int, seed: int) -> np.ndarray:
    """Sums (R, ...) of each draw of G groups with replacement, from sums (G, ...)."""
    even = np.full(len(sums), 1 / len(sums))
    draws = np.random.default_rng(seed).multinomial(len(sums), even, size=resamples)
    return np.tensordot(draws, sums, axes=1)


def _interval(value: float | np.ndarray, drawn: np.ndarray) -> Interval:
    low, high = np.percentile(drawn, [2.5, 97.5])
    return Interval(value=float(value), low=float(low), high=float(high))
