"""What the text of labels means: missing, a class, or a number; nothing is guessed in silence."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Literal

import numpy as np

from ..errors import LabelError, UsageError
from ..spec import CLASSES
from .joining import count_and_name

# How tables say that nothing is known; pandas, R, SQL, JSON and people write these.
MISSING = frozenset({"", "nan", "na", "n/a", "<na>", "none", "null", "nil", "-", "--", "?"})
RATING_LEVELS = 5  # whole numbers of so many levels may be classes or a scale: only a user knows

SIX_CLASSES = "label6"  # the column that `exhubert prepare` writes, with 0 to 5 in logit order

Task = Literal["classification", "regression"]


def target_names(target: str | Sequence[str]) -> tuple[str, ...]:
    """Return the columns of a target, which may be several: ``arousal,valence``.

    Examples
    --------
    >>> target_names("arousal, valence"), target_names(("emotion",))
    (('arousal', 'valence'), ('emotion',))
    """
    parts = target.split(",") if isinstance(target, str) else target
    names = tuple(part.strip() for part in parts)
    if not all(names) or len(set(names)) < len(names):
        raise UsageError(f"target is {target!r}", expected="a column, or several different ones")
    return names


def is_missing(text: str | None, meant: Collection[str] = ()) -> bool:
    """Tell whether a cell says that nothing is known; a word in ``meant`` is a name."""
    return text is None or (text not in meant and text.casefold() in MISSING)


def missing_words(cells: Iterable[str | None], meant: Collection[str] = ()) -> list[str]:
    """Return the words (``NA``, ``-``) among some cells that were taken for missing."""
    return sorted({cell for cell in cells if cell and is_missing(cell, meant)})


def _lookalikes(names: Iterable[str]) -> list[tuple[str, ...]]:
    """Return names that differ only by case, blanks or the spelling of a number, together."""
    alike: dict[str, set[str]] = defaultdict(set)
    for name in names:
        number = number_of(name)
        spelt = "".join(name.casefold().split())
        alike[spelt if number is None else f"{number:.12g}"].add(name)
    return sorted(tuple(sorted(group)) for group in alike.values() if len(group) > 1)


def _shown(alike: Sequence[tuple[str, ...]]) -> str:
    """Write lookalikes out: ``'Angry' and 'angry'; '1' and '1.0'``."""
    return "; ".join(" and ".join(map(repr, group)) for group in alike)


def unite_lookalikes(
    names: Sequence[str], what: str, *, meant: Collection[str] = ()
) -> tuple[list[str], list[str]]:
    """Give names that only look different one name; and a note that says which.

    Meant for groups: two names of one speaker would let this speaker stand on both sides of a
    split, while two speakers taken for one do no harm to a score. And for parts of a split, of
    which ``dev`` and ``Dev`` are one, unless they are ``meant`` as they are spelt.
    """
    alike = _lookalikes(set(names) - set(meant))
    one = {name: group[0] for group in alike for name in group}
    note = [f"Taken for one {what} each: {_shown(alike)}"] if alike else []
    return [one.get(name, name) for name in names], note


def name_six_classes(target: str, text: Sequence[str]) -> tuple[list[str], list[str]]:
    """Call the numbers of the six classes by their names, and say which of the six no clip has.

    Other columns, and numbers that were renamed, stay as they are.
    """
    numbers = dict(zip("012345", CLASSES, strict=True))
    if target != SIX_CLASSES or not set(text) <= numbers.keys():
        return list(text), []
    absent = [name for number, name in numbers.items() if number not in text]
    note = f"Of the six classes no clip is {' or '.join(absent)}: scores are over the others"
    return [numbers[number] for number in text], [note] if absent else []


def parse_values(
    text: Sequence[str],
    ids: Sequence[str],
    target: str,
    *,
    task: Task | None = None,
    classes: Sequence[str] = (),
    mapping: Mapping[str, str] | None = None,
) -> tuple[Task, tuple[str, ...], np.ndarray]:
    """Turn labels into class indices or numbers.

    Parameters
    ----------
    text, ids
        Label and clip (N,) of each, none of them missing.
    target
        The column, for messages.
    task
        None: regression where every label is a number and one has a fraction.
    classes
        Class names in index order, where a head dictates them.
    mapping
        Its names are meant as they are spelt.

    Returns
    -------
    tuple
        The task, the class names (none for regression), and the values (N,).
    """
    numbers = [number_of(label) for label in text]
    if task is None and not classes:
        task = _guess_task(text, numbers, target)
    if task == "regression":
        return "regression", (), parse_numbers(text, ids, target)
    names = tuple(classes) or class_names(text, target, mapping or {})
    refuse_strange(text, target, names)
    index = {name: position for position, name in enumerate(names)}
    return "classification", names, np.array([index[label] for label in text])


def parse_numbers(text: Sequence[str], ids: Sequence[str], target: str) -> np.ndarray:
    """Turn labels into numbers (N,), NaN for those that are missing; see :func:`parse_values`."""
    numbers = [math.nan if is_missing(label) else number_of(label) for label in text]
    odd = [name for name, number in zip(ids, numbers, strict=True) if number is None]
    if odd:
        raise LabelError(f"no finite number in column {target!r} for {count_and_name(odd, 'clip')}")
    return np.array(numbers, dtype=np.float64)


def refuse_strange(labels: Iterable[str], target: str, classes: Sequence[str]) -> None:
    """Raise LabelError for labels that a head does not have among its classes."""
    strange = sorted(set(labels) - set(classes))
    if strange:
        raise LabelError(
            f"{count_and_name(strange, 'label')} of column {target!r} outside the head's classes",
            expected=", ".join(classes),
            remedy="--map OLD=NEW renames a label, --map OLD= leaves its clips out",
        )


def number_of(text: str) -> float | None:
    """Return the finite number that a text spells, or None."""
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _guess_task(text: Sequence[str], numbers: Sequence[float | None], target: str) -> Task:
    if any(number % 1 for number in numbers if number is not None):
        return "regression"
    if any(number is None for number in numbers):
        return "classification"
    levels = len(set(numbers))
    if levels >= RATING_LEVELS:
        raise LabelError(
            f"column {target!r} holds {levels} different whole numbers, ratings or names",
            remedy="Say --task regression or --task classification",
        )
    return "classification"


def class_names(text: Iterable[str], target: str, mapping: Mapping[str, str]) -> tuple[str, ...]:
    """Return the names of the classes among labels, in order; refuse those that look alike."""
    names = tuple(sorted(set(text)))
    meant = {*mapping, *mapping.values()}
    alike = [group for group in _lookalikes(names) if not meant.issuperset(group)]
    if alike:
        one = " ".join(f"--map '{old}={names[-1]}'" for names in alike for old in names[:-1])
        apart = " ".join(f"--map '{name}={name}'" for name in alike[0])
        raise LabelError(
            f"classes of column {target!r} that only look different: {_shown(alike)}",
            remedy=f"{one} makes them one; {apart} keeps them apart",
        )
    if len(names) < 2:
        raise LabelError(f"column {target!r} holds one class, {names[0]!r}", expected="two or more")
    return names
