"""Deal clips into parts: owners kept whole, classes spread."""

from __future__ import annotations

import warnings

import numpy as np

from ..errors import LabelError
from .labels import Labels

STRATA = 5  # quantiles of a numeric target that stand in for classes


def _strata(labels: Labels) -> np.ndarray:
    """Return classes (N,), or which fifth of the sorted values each clip falls in.

    Of several targets the means count, each in deviations from its own.
    """
    if labels.task == "classification":
        return labels.values
    values = labels.wanted.astype(np.float64)
    centred = values - np.nanmean(values, axis=0)
    level = np.nanmean(centred / np.maximum(np.nanstd(values, axis=0), 1e-12), axis=1)
    edges = np.quantile(level, np.arange(1, STRATA) / STRATA)
    return np.asarray(np.searchsorted(edges, level))


def deal(
    labels: Labels,
    owners: np.ndarray,
    folds: int,
    seed: int,
    rows: np.ndarray | slice = slice(None),
) -> np.ndarray:
    """Deal the clips at ``rows`` (n,) into parts (n,): classes spread, no part empty.

    Parameters
    ----------
    owners
        Who of each clip (n,) must stay in one part.
    folds
        Parts; fewer where there are fewer owners.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    classes = np.unique(_strata(labels)[rows], return_inverse=True)[1]
    names, numbers = np.unique(owners, return_inverse=True)
    count = min(folds, len(names))
    if count < 2:
        raise LabelError(
            f"{len(names)} clips or groups cannot be split into {folds} folds",
            expected="two or more",
        )
    if np.bincount(classes).max() < count:  # too few clips of any class to stratify by
        return numbers % count
    # Shuffled here: scikit-learn's own shuffling spreads classes unevenly before 1.8, the
    # first release that Python 3.10 does not get.
    shuffled = np.random.default_rng(seed).permutation(len(names))[numbers]
    splitter = StratifiedGroupKFold(count)
    parts = np.empty(len(classes), dtype=int)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The least populated class", UserWarning)
        for part, (_, test) in enumerate(splitter.split(classes, classes, shuffled)):
            parts[test] = part
    return np.unique(parts, return_inverse=True)[1]
