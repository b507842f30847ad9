"""Figures of merit: recall and its kin, concordance, calibration; numpy only.

UAR, accuracy and macro-F1 are functions of a confusion matrix, CCC, Pearson and MAE of sums of
moments; both add up over clips, which is what makes the intervals in ``intervals`` cheap.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ..errors import UsageError
from ..records import Interval as Interval

TEMPERATURES = (0.01, 100.0)  # between them one is sought
CALIBRATION_BINS = 15  # what most published ECE figures use

Statistic = Callable[[np.ndarray], np.ndarray]  # sums (..., S) -> figure (...)


def validate_classes(truth: np.ndarray, prediction: np.ndarray, classes: int) -> None:
    """Raise UsageError unless both are (N,) class indices below ``classes``, N > 0."""
    _validate_pair(truth, prediction)
    for name, values in (("truth", truth), ("prediction", prediction)):
        if values.dtype.kind not in "iu":
            raise UsageError(f"{name} has dtype {values.dtype}", expected="integer class indices")
        if values.min() < 0 or values.max() >= classes:
            raise UsageError(
                f"{name} holds indices from {values.min()} to {values.max()}",
                expected=f"0 to {classes - 1}",
            )


def validate_values(truth: np.ndarray, prediction: np.ndarray) -> None:
    """Raise UsageError unless both are (N,) finite numbers, N > 0."""
    _validate_pair(truth, prediction)
    for name, values in (("truth", truth), ("prediction", prediction)):
        if not np.isfinite(values).all():
            raise UsageError(f"{name} has {np.sum(~np.isfinite(values))} NaN or infinite values")


def _validate_probabilities(truth: np.ndarray, probabilities: np.ndarray) -> None:
    """Raise UsageError unless ``probabilities`` is (N, C), finite, non-negative, rows sum to 1."""
    if probabilities.ndim != 2 or len(probabilities) != len(truth):
        raise UsageError(
            f"probabilities have shape {probabilities.shape}", expected=f"({len(truth)}, classes)"
        )
    if not np.isfinite(probabilities).all() or (probabilities < 0).any():
        raise UsageError("probabilities hold negative, NaN or infinite values")
    if not np.allclose(probabilities.sum(axis=1), 1, atol=1e-3):
        raise UsageError("probabilities do not sum to 1 in every row")
    validate_classes(truth, truth, probabilities.shape[1])


def _validate_pair(truth: np.ndarray, prediction: np.ndarray) -> None:
    if truth.ndim != 1 or truth.shape != prediction.shape:
        raise UsageError(
            f"truth has shape {truth.shape}, prediction {prediction.shape}",
            expected="two arrays of one shape (N,)",
        )
    if not len(truth):
        raise UsageError("no clips to score", expected="at least one")


def confusion_matrix(truth: np.ndarray, prediction: np.ndarray, classes: int) -> np.ndarray:
    """Count (C, C): rows are the true classes, columns the predicted ones."""
    validate_classes(truth, prediction, classes)
    cells = np.bincount(truth * classes + prediction, minlength=classes * classes)
    return cells.reshape(classes, classes)


def class_recalls(confusion: np.ndarray) -> np.ndarray:
    """Recall of each class (..., C) from (..., C, C); NaN where the class has no clip."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.diagonal(confusion, axis1=-2, axis2=-1) / confusion.sum(axis=-1)


def absent_classes(truth: np.ndarray, classes: Sequence[str]) -> tuple[str, ...]:
    """Names of the classes that no clip has; UAR and macro-F1 leave them out."""
    present = set(np.unique(truth).tolist())
    return tuple(name for index, name in enumerate(classes) if index not in present)


def unweighted_average_recall(confusion: np.ndarray) -> np.ndarray:
    """UAR (...) from (..., C, C): the mean recall over the classes present in the truth."""
    return _mean_over_present(class_recalls(confusion), confusion)


def accuracy(confusion: np.ndarray) -> np.ndarray:
    """Share of clips on the diagonal."""
    return np.trace(confusion, axis1=-2, axis2=-1) / confusion.sum(axis=(-2, -1))


def macro_f1(confusion: np.ndarray) -> np.ndarray:
    """Mean F1 over the classes present in the truth."""
    hits = np.diagonal(confusion, axis1=-2, axis2=-1)
    size = confusion.sum(axis=-1) + confusion.sum(axis=-2)
    return _mean_over_present(2 * hits / np.maximum(size, 1), confusion)


def _mean_over_present(figures: np.ndarray, confusion: np.ndarray) -> np.ndarray:
    present = confusion.sum(axis=-1) > 0
    return np.where(present, figures, 0).sum(axis=-1) / present.sum(axis=-1)


def moments(truth: np.ndarray, prediction: np.ndarray) -> np.ndarray:
    """Compute the sums (N, 7) that Pearson, CCC and MAE are made of.

    Both are shifted by the same constant, which changes none of the three but keeps the
    squares small, so that differences of large sums lose no digits.
    """
    shift = truth.mean()
    truth, prediction = truth - shift, prediction - shift
    parts = [np.ones_like(truth), truth, prediction, truth**2, prediction**2]
    return np.stack([*parts, truth * prediction, np.abs(truth - prediction)], axis=1)


def _covariances(sums: np.ndarray) -> tuple[np.ndarray, ...]:
    clips, truth, prediction, truth2, prediction2, product, _ = np.moveaxis(sums, -1, 0)
    mean_truth, mean_prediction = truth / clips, prediction / clips
    return (
        np.maximum(truth2 / clips - mean_truth**2, 0),
        np.maximum(prediction2 / clips - mean_prediction**2, 0),
        product / clips - mean_truth * mean_prediction,
        mean_truth - mean_prediction,
    )


def _ccc(sums: np.ndarray) -> np.ndarray:
    variance_truth, variance_prediction, covariance, bias = _covariances(sums)
    spread = variance_truth + variance_prediction + bias**2
    return _ratio(2 * covariance, spread)


def _mean_ccc(sums: np.ndarray) -> np.ndarray:
    """Mean over the targets of sums (..., T, 7)."""
    return _ccc(sums).mean(axis=-1)


def _pearson(sums: np.ndarray) -> np.ndarray:
    variance_truth, variance_prediction, covariance, _ = _covariances(sums)
    return _ratio(covariance, np.sqrt(variance_truth * variance_prediction))


def _mean_absolute_error(sums: np.ndarray) -> np.ndarray:
    return sums[..., 6] / sums[..., 0]


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """0 where the denominator vanishes: a constant prediction agrees with nothing."""
    tiny = 1e-12
    return np.where(denominator > tiny, numerator / np.maximum(denominator, tiny), 0.0)


def concordance(truth: np.ndarray, prediction: np.ndarray) -> float:
    """Concordance correlation coefficient (CCC); 0 when both are constant."""
    return _figure(_ccc, truth, prediction)


def mean_concordance(truth: np.ndarray, prediction: np.ndarray) -> float:
    """CCC of (N,) values, or its mean over the targets of (N, T); NaN is an unknown truth.

    Targets that no clip knows are left out.
    """
    pairs = zip(np.atleast_2d(truth.T), np.atleast_2d(prediction.T), strict=True)
    known = [(true, guess, np.isfinite(true)) for true, guess in pairs]
    return float(np.mean([concordance(true[k], guess[k]) for true, guess, k in known if k.any()]))


def pearson(truth: np.ndarray, prediction: np.ndarray) -> float:
    """Pearson correlation; 0 when either is constant."""
    return _figure(_pearson, truth, prediction)


def mean_absolute_error(truth: np.ndarray, prediction: np.ndarray) -> float:
    """Mean of the absolute differences."""
    return _figure(_mean_absolute_error, truth, prediction)


def _figure(statistic: Statistic, truth: np.ndarray, prediction: np.ndarray) -> float:
    validate_values(truth, prediction)
    return float(statistic(moments(truth.astype(float), prediction.astype(float)).sum(axis=0)))


def kl_divergences(shares: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Bits (N,) by which probabilities (N, C) miss shares (N, C): 0 where they are the same."""
    return _divergences(shares, np.maximum(probabilities, 1e-12))


def js_divergences(shares: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Jensen-Shannon divergence (N,) of shares and probabilities (N, C), from 0 to 1 bit."""
    middle = (shares + probabilities) / 2
    return (_divergences(shares, middle) + _divergences(probabilities, middle)) / 2


def _divergences(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    ratio = np.where(first > 0, first, 1.0) / np.where(first > 0, second, 1.0)
    return np.maximum((first * np.log2(ratio)).sum(axis=1), 0.0)


def brier_score(truth: np.ndarray, probabilities: np.ndarray) -> float:
    """Mean squared distance (0 to 2) between the probabilities and the one-hot truth."""
    _validate_probabilities(truth, probabilities)
    one_hot = np.eye(probabilities.shape[1])[truth]
    return float(((probabilities - one_hot) ** 2).sum(axis=1).mean())


def calibration_bins(
    truth: np.ndarray, probabilities: np.ndarray, *, bins: int = CALIBRATION_BINS
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Clips, mean confidence and accuracy per bin of equal width, each (bins,).

    Confidence is the largest probability of a clip; empty bins hold NaN.
    """
    _validate_probabilities(truth, probabilities)
    confidence = probabilities.max(axis=1)
    index = np.minimum((confidence * bins).astype(int), bins - 1)
    clips = np.bincount(index, minlength=bins)
    hits = np.bincount(index, weights=probabilities.argmax(axis=1) == truth, minlength=bins)
    total = np.bincount(index, weights=confidence, minlength=bins)
    with np.errstate(invalid="ignore"):
        return clips, total / clips, hits / clips


def expected_calibration_error(
    truth: np.ndarray, probabilities: np.ndarray, *, bins: int = CALIBRATION_BINS
) -> float:
    """Mean gap between confidence and accuracy over the bins, weighted by their clips."""
    clips, confidence, hits = calibration_bins(truth, probabilities, bins=bins)
    filled = clips > 0
    gaps = np.abs(confidence[filled] - hits[filled])
    return float(np.sum(clips[filled] * gaps) / clips.sum())


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities (..., C) of logits (..., C)."""
    shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return shifted / shifted.sum(axis=-1, keepdims=True)


def fit_temperature(logits: np.ndarray, truth: np.ndarray) -> float:
    """Find the T that minimises the log loss of softmax(logits / T), within ``TEMPERATURES``.

    The loss is convex in 1/T, so its slope in 1/T changes sign once: bisection finds it.

    Parameters
    ----------
    logits
        (N, C).
    truth
        (N,) class indices, or (N, C) shares of the classes.
    """
    if truth.ndim == 1:
        validate_classes(truth, truth, logits.shape[1])
        truth = np.eye(logits.shape[1])[truth]
    chosen = (truth * logits).sum(axis=1)
    low, high = -np.log(TEMPERATURES[1]), -np.log(TEMPERATURES[0])  # of the inverse temperature
    for _ in range(50):
        middle = (low + high) / 2
        expected = (softmax(logits * np.exp(middle)) * logits).sum(axis=1)
        low, high = (middle, high) if (expected - chosen).mean() < 0 else (low, middle)
    return float(np.exp(-(low + high) / 2))


CLASSIFICATION: dict[str, Statistic] = {
    "uar": unweighted_average_recall,
    "accuracy": accuracy,
    "macro_f1": macro_f1,
}
REGRESSION: dict[str, Statistic] = {
    "ccc": _ccc,
    "pearson": _pearson,
    "mae": _mean_absolute_error,
}
SEVERAL: dict[str, Statistic] = {"mean_ccc": _mean_ccc}  # of several targets
