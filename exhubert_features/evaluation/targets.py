"""What is sought of a clip: a class, shares of classes, a number or several; and what is known."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from ..errors import LabelError, UsageError
from .joining import Row, count_and_name
from .values import (
    Task,
    class_names,
    is_missing,
    missing_words,
    name_six_classes,
    number_of,
    parse_numbers,
    parse_values,
    refuse_strange,
    target_names,
)


@dataclass(frozen=True, kw_only=True)
class Sought:
    """The target as it was typed, and the columns of a table that hold it.

    ``classes`` name the class of each column where columns hold shares of classes.
    """

    target: str
    columns: tuple[str, ...]
    mapping: Mapping[str, str] = field(default_factory=dict)  # old: new; new "" leaves out
    classes: tuple[str, ...] = ()
    soft: bool = False
    mapped: bool = False  # the labels have their new names already

    def is_known(self, row: Row) -> bool:
        """Tell whether a row says enough: all shares of the classes, or one of the targets."""
        meant = () if self.classes else set(self.mapping)
        known = [not is_missing(row.get(column), meant) for column in self.columns]
        return all(known) if self.classes else any(known)

    def renamed(self, row: Row) -> Row:
        """Return a row with its labels under their new names; shares keep theirs."""
        if self.classes or self.mapped:
            return row
        cells = {column: row.get(column, "") for column in self.columns}
        return {**row, **{column: self.mapping.get(cell, cell) for column, cell in cells.items()}}

    def words_for_unused(self, rows: Sequence[Row]) -> list[str]:
        """Name what the map renames although no row has it: a slip of the pen, perhaps."""
        cells = {row.get(column, "") for row in rows for column in self.columns}
        found = set(self.classes) or cells
        unused = sorted(old for old, new in self.mapping.items() if old not in found and old != new)
        if not unused or self.mapped:
            return []
        return [f"The label map speaks of {', '.join(map(repr, unused))}, which no clip has"]

    def words_for_nothing(self, rows: Sequence[Row]) -> list[str]:
        """Name the words of rows that were taken for missing, and how to keep them.

        Of several targets those that lack one are named elsewhere, and no word is a class.
        """
        if len(self.columns) > 1:
            return []
        words = missing_words(
            (row.get(column) for row in rows for column in self.columns), set(self.mapping)
        )
        if not words:
            return []
        keep = " ".join(f"--map {word}={word}" for word in words)
        listed = ", ".join(map(repr, words))
        note = f"{listed} in column {self.target!r} counts as no label"
        return [f"{note} ({keep} would make it a class)"]


@dataclass(frozen=True, kw_only=True)
class Known:
    """Labels of N clips, as :class:`.labels.Labels` holds them, and notes for the report."""

    task: Task
    classes: tuple[str, ...]
    values: np.ndarray
    shares: np.ndarray | None = None
    tied: np.ndarray | None = None
    notes: tuple[str, ...] = ()


def sought(
    target: str | Sequence[str],
    *,
    soft: bool,
    mapping: Mapping[str, str],
    task: Task | None,
    classes: Sequence[str] = (),
) -> Sought:
    """Understand a target as it was typed.

    Parameters
    ----------
    target
        A column, or several.
    soft
        Labels are shares of classes: of several columns, one a class, or of annotators.
    mapping
        Old names of classes to new ones.
    task
        As a user said it.
    classes
        Of a head: several columns are then their shares.
    """
    columns = target_names(target)
    soft = soft or (len(columns) > 1 and bool(classes))
    if soft and task == "regression":
        raise UsageError("soft labels of numbers", expected="shares of classes, or no --soft")
    if task == "classification" and len(columns) > 1 and not soft:
        raise UsageError(
            f"{len(columns)} targets as classes",
            expected="numbers",
            remedy="--soft says that each column holds the share of a class",
        )
    named = columns if soft and len(columns) > 1 else ()
    return Sought(
        target=", ".join(columns), columns=columns, mapping=mapping, classes=named, soft=soft
    )


def known_of(
    aim: Sought,
    rows: Sequence[Row],
    ids: Sequence[str],
    *,
    task: Task | None,
    classes: Sequence[str],
) -> Known:
    """Read the labels of some rows.

    Parameters
    ----------
    aim
        What is sought.
    rows, ids
        Row and name (N,) of each clip; every row knows something.
    task, classes
        As a user or a head dictates them.
    """
    if aim.classes:
        return _shares(aim, rows, ids, classes)
    if aim.soft:
        raise UsageError(
            f"--soft with the one column {aim.target!r}",
            expected="a column for each class in --target, or --annotators",
        )
    if len(aim.columns) > 1:
        return _numbers(aim, rows, ids)
    (column,) = aim.columns
    text, notes = name_six_classes(column, [row[column] for row in rows])
    found, names, values = parse_values(
        text, ids, column, task=task, classes=classes, mapping=aim.mapping
    )
    return Known(task=found, classes=names, values=values, notes=tuple(notes))


def _numbers(aim: Sought, rows: Sequence[Row], ids: Sequence[str]) -> Known:
    """Several targets (N, T): a clip that lacks one still serves the others, which is said."""
    columns = [parse_numbers([row[name] for row in rows], ids, name) for name in aim.columns]
    notes = []
    for name, column in zip(aim.columns, columns, strict=True):
        lacking = [clip for clip, value in zip(ids, column, strict=True) if np.isnan(value)]
        if len(lacking) == len(ids):
            raise LabelError(f"no clip has a number in column {name!r}", remedy="Leave it out")
        if lacking:
            notes.append(
                f"No {name} is known of {count_and_name(lacking, 'clip')}: they serve the other "
                "targets only"
            )
    values = np.stack(columns, axis=1)
    return Known(task="regression", classes=(), values=values, notes=tuple(notes))


def _shares(aim: Sought, rows: Sequence[Row], ids: Sequence[str], classes: Sequence[str]) -> Known:
    """Shares (N, C) of the classes, those under one new name added up; and who leads."""
    found: dict[str, np.ndarray] = defaultdict(lambda: np.zeros(len(rows)))
    for column, old in zip(aim.columns, aim.classes, strict=True):
        new = aim.mapping.get(old, old)
        if new:
            found[new] = found[new] + _counts([row[column] for row in rows], ids, column)
    names = tuple(classes) or tuple(found)
    class_names(names, aim.target, aim.mapping)  # refuses one class, and classes that look alike
    refuse_strange(found, aim.target, names)
    votes = np.stack([found[name] if name in found else np.zeros(len(rows)) for name in names], 1)
    empty = [clip for clip, total in zip(ids, votes.sum(axis=1), strict=True) if total <= 0]
    if empty:
        raise LabelError(
            f"all shares of classes are 0 for {count_and_name(empty, 'clip')}",
            remedy="Leave their cells empty: --drop-unlabelled then goes on without these clips",
        )
    shares = votes / votes.sum(axis=1, keepdims=True)
    tied = (shares > shares.max(axis=1, keepdims=True) - 1e-9).sum(axis=1) > 1
    notes = []
    if tied.any():
        named = count_and_name([clip for clip, tie in zip(ids, tied, strict=True) if tie], "clip")
        notes.append(
            f"No class is ahead for {named}: they are trained on and count for KL and JS, but not "
            "for UAR and what else needs one true class"
        )
    if tied.all():
        raise LabelError("no clip has a class ahead of the others", expected="some that have")
    return Known(
        task="classification",
        classes=names,
        values=shares.argmax(axis=1),
        shares=shares,
        tied=tied,
        notes=tuple(notes),
    )


def _counts(text: Sequence[str], ids: Sequence[str], column: str) -> np.ndarray:
    numbers = [number_of(cell) for cell in text]
    odd = [clip for clip, number in zip(ids, numbers, strict=True) if number is None or number < 0]
    if odd:
        raise LabelError(
            f"no share or count of votes in column {column!r} for {count_and_name(odd, 'clip')}",
            expected="numbers from 0 up",
        )
    return np.array(numbers, dtype=np.float64)
