"""Standard errors of figures of merit when whole groups of clips are the sample; numpy and scipy.

Clips of one speaker are alike, so speakers are the sample: a figure is computed again without
each speaker in turn, and how much it changes gives its standard error. Every figure is a
function of sums over clips, so leaving a speaker out is one subtraction.

Three choices, each made by simulation (``tests/simulation.py`` prints what they give):

- t quantiles, since with few speakers the standard error itself is uncertain. Its scale and the
  degrees of freedom are those of Bell and McCaffrey (2002) for independent clips: one less than
  the number of speakers where all have the same clips, fewer where few hold most of a class.
- Wilson's interval (the score interval) for the number of independent clips that would vary as
  much: it stays inside the range of the figure and leans away from the range's ends.
- An interval of a share is never narrower than the 90 % one of independent clips; at 95 % those of
  few speakers would be too wide. Where nothing varies, as when every clip is right, clips are
  counted as independent: n of n right leave an error of about t**2/n.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit

from .metrics import Interval, Statistic, moments

LEVEL = 0.975  # of the upper end; the lower one mirrors it
NARROWEST = 1.645  # normal quantile of the 90 % interval of independent clips
AT_ONCE = 4096  # units left out at once, so that memory does not grow with their number
DUST = 1e-12  # a variance below this is rounding


@dataclass(frozen=True)
class Units:
    """What is left out one at a time, groups or clips.

    ``sums`` (U, ...) over the clips of each, ``counts`` (U,) of units alike, and ``sizes``
    (U, C), the clips of each class, or (U, 1) where classes do not matter.
    """

    sums: np.ndarray
    counts: np.ndarray
    sizes: np.ndarray

    def total(self) -> np.ndarray:
        """Sum (...) over all clips."""
        return np.tensordot(self.counts, self.sums, axes=1)

    def of_the_only(self) -> Units:
        """Give sums (U, ...) for the (U, 1, ...) that were taken of a single prediction."""
        (only,) = np.moveaxis(self.sums, 1, 0)
        return Units(only, self.counts, self.sizes)


@dataclass(frozen=True)
class Spread:
    """A figure, its variance, that variance's degrees of freedom, and the clips it rests on."""

    value: float
    variance: float
    freedom: float
    clips: float

    @property
    def quantile(self) -> float:
        """How many standard errors reach from the value to either end."""
        return float(stdtrit(self.freedom, LEVEL))

    @property
    def still(self) -> bool:
        """Nothing varied, so that the variance says nothing."""
        return self.variance <= DUST


def jackknife(units: Units, statistic: Statistic) -> Spread:
    """Compute the figure of all clips, and how it varies when each unit in turn is left out."""
    whole, sizes = units.total(), units.counts @ units.sizes
    value = float(statistic(whole))
    scale, freedom = _reference(units)
    variance = 0.0
    if scale > 0:
        parts = np.array_split(units.sums, 1 + len(units.sums) // AT_ONCE)
        without = np.concatenate([statistic(whole - part) for part in parts])
        variance = float(scale * (units.counts @ (without - value) ** 2))
    sizes = sizes[sizes > 0]
    clips = float(len(sizes) ** 2 / (1 / sizes).sum())
    return Spread(value=value, variance=variance, freedom=freedom, clips=clips)


def _reference(units: Units) -> tuple[float, float]:
    """Scale of the sum of squared changes, and degrees of freedom, as for independent clips.

    A mean over classes of means over clips changes by a linear form in the units' means, so the
    sum of squares is a quadratic form. The scale makes its mean the variance of the figure, the
    degrees are those of the chi-square with its first two moments (Bell and McCaffrey 2002):
    (G - 1) / G and G - 1 where G groups have the same clips.
    """
    counts, whole = units.counts, units.counts @ units.sizes
    sizes, whole = units.sizes[:, whole > 0], whole[whole > 0]
    leverage = sizes / np.maximum(whole - sizes, 1)
    leverage[sizes == whole] = 0  # nothing is left without it, so it says nothing of variation
    own = (leverage**2 / np.maximum(sizes, 1)).sum(axis=1)
    shared = (leverage**2 / whole).sum(axis=1)
    cross = (leverage * counts[:, None]).T @ leverage
    trace = counts @ (own - shared)
    square = counts @ (own**2 - 2 * own * shared) + (cross**2 / np.outer(whole, whole)).sum()
    if trace <= 0:  # a single clip
        return 0.0, 1.0
    return float((1 / whole).sum() / trace), max(1.0, float(trace**2 / square))


def confusion_units(
    truth: np.ndarray,
    predictions: np.ndarray,
    classes: int,
    index: np.ndarray,
    alone: np.ndarray,
) -> Units:
    """Confusions (U, P, C, C) of P predictions, of each group and of the clips that stand alone.

    Parameters
    ----------
    truth, predictions
        (N,) and (P, N) class indices, P one or two.
    index
        (N,) group of each clip.
    alone
        (N,) True for clips that are units of their own; those alike are kept once.
    """
    size = classes * classes
    cells = truth * classes + predictions
    apart = cells[:, alone]
    _, first, counts = np.unique(apart[0] * size + apart[-1], return_index=True, return_counts=True)
    single = np.eye(size)[apart[:, first]].swapaxes(0, 1)
    names, group = np.unique(index[~alone], return_inverse=True)
    rows = group * size + cells[:, ~alone]
    together = np.stack([np.bincount(row, minlength=len(names) * size) for row in rows])
    grouped = together.reshape(len(cells), len(names), size).swapaxes(0, 1)
    sums = np.concatenate([grouped, single]).reshape(-1, len(cells), classes, classes)
    return Units(
        sums=sums,
        counts=np.concatenate([np.ones(len(names)), counts]),
        sizes=sums[:, 0].sum(axis=-1),
    )


def moment_units(truth: np.ndarray, predictions: np.ndarray, index: np.ndarray) -> Units:
    """Moments (U, P, 7) of (N,) values and predictions (P, N), summed over each group.

    Of several targets, values (N, T) and predictions (P, N, T), they are (U, P, T, 7); a value
    that is NaN is in no sum of its target.
    """
    length = index.max() + 1
    if truth.ndim == 1:
        return _moments_of_one(truth, predictions, index, length)
    targets = []
    for position in range(truth.shape[1]):
        known = np.isfinite(truth[:, position])
        guesses = predictions[:, known, position]
        targets.append(_moments_of_one(truth[known, position], guesses, index[known], length))
    return Units(
        sums=np.stack([units.sums for units in targets], axis=2),
        counts=np.ones(length),
        sizes=np.concatenate([units.sizes for units in targets], axis=1),
    )


def _moments_of_one(
    truth: np.ndarray, predictions: np.ndarray, index: np.ndarray, length: int
) -> Units:
    each = np.stack([moments(truth, prediction) for prediction in predictions])
    columns = each.transpose(0, 2, 1).reshape(-1, len(truth))
    sums = [np.bincount(index, weights=column, minlength=length) for column in columns]
    together = np.stack(sums, axis=1).reshape(length, len(predictions), -1)
    return Units(sums=together, counts=np.ones(length), sizes=together[:, 0, :1])


def keeping_classes(statistic: Statistic, whole: np.ndarray) -> Statistic:
    """Let a class whose last clip is left out keep it: the figure stays the same quantity."""

    def kept(confusion: np.ndarray) -> np.ndarray:
        there = confusion.sum(axis=-1, keepdims=True) > 0
        return statistic(np.where(there, confusion, whole))

    return kept


def keeping_targets(statistic: Statistic, whole: np.ndarray) -> Statistic:
    """Do the same for a target (..., T, 7) whose last clip is left out."""

    def kept(sums: np.ndarray) -> np.ndarray:
        return statistic(np.where(sums[..., :1] > 0, sums, whole))

    return kept


def share_interval(spread: Spread, retraining: float) -> Interval:
    """Of a figure between 0 and 1."""
    value = min(max(spread.value, 0.0), 1.0)  # rounding may lead outside
    clips, quantile = spread.clips, spread.quantile
    if not spread.still:
        most = clips * (quantile / NARROWEST) ** 2
        clips = min(most, value * (1 - value) / spread.variance)
    low, high = _wilson(value, clips / (1 + retraining), quantile)
    return Interval(value=value, low=low, high=high)


def coefficient_interval(spread: Spread, retraining: float) -> Interval:
    """Of a figure between -1 and 1, as of the share (1 + figure) / 2."""
    value = min(max(spread.value, -1.0), 1.0)  # rounding may lead outside
    clips = spread.clips if spread.still else (1 - value**2) / spread.variance
    low, high = _wilson((1 + value) / 2, clips / (1 + retraining), spread.quantile)
    return Interval(value=value, low=2 * low - 1, high=2 * high - 1)


def error_interval(spread: Spread, retraining: float, largest: float) -> Interval:
    """Of a mean absolute error, by equal factors up and down.

    Where all errors are the same, some next clips may have another, which is taken to be
    ``largest``.
    """
    if spread.variance <= DUST * largest**2:
        reach = largest * _wilson(0.0, spread.clips / (1 + retraining), spread.quantile)[1]
        low, high = max(0.0, spread.value - reach), spread.value + reach
    else:
        relative = math.sqrt(spread.variance * (1 + retraining)) / spread.value
        factor = math.exp(spread.quantile * relative)
        low, high = spread.value / factor, spread.value * factor
    return Interval(value=spread.value, low=low, high=high)


def difference_interval(spread: Spread, retraining: float, limit: float) -> Interval:
    """Of a difference between -limit and limit."""
    reach = spread.quantile * math.sqrt(spread.variance * (1 + retraining))
    low, high = max(-limit, spread.value - reach), min(limit, spread.value + reach)
    return Interval(value=spread.value, low=low, high=high)


def _wilson(share: float, clips: float, quantile: float) -> tuple[float, float]:
    """Wilson's interval of a share among so many independent clips."""
    square = quantile**2
    centre = share * clips + square / 2
    reach = quantile * math.sqrt(share * (1 - share) * clips + square / 4)
    low, high = (centre - reach) / (clips + square), (centre + reach) / (clips + square)
    return max(0.0, min(low, share)), min(1.0, max(high, share))
