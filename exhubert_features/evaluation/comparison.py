"""Is one of two predictions of the same clips better? Paired intervals and tests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtr

from ..errors import UsageError
from .intervals import LEAST_GROUPS, Basis, unit_index
from .jackknife import (
    DUST,
    Spread,
    Units,
    confusion_units,
    difference_interval,
    jackknife,
    keeping_classes,
    keeping_targets,
    moment_units,
)
from .metrics import (
    CLASSIFICATION,
    REGRESSION,
    SEVERAL,
    Interval,
    Statistic,
    validate_classes,
    validate_values,
)

EXACT = 14  # up to so many groups, all 2**13 ways of swapping are tried
DRAWS = 9999  # beyond, as many at random: a p-value of .05 then has a standard error of .002
BLOCKS = 200  # more groups than this are swapped in so many blocks, which costs no power
LIMITS = {
    "ccc": 2.0,
    "mean_ccc": 2.0,
    "pearson": 2.0,
    "mae": np.inf,
}  # of differences; 1 for shares


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """First minus second prediction on the same clips."""

    metric: str
    difference: Interval
    p_value: float | None  # two-sided; None where nothing can be tested
    note: str  # what was tested, or why nothing was
    basis: Basis


def compare(
    truth: np.ndarray,
    first: np.ndarray,
    second: np.ndarray,
    *,
    groups: np.ndarray | None,
    metric: str = "uar",
    class_count: int = 0,
    retraining: float = 0.0,
) -> Comparison:
    """Compare two predictions of the same clips; what clips and speakers share cancels.

    Two given models are compared by swapping their predictions group by group: were neither
    better, each way of swapping would be as likely. Two ways of training are compared by a t
    test whose variance allows for training anew.

    Parameters
    ----------
    truth, first, second
        (N,) class indices with ``class_count`` set, else values; (N, T) of several targets, NaN
        where the truth is unknown.
    groups
        (N,) speaker of each clip; None where unknown.
    metric
        A key of ``metrics.CLASSIFICATION``, ``metrics.REGRESSION`` or ``metrics.SEVERAL``.
    retraining
        0 to compare these trained models; ``retraining_share`` of their folds to compare the
        ways they were trained.
    """
    known = CLASSIFICATION if class_count else REGRESSION if truth.ndim == 1 else SEVERAL
    if metric not in known:
        raise UsageError(f"metric is {metric!r}", expected=f"one of {', '.join(known)}")
    for prediction in (first, second):
        if class_count:
            validate_classes(truth, prediction, class_count)
        elif truth.ndim == 1:
            validate_values(truth, prediction)
    index, basis = unit_index(groups, len(truth))
    pair = np.stack([first, second])
    spread = jackknife(*_differences(truth, pair, index, basis, metric, class_count))
    count = 1 if groups is not None and len(np.unique(groups)) == 1 else basis.count
    p_value = None
    if count >= LEAST_GROUPS:
        if retraining:
            p_value = _t_test(spread, retraining, count)
        else:
            blocks = _blocks(index, basis, truth, pair)
            p_value = _swap_test(_sums(truth, pair, blocks, class_count), known[metric])
    return Comparison(
        metric=metric,
        difference=difference_interval(spread, retraining, LIMITS.get(metric, 1.0)),
        p_value=p_value,
        note=_note(count, basis, retraining),
        basis=basis,
    )


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """P-values corrected for being several (Holm 1979); None stays None and is not counted.

    The chance of any false finding among them then stays below the level.
    """
    tested = sorted((value, place) for place, value in enumerate(p_values) if value is not None)
    corrected: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for rank, (value, place) in enumerate(tested):
        largest = max(largest, (len(tested) - rank) * value)
        corrected[place] = min(1.0, largest)
    return corrected


def _differences(
    truth: np.ndarray,
    pair: np.ndarray,
    index: np.ndarray,
    basis: Basis,
    metric: str,
    classes: int,
) -> tuple[Units, Statistic]:
    """Units with sums (U, 2, ...) and the statistic of their difference."""
    statistic = {**CLASSIFICATION, **REGRESSION, **SEVERAL}[metric]
    if not classes:
        units = moment_units(truth.astype(float), pair.astype(float), index)
        if truth.ndim == 1:
            return units, _gap(statistic)
        return units, keeping_targets(_gap(statistic), units.total())
    alone = np.full(len(truth), basis.unit == "clip")
    units = confusion_units(truth, pair, classes, index, alone)
    if metric == "accuracy":
        sizes = units.sizes.sum(axis=1, keepdims=True)
        return Units(units.sums, units.counts, sizes), _gap(statistic)
    return units, keeping_classes(_gap(statistic), units.total())


def _gap(statistic: Statistic) -> Statistic:
    def gap(sums: np.ndarray) -> np.ndarray:
        both = statistic(sums)
        return both[..., 0] - both[..., 1]

    return gap


def _sums(truth: np.ndarray, pair: np.ndarray, index: np.ndarray, classes: int) -> np.ndarray:
    if not classes:
        return moment_units(truth.astype(float), pair.astype(float), index).sums
    none = np.zeros(len(truth), dtype=bool)
    return confusion_units(truth, pair, classes, index, none).sums


def _swap_test(sums: np.ndarray, statistic: Statistic) -> float:
    """Share of the ways of swapping the two in each group, sums (G, 2, ...), that part them more.

    Exact for up to EXACT groups; the way found is always counted.
    """
    count = len(sums)
    if count <= EXACT:
        ways = 2 ** (count - 1)  # of two mirror images one
        signs = 1 - 2.0 * (np.arange(ways)[:, None] >> np.arange(count) & 1)
    else:
        signs = np.random.default_rng(0).choice((-1.0, 1.0), size=(1 + DRAWS, count))
        signs[0] = 1
    middle = sums.sum(axis=(0, 1)) / 2
    moved = np.tensordot(signs, sums[:, 0] - sums[:, 1], axes=1) / 2
    gaps = np.abs(statistic(middle + moved) - statistic(middle - moved))
    return float(np.mean(gaps >= gaps[0] - 1e-9))  # ties count, through rounding too


def _blocks(index: np.ndarray, basis: Basis, truth: np.ndarray, pair: np.ndarray) -> np.ndarray:
    """(N,) block of each clip: its group, or many groups dealt into BLOCKS at random.

    Clips that are their own groups have no order of their own: they are sorted by content, so
    that the result does not depend on the order they came in.
    """
    if basis.count <= BLOCKS:
        return index
    if basis.unit == "clip":
        index = np.empty(len(truth), dtype=int)
        keys = np.column_stack([pair[1], pair[0], truth]).T
        index[np.lexsort(keys)] = np.arange(len(truth))
    return np.random.default_rng(0).permutation(basis.count)[index] % BLOCKS


def _t_test(spread: Spread, retraining: float, count: int) -> float:
    if spread.variance <= DUST:  # every group says the same: as likely as equal signs
        return 1.0 if abs(spread.value) <= DUST else 2.0 ** (1 - min(count, 50))
    error = np.sqrt(spread.variance * (1 + retraining))
    return float(2 * stdtr(spread.freedom, -abs(spread.value) / error))


def _note(count: int, basis: Basis, retraining: float) -> str:
    units, smallest = f"{count} {basis.unit}s", 2.0 ** (1 - min(count, 50))
    if count == 1:
        return "No p-value: one group says nothing of others."
    if count < LEAST_GROUPS:
        return (
            f"No p-value: even if neither were better, all {units} would favour the same one with "
            f"a chance of {smallest:g}; at least {LEAST_GROUPS} are needed."
        )
    if retraining:
        return (
            f"t test over {units}, the variance multiplied by {1 + retraining:.2f} for training "
            "anew (Nadeau and Bengio 2003): it compares the two ways of training."
        )
    ways = f"all {2**count}" if count <= EXACT else f"{DRAWS} random"
    within = f"{BLOCKS} random blocks of the {units}" if count > BLOCKS else f"each of {units}"
    note = (
        f"Permutation test over {ways} ways of swapping the two predictions within {within}: "
        "it compares these trained models, not the ways they were trained."
    )
    if smallest > 0.01:
        note += f" With {units} p cannot fall below {smallest:g}."
    return note
