"""What one evaluation hands over to be reported, and what follows from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, is_dataclass
from typing import Any, Literal

import numpy as np

from ..evaluation.metrics import Interval, concordance, confusion_matrix, unweighted_average_recall

_NAMES = {
    "uar": "UAR",
    "accuracy": "Accuracy",
    "macro_f1": "Macro F1",
    "ccc": "CCC",
    "pearson": "Pearson r",
    "mae": "Mean absolute error",
}


@dataclass(frozen=True, kw_only=True)
class LayerCurve:
    """The score of one linear probe per layer, and of a weighting over all layers.

    ``mean``, ``low`` and ``high`` are (L,), in the order of ``layers`` (hidden-state ids);
    ``best`` is the id that does best in the inner folds.
    """

    layers: tuple[int, ...]
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray
    best: int
    weighted: Interval | None = None


@dataclass(frozen=True, kw_only=True)
class HeadComparison:
    """The main figure minus that of another head on the same clips."""

    against: str
    difference: Interval
    p_value: float


@dataclass(frozen=True, kw_only=True)
class Report:
    """Everything that one evaluation found, each clip predicted once, out of its fold.

    ``truth`` and ``prediction`` are (N,) class indices, or (N,) floats for regression, where
    ``classes`` is empty. ``probabilities`` is (N, C), before temperature scaling.
    """

    title: str
    task: Literal["classification", "regression"]
    target: str
    ids: np.ndarray
    groups: np.ndarray
    truth: np.ndarray
    prediction: np.ndarray
    metrics: Mapping[str, Interval]  # "uar" first for classification, "ccc" for regression
    protocol: str  # in words
    classes: tuple[str, ...] = ()
    probabilities: np.ndarray | None = None
    # each: name, test_groups (list), train_clips, test_clips, chosen (dict), uar or ccc
    folds: Sequence[Mapping[str, Any]] = ()
    layer_curve: LayerCurve | None = None
    comparison: HeadComparison | None = None
    map_points: np.ndarray | None = None  # (N, 2), principal components of the features used
    # temperature (of all clips), ece, brier, and after scaling each fold by the temperature of
    # its inner folds: ece_scaled, brier_scaled
    calibration: Mapping[str, float] = field(default_factory=dict)
    warnings: Sequence[str] = ()
    failures: Sequence[Mapping[str, Any]] = ()  # of the store, each: id, file, kind, reason
    # command, seed, versions (dict), fingerprint (dict)
    reproduce: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class GroupScore:
    """The main score of one group (speaker) of clips; NaN where it is not defined."""

    name: str
    clips: int
    score: float


def metric_name(key: str) -> str:
    """``macro_f1`` as people write it."""
    return _NAMES.get(key, key)


def comparison_words(report: Report) -> str:
    """How the other head fares on the same clips; nothing without one."""
    found = report.comparison
    if found is None:
        return ""
    gap = found.difference
    certain = "" if gap.low > 0 or gap.high < 0 else ", so it may be chance"
    return (
        f"On the same clips, {metric_name(next(iter(report.metrics)))} is {abs(gap.value):.3f} "
        f"{'lower' if gap.value < 0 else 'higher'} than that of {found.against}: the difference "
        f"has a 95 % interval from {gap.low:.3f} to {gap.high:.3f} and p = {found.p_value:.3f}"
        f"{certain}."
    )


def group_scores(report: Report) -> list[GroupScore]:
    """The main score of each group by itself, in order of name."""
    scores = []
    for name in np.unique(report.groups):
        chosen = report.groups == name
        truth, prediction = report.truth[chosen], report.prediction[chosen]
        if report.classes:
            counts = confusion_matrix(truth, prediction, len(report.classes))
            score = float(unweighted_average_recall(counts))
        else:
            varied = len(np.unique(truth)) > 1  # a correlation needs something to follow
            score = concordance(truth, prediction) if varied else float("nan")
        scores.append(GroupScore(name=str(name), clips=int(chosen.sum()), score=score))
    return scores


def confusion_counts(report: Report) -> np.ndarray:
    """(C, C) clips, truth by prediction."""
    return confusion_matrix(report.truth, report.prediction, len(report.classes))


def is_grouped(report: Report) -> bool:
    """Whether groups hold clips together; without speakers each clip is its own."""
    return len(np.unique(report.groups)) < len(report.groups)


def chance_level(report: Report) -> float | None:
    """UAR of guessing; none for regression."""
    return 1 / len(np.unique(report.truth)) if report.classes else None


def plain(value: Any) -> Any:
    """The same as strict JSON data: no numpy, no NaN."""
    if is_dataclass(value):
        value = vars(value)
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float):
        return value if np.isfinite(value) else None
    return value if isinstance(value, str | int | None) else str(value)
