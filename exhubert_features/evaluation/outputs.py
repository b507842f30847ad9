"""Outputs of models (logits or values) against labels: predictions, scores, temperatures."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from .labels import Labels
from .metrics import (
    confusion_matrix,
    fit_temperature,
    mean_concordance,
    softmax,
    unweighted_average_recall,
)
from .splits import Fold

CHOSEN_INSIDE = "chosen inside the training part of each fold, never by a tested clip"
SAME = 1e-9  # scores closer than this are a tie


def predicted(labels: Labels, outputs: np.ndarray) -> np.ndarray:
    """Return class indices or values (N,), or values (N, T), of outputs (N, C)."""
    if labels.task == "regression":
        values = outputs.astype(np.float64)
        return values if labels.values.ndim == 2 else values[:, 0]
    return outputs.argmax(axis=1)


def main_score(labels: Labels, rows: np.ndarray, outputs: np.ndarray) -> float:
    """Return the UAR or (mean) CCC of outputs (n, C) for the clips at ``rows`` (n,).

    NaN where none of them has one class ahead of the others.
    """
    truth, guess = labels.values[rows], predicted(labels, outputs)
    if labels.task == "regression":
        return mean_concordance(truth, guess)
    one = labels.decided[rows]
    if not one.any():
        return float("nan")
    counts = confusion_matrix(truth[one], guess[one], len(labels.classes))
    return float(unweighted_average_recall(counts))


def loss(labels: Labels, rows: np.ndarray, outputs: np.ndarray) -> float:
    """Return the log loss, every class counting alike, or the squared error in deviations."""
    wanted = labels.wanted[rows].astype(np.float64)
    if labels.task == "regression":
        variance = np.nanvar(wanted, axis=0)
        errors = (outputs - wanted) ** 2 / np.maximum(variance, 1e-12)
        return float(np.nanmean(errors))
    losses = -wanted * np.log(np.maximum(softmax(outputs.astype(np.float64)), 1e-12))
    clips = wanted.sum(axis=0)
    return float((losses.sum(axis=0)[clips > 0] / clips[clips > 0]).mean())


def best_of(scores: npt.ArrayLike, losses: npt.ArrayLike) -> int:
    """Return the position of the best score; of several alike, the one with the least loss.

    Where a task is easy many choices score the same, and the first one would win by its place.
    """
    values = np.nan_to_num(np.asarray(scores), nan=-np.inf)
    tied = np.flatnonzero(values >= values.max() - SAME)
    return int(tied[np.asarray(losses)[tied].argmin()])


def fold_temperature(labels: Labels, fold: Fold, inner_outputs: np.ndarray) -> float:
    """Return the temperature for a fold, from outputs (N, C) of its inner folds' held clips."""
    if labels.task == "regression":
        return 1.0
    held = np.concatenate([inner.held for inner in fold.inner])
    return fit_temperature(inner_outputs[held], labels.wanted[held])
