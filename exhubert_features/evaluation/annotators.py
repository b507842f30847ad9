"""One label out of several annotators' rows: the most frequent class, or the mean number."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from statistics import fmean

from ..tables import FILE_COLUMNS, ID_COLUMNS, first_of
from .joining import Row, Table, count_and_name
from .values import is_missing, number_of


def settle_annotators(
    table: Table, target: str, id_column: str | None = None
) -> tuple[list[Row], list[str]]:
    """Return one row per clip, and notes for the report.

    Parameters
    ----------
    table
        Several rows may name one clip, by its id or file.
    target
        The column that annotators filled in: where all of it is numbers, their mean counts,
        else the most frequent class. A clip without one class ahead of all is left out.
    """
    names = (id_column,) if id_column else (*ID_COLUMNS, *FILE_COLUMNS)
    opinions: dict[str, list[Row]] = defaultdict(list)
    for row in table:
        if not is_missing(row.get(target)):
            opinions[first_of(names, row)].append(row)
    numeric = all(number_of(row[target]) is not None for rows in opinions.values() for row in rows)
    settled: list[Row] = []
    torn: list[str] = []
    for name, rows in opinions.items():
        label = _mean(rows, target) if numeric else _most_frequent(rows, target)
        if label is None:
            torn.append(name)
        else:
            settled.append({**rows[0], target: label})
    count = sum(len(rows) for rows in opinions.values()) / max(len(opinions), 1)
    what = "mean" if numeric else "most frequent class"
    notes = [f"Each clip's label is the {what} of its annotators, {count:.1f} on average"]
    if torn:
        notes.append(f"Left out, for no class is ahead: {count_and_name(torn, 'clip')}")
    return settled, notes


def _mean(rows: Sequence[Row], target: str) -> str:
    return repr(fmean(float(row[target]) for row in rows))


def _most_frequent(rows: Sequence[Row], target: str) -> str | None:
    ranked = Counter(row[target] for row in rows).most_common(2)
    if len(ranked) == 2 and ranked[0][1] == ranked[1][1]:
        return None
    return ranked[0][0]
