"""Which of the six classes a label belongs to. The table is data, and the user's own goes first."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from ..errors import CorpusError, UsageError
from ..spec import AROUSAL, CLASSES, VALENCE
from ..tables import read_table


@dataclass(frozen=True, kw_only=True)
class Mapped:
    """What a label becomes.

    ``number`` is 0..5 in logit order; None: the label is left without a class. ``source`` is
    ``card`` (an example on the model's card), ``inference`` (ours), ``ambiguous`` (ours, with a
    serious ``alternative``) or ``user``.
    """

    label: str
    number: int | None
    source: str
    alternative: int | None = None
    note: str = ""

    @property
    def arousal(self) -> str:
        """``low``, ``high``, or nothing for a label without a class."""
        return "" if self.number is None else AROUSAL[CLASSES[self.number]]

    @property
    def valence(self) -> str:
        """``negative``, ``neutral``, ``positive``, or nothing for a label without a class."""
        return "" if self.number is None else VALENCE[CLASSES[self.number]]


@dataclass(frozen=True, kw_only=True)
class SixClassMap:
    """The table: (corpus or nothing, label) -> class."""

    rows: Mapping[tuple[str, str], Mapped]

    def find(self, label: str, corpus: str = "") -> Mapped | None:
        """Find the row for a label of a corpus; None where there is none."""
        word = _word(label)
        return self.rows.get((corpus, word)) or self.rows.get(("", word))

    def unused(self, labels: Iterable[str]) -> list[str]:
        """Labels of the user's rows that no clip has."""
        there = {_word(label) for label in labels}
        own = [row.label for (_, word), row in self.rows.items() if _is_idle(row, word, there)]
        return sorted(own)


@cache
def shipped_map() -> SixClassMap:
    """Read the package's own table."""
    path = Path(__file__).with_name("six_classes.csv")
    rows: dict[tuple[str, str], Mapped] = {}
    with path.open(encoding="utf-8", newline="") as stream:
        for row in csv.DictReader(stream):
            mapped = Mapped(
                label=row["label"],
                number=_number(row["class"]),
                source=row["status"],
                alternative=_number(row["alternative"]),
                note=row["note"],
            )
            for word in (row["label"], *filter(None, row["synonyms"].split("|"))):
                rows["", _word(word)] = mapped
    return SixClassMap(rows=rows)


def read_map(path: Path) -> SixClassMap:
    """Lay the user's own rows over the package's table.

    Parameters
    ----------
    path
        A table (CSV, TSV, JSON) with the columns ``label``, ``class`` (0 to 5, a class' name, or
        nothing to leave the label without a class) and optionally ``corpus``, for rows that hold
        for one corpus only.
    """
    rows = dict(shipped_map().rows)
    own: dict[tuple[str, str], Mapped] = {}
    table = read_table(path).require_whole()
    if not {"label", "class"} <= {*table.columns}:
        raise UsageError(
            f"{path} has the columns {', '.join(table.columns) or 'none'}",
            expected="label and class (and corpus, where a row holds for one only)",
        )
    for row in table.rows:
        label, corpus = row.cells["label"], row.cells.get("corpus", "")
        where = f"{path}, {row.place}"
        if not label:
            raise CorpusError(f"{where} names no label")
        try:
            number = _number(row.cells["class"])
        except ValueError as error:
            raise CorpusError(
                f"{where} gives {label!r} the class {row.cells['class']!r}",
                expected=f"0 to 5, one of {', '.join(CLASSES)}, or nothing",
            ) from error
        key = (corpus.lower(), _word(label))
        if key in own and own[key].number != number:
            raise CorpusError(f"{where} gives {label!r} a second class")
        own[key] = Mapped(label=label, number=number, source="user")
    return SixClassMap(rows={**_without_synonyms(rows, own), **own})


def _without_synonyms(
    rows: dict[tuple[str, str], Mapped], own: Mapping[tuple[str, str], Mapped]
) -> dict[tuple[str, str], Mapped]:
    """Take the shipped rows; a word of the user's moves all synonyms of it along."""
    moved = {rows[key].label: mapped for key, mapped in own.items() if key in rows}
    return {key: moved.get(row.label, row) for key, row in rows.items()}


def _number(text: str) -> int | None:
    """0..5 out of a number or a class' name; None for nothing; ValueError for anything else."""
    text = text.strip()
    if not text:
        return None
    number = CLASSES.index(text) if text in CLASSES else int(text)
    if not 0 <= number < len(CLASSES):
        raise ValueError(f"{number} is no class")
    return number


def _word(label: str) -> str:
    return re.sub(r"[\s_-]+", " ", label).strip().casefold()


def _is_idle(row: Mapped, word: str, there: set[str]) -> bool:
    return row.source == "user" and word == _word(row.label) and word not in there
