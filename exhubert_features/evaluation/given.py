"""Divisions that a column gives: train and test parts, official folds, corpora."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import LabelError
from ..store import CORPUS
from .values import unite_lookalikes

EACH_ONCE = "Each fold was tested once by a model trained on the others"  # in words of protocols
_ROLES = ("train", "dev", "test")
_SPELLINGS = (  # of the roles, perhaps with a number: Test1, test_2
    "train|training",
    "dev|devel|development|val|valid|validation",
    r"(?:test|testing|eval|evaluation)[ _-]?\d*",
)


@dataclass(frozen=True, kw_only=True)
class Parts:
    """Part (N,) of each clip and the parts' names; a given split tests only some of them."""

    parts: np.ndarray
    names: Sequence[str]
    words: str
    # of a given split: parts 0 train, 1 development, 2 and more are test sets, -1 is left out
    single: bool = False
    notes: tuple[str, ...] = ()


def given_parts(
    splits: np.ndarray | None, roles: Mapping[str, str], *, folds: str | None = None
) -> Parts:
    """Follow a split column: train, development and test sets, or one fold per name.

    Parameters
    ----------
    splits
        What it says (N,) of each clip; None where no column was named.
    roles
        A name of the column: train, dev, test or nothing, for those that do not say so.
    folds
        Of the column, where every name in it is a fold, whatever it says.
    """
    if splits is None:
        raise LabelError("there is no split column", remedy="Name it with --split-column")
    united, notes = unite_lookalikes(splits.tolist(), "part of the split", meant=roles)
    names = sorted(set(united))
    unknown = sorted(set(roles) - set(names))
    if unknown:
        raise LabelError(
            f"the split map speaks of {', '.join(unknown)}",
            expected=f"names of the split column, which holds {', '.join(names)}",
        )
    meant = {name: _role(name, roles) for name in names}
    if folds or not {0, 2} & set(meant.values()):
        return _official_folds(united, folds, tuple(notes))
    if None in meant.values() or not {0, 2} <= set(meant.values()):
        raise LabelError(
            f"the split column holds {', '.join(names)}",
            expected="train, test and perhaps dev; or one name for each fold",
            remedy="--split-map NAME=train (or dev, test, or nothing) says what a name means",
        )
    tests = [name for name in names if meant[name] == 2]
    place = {name: meant[name] for name in names if meant[name] != 2}
    place |= {name: 2 + number for number, name in enumerate(tests)}
    words = (
        "The split was given. Choices were made on its development part; the model was then "
        "trained on training and development part and tested once on the test part."
    )
    if 1 not in place.values():
        words = "The split was given: trained on its training part, tested once on its test part."
    if len(tests) > 1:
        words = words.replace("test part", f"test parts {', '.join(tests)}")
    return Parts(
        parts=np.array([place[name] for name in united]),
        names=("train", "dev", *(tests if len(tests) > 1 else ["test"])),
        words=words,
        single=True,
        notes=tuple(notes),
    )


def _official_folds(splits: list[str], column: str | None, notes: tuple[str, ...]) -> Parts:
    names, parts = np.unique(splits, return_inverse=True)
    if len(names) < 2:
        raise LabelError(f"the split column holds one fold, {str(names[0])!r}")
    named = f" by column {column}" if column else ""
    words = f"The {len(names)} folds were given{named}. {EACH_ONCE}."
    return Parts(parts=parts, names=names.tolist(), words=words, notes=notes)


def corpus_parts(corpora: np.ndarray | None) -> Parts:
    """Make a fold of each corpus (N,)."""
    united, notes = unite_lookalikes([] if corpora is None else corpora.tolist(), CORPUS)
    names, parts = np.unique(united, return_inverse=True)
    if len(names) < 2:
        raise LabelError(
            f"all clips are of one corpus, {', '.join(map(repr, names.tolist()))}",
            expected="two or more, to test on another than those trained on",
            remedy="Give several stores, or choose another --split",
        )
    words = (
        f"Each of the {len(names)} corpora was left out once and tested by a model trained on all "
        "the others; choices were made inside these."
    )
    folds = [f"{CORPUS} {name}" for name in names]
    return Parts(parts=parts, names=folds, words=words, notes=tuple(notes))


def _role(name: str, roles: Mapping[str, str]) -> int | None:
    """0 train, 1 development, 2 test, -1 left out; None for any other name."""
    if name in roles:
        meaning = roles[name]
        if meaning and meaning not in _ROLES:
            raise LabelError(
                f"the split map says {name}={meaning}", expected="train, dev, test or nothing"
            )
        return _ROLES.index(meaning) if meaning else -1
    fitting = (re.fullmatch(spelling, name.lower()) for spelling in _SPELLINGS)
    return next((role for role, match in enumerate(fitting) if match), None)
