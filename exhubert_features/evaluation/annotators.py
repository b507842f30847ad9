"""One label out of several annotators' rows: most frequent class, shares of classes, or mean."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean

from ..errors import LabelError
from ..tables import FILE_COLUMNS, ID_COLUMNS, first_of
from .joining import Row, Table, count_and_name
from .targets import Sought
from .values import class_names, is_missing, number_of


def settle_annotators(
    table: Table, aim: Sought, id_column: str | None = None
) -> tuple[list[Row], Sought, list[str]]:
    """Return one row per clip, what is then sought in it, and notes for the report.

    Parameters
    ----------
    table
        Several rows may name one clip, by its id or file.
    aim
        The columns that annotators filled in. Where all of it is numbers, their mean counts;
        else the most frequent class, of clips that have one ahead of all, or each class's share
        of the annotators where soft labels are sought.
    """
    names = (id_column,) if id_column else (*ID_COLUMNS, *FILE_COLUMNS)
    opinions: dict[str, list[Row]] = defaultdict(list)
    for row in table:
        if aim.is_known(renamed := aim.renamed(row)):
            opinions[first_of(names, row)].append(renamed)
    count = sum(len(rows) for rows in opinions.values()) / max(len(opinions), 1)
    said = f"its annotators, {count:.1f} on average"
    every = [row for rows in opinions.values() for row in rows]
    if not aim.soft and _numeric(every, aim):
        means = [_mean(rows, aim) for rows in opinions.values()]
        return means, replace(aim, mapped=True), [f"Each clip's label is the mean of {said}"]
    if len(aim.columns) > 1:
        raise LabelError(
            "annotators' rows with several columns that are not all numbers",
            expected="numbers, or one column with the class that an annotator chose",
        )
    (column,) = aim.columns
    unused = aim.words_for_unused(list(table))
    classes = class_names((row[column] for row in every), column, aim.mapping)
    if aim.soft:
        shares = [_shares(rows, column, classes) for rows in opinions.values()]
        found = replace(aim, columns=_share_columns(column, classes), classes=classes, mapping={})
        return shares, found, [f"Each clip's label is the shares of classes among {said}", *unused]
    settled = {name: _most_frequent(rows, column) for name, rows in opinions.items()}
    notes = [f"Each clip's label is the most frequent class of {said}", *unused]
    torn = [name for name, row in settled.items() if row is None]
    if torn:
        notes.append(f"Left out, for no class is ahead: {count_and_name(torn, 'clip')}")
    return [row for row in settled.values() if row], replace(aim, mapped=True), notes


def _numeric(rows: Sequence[Row], aim: Sought) -> bool:
    cells = [row[column] for row in rows for column in aim.columns]
    return all(is_missing(cell) or number_of(cell) is not None for cell in cells)


def _mean(rows: Sequence[Row], aim: Sought) -> Row:
    means = {}
    for column in aim.columns:
        numbers = [float(row[column]) for row in rows if not is_missing(row[column])]
        means[column] = repr(fmean(numbers)) if numbers else ""
    return {**rows[0], **means}


def _share_columns(column: str, classes: Sequence[str]) -> tuple[str, ...]:
    return tuple(f"{column}={name}" for name in classes)


def _shares(rows: Sequence[Row], column: str, classes: Sequence[str]) -> Row:
    votes = Counter(row[column] for row in rows)
    cells = (repr(votes[name] / len(rows)) for name in classes)
    return {**rows[0], **dict(zip(_share_columns(column, classes), cells, strict=True))}


def _most_frequent(rows: Sequence[Row], column: str) -> Row | None:
    ranked = Counter(row[column] for row in rows).most_common(2)
    if len(ranked) == 2 and ranked[0][1] == ranked[1][1]:
        return None
    return {**rows[0], column: ranked[0][0]}
