"""Outputs of models (logits or values) against labels: predictions, scores, temperatures."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from .labels import Labels
from .metrics import (
    concordance,
    confusion_matrix,
    fit_temperature,
    softmax,
    unweighted_average_recall,
)
from .splits import Fold

CHOSEN_INSIDE = "chosen inside the training part of each fold, never by a tested clip"
SAME = 1e-9  # scores closer than this are a tie


def predicted(labels: Labels, outputs: np.ndarray) -> np.ndarray:
    """Return class indices or values (N,) of outputs (N, C)."""
    if labels.task == "regression":
        return outputs[:, 0].astype(np.float64)
    return outputs.argmax(axis=1)


def main_score(labels: Labels, rows: np.ndarray, outputs: np.ndarray) -> float:
    """Return the UAR or CCC of outputs (n, C) for the clips at ``rows`` (n,)."""
    truth, guess = labels.values[rows], predicted(labels, outputs)
    if labels.task == "regression":
        return concordance(truth, guess)
    return float(unweighted_average_recall(confusion_matrix(truth, guess, len(labels.classes))))


def loss(labels: Labels, rows: np.ndarray, outputs: np.ndarray) -> float:
    """Return the log loss, every class counting alike, or the squared error."""
    truth = labels.values[rows]
    if labels.task == "regression":
        return float(((outputs[:, 0] - truth) ** 2).mean())
    chosen = softmax(outputs.astype(np.float64))[np.arange(len(truth)), truth]
    losses = -np.log(np.maximum(chosen, 1e-12))
    return float(np.mean([losses[truth == name].mean() for name in np.unique(truth)]))


def best_of(scores: npt.ArrayLike, losses: npt.ArrayLike) -> int:
    """Return the position of the best score; of several alike, the one with the least loss.

    Where a task is easy many choices score the same, and the first one would win by its place.
    """
    values = np.asarray(scores)
    tied = np.flatnonzero(values >= values.max() - SAME)
    return int(tied[np.asarray(losses)[tied].argmin()])


def fold_temperature(labels: Labels, fold: Fold, inner_outputs: np.ndarray) -> float:
    """Return the temperature for a fold, from outputs (N, C) of its inner folds' held clips."""
    if labels.task == "regression":
        return 1.0
    held = np.concatenate([inner.held for inner in fold.inner])
    return fit_temperature(inner_outputs[held], labels.values[held])
