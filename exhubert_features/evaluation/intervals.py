"""Figures of merit with 95 % intervals over speakers, and the words and warnings to them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from ..errors import UsageError
from .jackknife import (
    Units,
    coefficient_interval,
    confusion_units,
    error_interval,
    jackknife,
    keeping_classes,
    keeping_targets,
    moment_units,
    share_interval,
)
from .metrics import (
    CLASSIFICATION,
    REGRESSION,
    SEVERAL,
    Interval,
    Statistic,
    class_recalls,
    validate_classes,
    validate_values,
)

LEAST_GROUPS = 5  # below this no p-value can be small, and intervals are too wide to decide much


@dataclass(frozen=True, kw_only=True)
class Basis:
    """What is left out one at a time: groups, or clips where there are no two groups."""

    unit: Literal["group", "clip"]
    count: int


def basis_of(groups: np.ndarray | None, clips: int) -> Basis:
    """Tell what intervals rest on: clips where no group, one, or a group for each clip is known."""
    _, found = unit_index(groups, clips)
    return found


def unit_index(groups: np.ndarray | None, clips: int) -> tuple[np.ndarray, Basis]:
    """Give the number (N,) of the unit of each clip, in the order of the groups' names."""
    if groups is not None:
        if groups.shape != (clips,):
            raise UsageError(f"groups have shape {groups.shape}", expected=f"({clips},)")
        names, index = np.unique(groups, return_inverse=True)
        if 1 < len(names) < clips:
            return index, Basis(unit="group", count=len(names))
    return np.arange(clips), Basis(unit="clip", count=clips)


def classification_figures(
    truth: np.ndarray,
    prediction: np.ndarray,
    *,
    groups: np.ndarray | None,
    classes: Sequence[str],
    retraining: float = 0.0,
) -> dict[str, Interval]:
    """``uar`` first, then accuracy, macro_f1 and ``recall <class>`` of each class present.

    Parameters
    ----------
    truth, prediction
        (N,) class indices.
    groups
        (N,) speaker (or session) of each clip; None where unknown. The recall of a class that
        a single group has is taken over clips, which ``group_warnings`` says.
    classes
        Their names, in the order of the indices.
    retraining
        0 for intervals that take the trained models as given; ``retraining_share`` for wider
        ones, of what training anew on other speakers would give.
    """
    count = len(classes)
    validate_classes(truth, prediction, count)
    index, found = unit_index(groups, len(truth))
    units = _confusions(truth, prediction, count, index, np.full(len(truth), found.unit == "clip"))
    everything = Units(units.sums, units.counts, units.sizes.sum(axis=1, keepdims=True))
    whole = units.total()
    figures = {}
    for name, statistic in CLASSIFICATION.items():
        if name == "accuracy":
            spread = jackknife(everything, statistic)
        else:
            spread = jackknife(units, keeping_classes(statistic, whole))
        figures[name] = share_interval(spread, retraining)
    for position in np.flatnonzero(whole.sum(axis=-1)).tolist():
        of_class = Units(units.sums, units.counts, units.sizes[:, [position]])
        if units.counts @ (of_class.sizes[:, 0] > 0) == 1:
            rows = truth == position
            of_class = _confusions(truth[rows], prediction[rows], count, index[rows], rows[rows])
        spread = jackknife(of_class, keeping_classes(_recall(position), whole))
        figures[f"recall {classes[position]}"] = share_interval(spread, retraining)
    return figures


def _confusions(
    truth: np.ndarray, prediction: np.ndarray, classes: int, index: np.ndarray, alone: np.ndarray
) -> Units:
    return confusion_units(truth, prediction[None], classes, index, alone).of_the_only()


def _recall(position: int) -> Statistic:
    return lambda confusion: class_recalls(confusion)[..., position]


def regression_figures(
    truth: np.ndarray, prediction: np.ndarray, *, groups: np.ndarray | None, retraining: float = 0.0
) -> dict[str, Interval]:
    """``ccc`` first, then pearson and mae, of (N,) values; the rest as for classes."""
    validate_values(truth, prediction)
    index, _ = unit_index(groups, len(truth))
    truth, prediction = truth.astype(float), prediction.astype(float)
    units = moment_units(truth, prediction[None], index).of_the_only()
    largest = float(np.ptp(np.concatenate([truth, prediction])))
    figures = {}
    for name, statistic in REGRESSION.items():
        spread = jackknife(units, statistic)
        if name == "mae":
            figures[name] = error_interval(spread, retraining, largest)
        else:
            figures[name] = coefficient_interval(spread, retraining)
    return figures


def several_figures(
    truth: np.ndarray,
    prediction: np.ndarray,
    *,
    groups: np.ndarray | None,
    targets: Sequence[str],
    retraining: float = 0.0,
) -> dict[str, Interval]:
    """``mean_ccc`` first, then ``ccc``, ``pearson`` and ``mae`` of each target by its name.

    Parameters
    ----------
    truth, prediction
        (N, T) values; a truth that is NaN is in no figure of its target, and a target that no clip
        knows in none at all.
    groups, retraining
        As for classes.
    targets
        Their names.
    """
    there = np.flatnonzero(np.isfinite(truth).any(axis=0))
    truth, prediction = truth[:, there], prediction[:, there]
    targets = [targets[position] for position in there.tolist()]
    index, _ = unit_index(groups, len(truth))
    units = moment_units(truth, prediction[None], index).of_the_only()
    spread = jackknife(units, keeping_targets(SEVERAL["mean_ccc"], units.total()))
    # The targets are of the same clips: together they are not more of them.
    spread = replace(spread, clips=spread.clips / len(targets))
    figures = {"mean_ccc": coefficient_interval(spread, retraining)}
    for name, true, guess in zip(targets, truth.T, prediction.T, strict=True):
        known = np.isfinite(true)
        found = regression_figures(
            true[known],
            guess[known],
            groups=None if groups is None else groups[known],
            retraining=retraining,
        )
        figures |= {f"{key} {name}": figure for key, figure in found.items()}
    return figures


def divergence_figures(
    divergences: dict[str, np.ndarray], *, groups: np.ndarray | None, retraining: float = 0.0
) -> dict[str, Interval]:
    """Mean of each divergence (N,), by its name, with an interval as of errors."""
    figures = {}
    for name, each in divergences.items():
        index, _ = unit_index(groups, len(each))
        sums = np.stack([np.bincount(index), np.bincount(index, weights=each)], axis=1)
        units = Units(sums.astype(float), np.ones(len(sums)), sums[:, :1].astype(float))
        spread = jackknife(units, lambda total: total[..., 1] / total[..., 0])
        figures[name] = error_interval(spread, retraining, float(each.max()))
    return figures


def retraining_share(train: Sequence[int], test: Sequence[int]) -> float:
    """How much training anew adds to the variance of a score of folds, as a share of it.

    Scores of folds go together, since their training parts overlap, and one run of the folds
    cannot show how much. Nadeau and Bengio (2003) take the tested per trained clips of all
    folds: 1.25 for five folds, which makes intervals half as wide again.

    Parameters
    ----------
    train, test
        Clips of each fold.
    """
    return float(sum(tested / trained for trained, tested in zip(train, test, strict=True)))


def interval_words(found: Basis, *, group: str = "speaker", retraining: float = 0.0) -> str:
    """How the intervals came about and what they are conditional on, for the report.

    Parameters
    ----------
    found
        From ``basis_of``.
    group
        What a group is: "speaker", "session".
    retraining
        As given to the figures.
    """
    if found.unit == "clip":
        sample = f"the {found.count} clips, as if these were independent"
    else:
        sample = f"the {found.count} {group} groups, since clips of one are not independent"
    words = f"95 % intervals: a jackknife over {sample}, with t quantiles on Wilson's scale. "
    if retraining:
        return words + (
            "They are of training and testing on other data of this size: the variance is "
            f"multiplied by {1 + retraining:.2f} for training anew (Nadeau and Bengio 2003), an "
            "approximation that tends to be too wide."
        )
    return words + (
        "They are conditional on these trained models: they say how the figures vary with the "
        "data tested, and not how they vary when models are trained anew."
    )


def group_warnings(
    groups: np.ndarray | None,
    truth: np.ndarray,
    *,
    classes: Sequence[str] = (),
    group: str = "speaker",
) -> list[str]:
    """Sentences to print where few groups, or few groups with some class, carry an interval.

    Parameters
    ----------
    groups, truth
        (N,) each, as for the figures.
    classes
        Their names, in the order of the indices; empty for regression.
    group
        What a group is: "speaker", "session".
    """
    index, found = unit_index(groups, len(truth))
    if found.unit == "clip":
        lone = groups is not None and len(np.unique(groups)) == 1
        known = f"Only one {group} was tested" if lone else f"No {group}s were given"
        return [f"{known}: intervals treat clips as independent and say nothing of other {group}s"]
    notes = []
    if found.count < LEAST_GROUPS:
        notes.append(
            f"Only {found.count} {group} groups were tested: intervals are wide, rest on the "
            f"assumption that other {group}s differ as these do, and no p-value is given"
        )
    if classes:
        held = np.unique(np.stack([truth, index]), axis=1)[0]
        for position, count in enumerate(np.bincount(held).tolist()):
            if 0 < count < min(LEAST_GROUPS, found.count):
                notes.append(_rare_class(classes[position], count, found.count, group))
    return notes


def _rare_class(name: str, count: int, of: int, group: str) -> str:
    start = f"Clips of class {name} come from {count} of {of} {group} groups"
    if count == 1:
        return (
            f"{start}: the interval of its recall treats them as independent and says nothing of "
            f"other {group}s, that of UAR takes the class to vary as the others do"
        )
    return f"{start}: the intervals of its recall and of UAR rest on few and are wide"
