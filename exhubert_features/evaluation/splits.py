"""Who is tested on whom: speaker-disjoint folds, and inner folds for choosing anything."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ..errors import LabelError
from .labels import Labels

FEW_GROUPS = 6  # up to so many groups, each is left out once (IEMOCAP's five sessions)
FOLDS = 5
MERGED = 3  # inner folds where the outer ones are many
STRATA = 5  # quantiles of a numeric target that stand in for classes
EACH_ONCE = "Each fold was tested once by a model trained on the others"  # in words of protocols
TRAIN = ("train", "training")
DEVELOPMENT = ("dev", "devel", "development", "val", "valid", "validation")
TEST = ("test", "testing", "eval", "evaluation")

Scheme = Literal["auto", "leave-one-group-out", "grouped", "column", "random"]


@dataclass(frozen=True, kw_only=True)
class InnerFold:
    """Positions (into the labels) to fit on, and those to choose by."""

    train: np.ndarray
    held: np.ndarray


@dataclass(frozen=True, kw_only=True)
class Fold:
    """Positions (into the labels) to train on and to test on, and the folds to choose by.

    Every choice (layer, regularisation, epochs) is made on ``inner``, which splits ``train``
    only; ``test`` is touched once.
    """

    name: str
    train: np.ndarray
    test: np.ndarray
    inner: tuple[InnerFold, ...]


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """All folds, and in words how they came about."""

    folds: tuple[Fold, ...]
    words: str
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class _Outer:
    """Part (N,) of each clip and the parts' names; with ``single``, only part 2 is a test."""

    parts: np.ndarray
    names: Sequence[str]
    words: str
    owners: np.ndarray  # (N,) what must stay together
    single: bool = False  # parts are 0 train, 1 development, 2 test


def make_protocol(
    labels: Labels,
    *,
    scheme: Scheme = "auto",
    folds: int = FOLDS,
    inner: int | None = None,
    shared_groups: bool = False,
    seed: int = 0,
) -> Protocol:
    """Folds in which no group stands on both sides.

    Parameters
    ----------
    labels
        With ``splits`` for the scheme ``column``: either train / dev / test, or one name per
        fold of an official cross-validation.
    scheme
        ``auto``: the split column if there is one, else leave-one-group-out for up to six
        groups, else stratified grouped folds. ``random`` ignores the groups, with a warning.
    folds
        Number of folds for ``grouped`` and ``random``.
    inner
        Number of inner folds; None: each of the other outer folds is held out in turn, or
        three times a third of them where they are many.
    shared_groups
        Accept a given split whose groups stand on both sides, with a warning.
    """
    if scheme == "auto":
        few = len(np.unique(labels.groups)) <= FEW_GROUPS
        grouped: Scheme = "leave-one-group-out" if few else "grouped"
        scheme = "column" if labels.splits is not None else grouped
    outer = _outer(labels, scheme, folds, seed)
    notes: list[str] = []
    if scheme == "random":
        notes.append(
            "Random split: clips of one speaker stand in training and in test, so the score "
            "says little about unseen speakers and is usually too high"
        )
    built = []
    for part in [2] if outer.single else range(len(outer.names)):
        test = np.flatnonzero(outer.parts == part)
        train = np.flatnonzero(outer.parts != part)
        name = outer.names[part]
        notes += _leaks(outer.owners, train, test, name, accepted=shared_groups)
        held, note = _inner(labels, outer, train, inner, seed)
        notes += note
        for rows in (train, *(inner_fold.train for inner_fold in held)):
            _require_two_classes(labels, rows, name)
        built.append(Fold(name=name, train=train, test=test, inner=held))
    return Protocol(folds=tuple(built), words=outer.words, warnings=tuple(dict.fromkeys(notes)))


def raise_if_shared(
    groups: np.ndarray, train: np.ndarray, test: np.ndarray, *, where: str = "the split"
) -> None:
    """Raise LabelError if a group (N,) has clips at both positions: they would leak."""
    shared = _shared(groups, train, test)
    if shared:
        raise LabelError(
            f"{len(shared)} groups stand on both sides of {where} ({', '.join(shared[:5])})",
            expected="every speaker in training or in test, not in both",
            remedy="Correct the split, or accept it with --shared-groups (the report says so)",
        )


def _shared(groups: np.ndarray, train: np.ndarray, test: np.ndarray) -> list[str]:
    return sorted(set(groups[train].tolist()) & set(groups[test].tolist()))


def _leaks(
    owners: np.ndarray, train: np.ndarray, test: np.ndarray, name: str, *, accepted: bool
) -> list[str]:
    if not accepted:
        raise_if_shared(owners, train, test, where=name)
        return []
    shared = _shared(owners, train, test)
    if not shared:
        return []
    return [
        f"{name}: {len(shared)} groups stand in training and in test ({', '.join(shared[:5])}); "
        "the score is not speaker-independent"
    ]


def _outer(labels: Labels, scheme: Scheme, folds: int, seed: int) -> _Outer:
    if scheme == "column":
        return _given(labels)
    if scheme == "random":
        parts = _stratified(labels, labels.clips, folds, seed)
        words = (
            f"The clips were dealt at random into {parts.max() + 1} stratified folds "
            f"(seed {seed}), whoever speaks in them. {EACH_ONCE}."
        )
        return _Outer(parts=parts, names=_numbered(parts), words=words, owners=labels.clips)
    names, parts = np.unique(labels.groups, return_inverse=True)
    if labels.group is None or len(names) < 2:
        raise LabelError(
            "no column says who speaks"
            if labels.group is None
            else f"column {labels.group!r} holds one group, {str(names[0])!r}",
            expected="two or more speakers, to test on others than those trained on",
            remedy="Name the column with --group; --split random ignores speakers",
        )
    if scheme == "leave-one-group-out":
        words = (
            f"Each of the {len(names)} groups ({labels.group}) was left out once and tested by a "
            "model trained on all the others."
        )
        labels_of_folds = [f"{labels.group} {name}" for name in names]
        return _Outer(parts=parts, names=labels_of_folds, words=words, owners=labels.groups)
    parts = _stratified(labels, labels.groups, folds, seed)
    words = (
        f"The {len(names)} groups ({labels.group}) were dealt into {parts.max() + 1} stratified "
        f"folds (seed {seed}). {EACH_ONCE}, so no {labels.group} stands on both sides."
    )
    return _Outer(parts=parts, names=_numbered(parts), words=words, owners=labels.groups)


def _numbered(parts: np.ndarray) -> list[str]:
    return [f"fold {part + 1}" for part in range(parts.max() + 1)]


def _given(labels: Labels) -> _Outer:
    """The split column: train / dev / test, or one fold per name."""
    if labels.splits is None:
        raise LabelError("there is no split column", remedy="Name it with --split-column")
    known = {name: role for role, names in enumerate((TRAIN, DEVELOPMENT, TEST)) for name in names}
    roles = [known.get(name.lower()) for name in labels.splits.tolist()]
    if not any(role in (0, 2) for role in roles):
        names, parts = np.unique(labels.splits, return_inverse=True)
        if len(names) < 2:
            raise LabelError(f"the split column holds one fold, {str(names[0])!r}")
        words = f"The {len(names)} folds were given. {EACH_ONCE}."
        return _Outer(parts=parts, names=names.tolist(), words=words, owners=labels.groups)
    strange = sorted({n for n, r in zip(labels.splits.tolist(), roles, strict=True) if r is None})
    if strange or not {0, 2} <= set(roles):
        raise LabelError(
            f"the split column holds {', '.join(sorted(set(labels.splits.tolist())))}",
            expected="train, test and perhaps dev; or one name for each fold",
        )
    words = (
        "The split was given. Choices were made on its development part; the model was then "
        "trained on training and development part and tested once on the test part."
    )
    if 1 not in roles:
        words = "The split was given: trained on its training part, tested once on its test part."
    return _Outer(
        parts=np.array(roles, dtype=int),
        names=("train", "dev", "test"),
        words=words,
        owners=labels.groups,
        single=True,
    )


def _inner(
    labels: Labels, outer: _Outer, train: np.ndarray, count: int | None, seed: int
) -> tuple[tuple[InnerFold, ...], list[str]]:
    """Folds inside ``train``, and a note where they are weaker than the outer ones.

    The other outer folds serve where there are enough, merged into ``count``: they are as
    disjoint as the outer ones, and a fit without two folds serves both as the outer one.
    """
    notes: list[str] = []
    blocks = outer.parts[train]
    others = np.unique(blocks)
    if outer.single and len(others) == 2:  # a development part was given
        held = [np.flatnonzero(blocks == 1)]
    else:
        if outer.single or len(others) < 2:
            owners = outer.owners[train]
            if len(np.unique(owners)) < 2:
                owners = labels.clips[train]
                notes = [
                    "A training part holds one group only: choices inside it were made on "
                    "random folds (the test folds stay disjoint)"
                ]
            blocks = _stratified(labels, owners, count or FOLDS, seed, train)
        else:
            count = count or (len(others) if len(others) <= FEW_GROUPS else MERGED)
            blocks = np.searchsorted(others, blocks) % count
        held = [np.flatnonzero(blocks == block) for block in np.unique(blocks)]
    everyone = np.arange(len(train))
    return tuple(
        InnerFold(train=train[np.setdiff1d(everyone, rows)], held=train[rows]) for rows in held
    ), notes


def _require_two_classes(labels: Labels, rows: np.ndarray, name: str) -> None:
    if labels.task == "classification" and len(np.unique(labels.values[rows])) < 2:
        raise LabelError(
            f"{name}: the training clips, or those left by an inner fold, are of one class only",
            expected="two or more classes among the speakers of every training part",
            remedy="Use fewer folds, or another --group",
        )


def strata(labels: Labels) -> np.ndarray:
    """Classes (N,), or which fifth of the sorted values each clip falls in."""
    if labels.task == "classification":
        return labels.values
    edges = np.quantile(labels.values, np.arange(1, STRATA) / STRATA)
    return np.searchsorted(edges, labels.values)


def _stratified(
    labels: Labels,
    owners: np.ndarray,
    folds: int,
    seed: int,
    rows: np.ndarray | slice = slice(None),
) -> np.ndarray:
    """Part of each clip among ``rows``: owners kept whole, classes spread, no part empty."""
    from sklearn.model_selection import StratifiedGroupKFold

    classes = np.unique(strata(labels)[rows], return_inverse=True)[1]
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
