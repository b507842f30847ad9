"""Who is tested on whom: speaker-disjoint folds, and inner folds for choosing anything."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from ..errors import LabelError, UsageError
from ..store import CORPUS
from .dealing import deal
from .given import EACH_ONCE, Parts, corpus_parts, given_parts
from .labels import Labels
from .leaks import leaks

FEW_GROUPS = 6  # up to so many groups, each is left out once (IEMOCAP's five sessions)
MERGED = 3  # inner folds where the outer ones are many

Scheme = Literal[
    "auto", "leave-one-group-out", "leave-one-corpus-out", "grouped", "column", "random"
]


@dataclass(frozen=True, kw_only=True)
class SplitOptions:
    """How clips are divided into training and test."""

    # auto: the split column if there is one, else leave-one-group-out for up to six groups,
    # else stratified grouped folds; leave-one-corpus-out tests what holds beyond a corpus; random
    # ignores the groups, with a warning
    scheme: Scheme = "auto"
    column: str | None = None  # holds train, dev, test, or one name per official fold
    fold_column: str | None = None  # the same, but every name is a fold, whatever it says
    roles: Mapping[str, str] = field(default_factory=dict)  # a name of the column: train, dev, test
    folds: int = 5  # for grouped and random: a fifth tests, the usual compromise
    inner: int | None = None  # inner folds; None: the other outer folds, or three of many
    shared_groups: bool = False  # accept a given split whose groups stand on both sides

    @property
    def given(self) -> str | None:
        """The column that holds the split."""
        by_corpus = CORPUS if self.scheme == "leave-one-corpus-out" else None
        return self.column or self.fold_column or by_corpus


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
    test_sets: bool = False  # the folds are test sets of one model

    @property
    def tested(self) -> np.ndarray:
        """Positions of the clips that some fold tests, in order."""
        return np.sort(np.concatenate([fold.test for fold in self.folds]))


@dataclass(frozen=True, kw_only=True)
class _Outer(Parts):
    """Also ``owners`` (N,): what must stay together."""

    owners: np.ndarray


def make_protocol(
    labels: Labels, options: SplitOptions | None = None, *, seed: int = 0
) -> Protocol:
    """Divide labelled clips so that no group stands on both sides.

    Parameters
    ----------
    labels
        With ``splits`` for the scheme ``column``: train, perhaps dev, and one or more test
        sets; or one name per fold of an official cross-validation.
    seed
        Of how groups are dealt into folds.

    Raises
    ------
    LabelError
        When groups are unknown, stand on both sides, or leave nothing to train on.
    """
    options = options or SplitOptions()
    outer = _outer(labels, options, seed)
    notes = [*outer.notes, *([RANDOM] if _scheme(labels, options) == "random" else [])]
    built, skipped = [], []
    lacking = "are of one class only" if labels.classes else "have no number of some target"
    for part in range(2 if outer.single else 0, len(outer.names)):
        test = np.flatnonzero(outer.parts == part)
        train = np.flatnonzero((outer.parts < 2 if outer.single else outer.parts != part)
                               & (outer.parts >= 0))  # fmt: skip
        name = outer.names[part]
        notes += leaks(outer.owners, train, test, name, accepted=options.shared_groups)
        if not _trainable(labels, train):
            skipped.append(name)
            continue
        held, note = _inner(labels, outer, train, options.inner, options.folds, seed)
        notes += note
        built.append(Fold(name=name, train=train, test=test, inner=held))
    if not built:
        raise LabelError(
            f"the training clips of every fold {lacking}",
            expected="two or more classes, or numbers, among the speakers of every training part",
            remedy="Use fewer folds, or another --group",
        )
    if skipped:
        notes.append(f"Not tested, since the training clips {lacking}: {', '.join(skipped)}")
    return Protocol(
        folds=tuple(built),
        words=outer.words,
        warnings=tuple(dict.fromkeys(notes)),
        test_sets=outer.single and len(built) > 1,
    )


def other_dealings(
    labels: Labels, options: SplitOptions, seed: int, repeats: int
) -> list[Protocol]:
    """Return ``repeats`` - 1 more protocols, their folds dealt with the seeds that follow.

    Raises
    ------
    UsageError
        Where folds are given or leave one group out: there is one way to deal them.
    """
    if repeats < 1:
        raise UsageError(f"repeats is {repeats}", expected="one or more")
    scheme = _scheme(labels, options)
    if repeats > 1 and scheme not in ("grouped", "random"):
        raise UsageError(
            f"folds of the kind {scheme} can be dealt in one way only",
            remedy="Leave --repeats away, or choose --split grouped",
        )
    return [make_protocol(labels, options, seed=seed + count) for count in range(1, repeats)]


RANDOM = (
    "Random split: clips of one speaker stand in training and in test, so the score says little "
    "about unseen speakers and is usually too high"
)


def _scheme(labels: Labels, options: SplitOptions) -> Scheme:
    if options.scheme != "auto":
        return options.scheme
    if labels.splits is not None:
        return "column"
    few = len(np.unique(labels.groups)) <= FEW_GROUPS
    return "leave-one-group-out" if few else "grouped"


def _outer(labels: Labels, options: SplitOptions, seed: int) -> _Outer:
    scheme = _scheme(labels, options)
    if scheme == "column":
        given = given_parts(labels.splits, options.roles, folds=options.fold_column)
        return _Outer(**vars(given), owners=labels.groups)
    if scheme == "leave-one-corpus-out":
        return _Outer(**vars(corpus_parts(labels.splits)), owners=labels.groups)
    if scheme == "random":
        parts = deal(labels, labels.clips, options.folds, seed)
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
    parts = deal(labels, labels.groups, options.folds, seed)
    words = (
        f"The {len(names)} groups ({labels.group}) were dealt into {parts.max() + 1} stratified "
        f"folds (seed {seed}). {EACH_ONCE}, so no {labels.group} stands on both sides."
    )
    return _Outer(parts=parts, names=_numbered(parts), words=words, owners=labels.groups)


def _numbered(parts: np.ndarray) -> list[str]:
    return [f"fold {part + 1}" for part in range(parts.max() + 1)]


def _inner(
    labels: Labels, outer: _Outer, train: np.ndarray, count: int | None, folds: int, seed: int
) -> tuple[tuple[InnerFold, ...], list[str]]:
    """Folds inside ``train``, and notes where they are weaker than the outer ones."""
    blocks, notes = _blocks(labels, outer, train, count, folds, seed)
    if _has_development(outer, train):
        made = _held_out(train, blocks, [1])  # a development part was given
    else:
        made = _held_out(train, blocks, np.unique(blocks).tolist())
    usable = tuple(inner for inner in made if _trainable(labels, inner.train))
    if len(usable) == len(made):
        return usable, notes
    if usable:
        return usable, [*notes, (
            "Choices inside a training part were made on fewer inner folds, since the others "
            "would have left clips of one class to fit on"
        )]  # fmt: skip
    blocks = deal(labels, labels.clips[train], folds, seed, train)
    return _held_out(train, blocks, np.unique(blocks).tolist()), [*notes, (
        "A training part has too few groups of some class to hold one out: choices inside it "
        "were made on random folds (the test folds stay disjoint)"
    )]  # fmt: skip


def _blocks(
    labels: Labels, outer: _Outer, train: np.ndarray, count: int | None, folds: int, seed: int
) -> tuple[np.ndarray, list[str]]:
    """Block (n,) of each training clip; each block is held out in turn.

    The other outer folds serve where there are enough, merged into ``count``: they are as
    disjoint as the outer ones, and a fit without two folds serves both as the outer one.
    """
    blocks = outer.parts[train]
    others = np.unique(blocks)
    if _has_development(outer, train):
        return blocks, []
    if not outer.single and len(others) > 1:
        count = count or (len(others) if len(others) <= FEW_GROUPS else MERGED)
        return np.searchsorted(others, blocks) % count, []
    owners, notes = outer.owners[train], []
    if len(np.unique(owners)) < 2:
        owners = labels.clips[train]
        notes = [
            "A training part holds one group only: choices inside it were made on random folds "
            "(the test folds stay disjoint)"
        ]
    return deal(labels, owners, count or folds, seed, train), notes


def _has_development(outer: _Outer, train: np.ndarray) -> bool:
    return outer.single and bool((outer.parts[train] == 1).any())


def _held_out(train: np.ndarray, blocks: np.ndarray, held: Sequence[int]) -> tuple[InnerFold, ...]:
    return tuple(
        InnerFold(train=train[blocks != block], held=train[blocks == block]) for block in held
    )


def _trainable(labels: Labels, rows: np.ndarray) -> bool:
    """Whether there is anything to learn from the clips at some positions."""
    if labels.task == "regression":  # of each target, something must be known
        return bool(np.isfinite(labels.wanted[rows]).any(axis=0).all())
    return len(np.unique(labels.values[rows])) > 1
