"""Any other corpus: audio, and a table that says which file has which label."""

from __future__ import annotations

import os
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ...errors import CorpusError, UsageError
from ...tables import FILE_COLUMNS, first_of, read_table
from ..clips import Clip
from ..corpus import Corpus, NoClip
from ..division import Assignment, Division, dealt, given
from ..walking import Tree

LABEL_COLUMNS = ("label", "emotion")
PARTS = {
    "train": "train training",
    "dev": "dev devel development val valid validation",
    "test": "test testing",
}
SPLITS = {word: part for part, words in PARTS.items() for word in words.split()}
TAKEN = {  # columns of a manifest; others are carried along
    *("id", "start", "end", "speaker", "split", "fold", "session", "language", "gender"),
    *("sentence", "intensity", "corpus", "label6", "label6_source", *FILE_COLUMNS, *LABEL_COLUMNS),
}
RATINGS = ("arousal", "valence")  # numbers of raters, not the words of the six classes


@dataclass(frozen=True)
class _Row:
    """One line of a table, with its cells under lower-case names."""

    table: Path
    place: str
    cells: Mapping[str, str]

    @property
    def where(self) -> str:
        """Where to look for it."""
        return f"{self.table}, {self.place}"

    def get(self, *names: str) -> str:
        """Take the first cell of these columns that holds anything."""
        return first_of(names, self.cells)


def generic(tables: Sequence[Path], root: Path, name: str) -> Corpus:
    """Make a corpus out of tables.

    Parameters
    ----------
    tables
        CSV or TSV with the columns ``file`` and ``label``; ``id``, ``start``, ``end``,
        ``speaker``, ``split``, ``fold`` and the other columns of a manifest are taken over
        where they are there. Tables called train, devel, test and the like give the split.
    root
        Files are relative to it or else to their table.
    name
        What the corpus is called in the manifest.
    """
    rows = [row for table in tables for row in _rows(table)]
    split = any(row.get("split") for row in rows)
    return Corpus(
        name=name,
        layout="the files that the table names",
        rule=re.compile(".*"),
        describe=_describe,
        load=lambda tree: _by_file(rows, tree),
        expected=lambda side: [_id(row, file) for file, rows in side.items() for row in rows],
        division=_division(rows, split),
        distinctive=False,
    )


def find_tables(root: Path, *, but: Path) -> list[Path]:
    """Tables directly in ROOT that name files and labels: one, or one for each part.

    ``but`` is the manifest to be written, which may lie there from the last time.
    """
    found = [
        path
        for path in sorted(root.iterdir())
        if path.suffix.lower() in (".csv", ".tsv")
        and not path.name.startswith(".")
        and path.resolve() != but.resolve()
        and _is_table(path)
    ]
    if len(found) == 1 or (found and all(path.stem.lower() in SPLITS for path in found)):
        return found
    names = ", ".join(path.name for path in found)
    raise UsageError(
        f"{root} holds {f'several tables ({names})' if found else 'no table'}",
        expected="one CSV with the columns file and label, or train.csv, devel.csv and test.csv",
        remedy="Name it with --table",
    )


def _division(rows: Sequence[_Row], split: bool) -> Division:
    folds: Assignment = dealt()
    words = "five folds of whole speakers"
    if not any(row.get("speaker") for row in rows):
        words = "speakers are not given: five folds of single clips"
    if all(row.get("fold") for row in rows):
        folds, words = (lambda clips: [clip.fold for clip in clips]), "the folds of the table"
    if split:
        return Division(
            words=f"the split of the table; {words}", folds=folds, split=given, shared=("split",)
        )
    return Division(words=words, folds=folds, split=None)


def _describe(match: re.Match[str], side: Mapping[str, list[_Row]]) -> Iterable[Clip]:
    rows = side.get(match.string)
    if not rows:
        raise NoClip("no table names it")
    for row in rows:
        label = row.get(*LABEL_COLUMNS)
        if not label:
            raise NoClip(f"{row.where} gives it no label")
        yield _clip(row, label, match.string)


def _clip(row: _Row, label: str, file: str) -> Clip:
    extra = {key: value for key, value in row.cells.items() if key not in (*TAKEN, *RATINGS)}
    extra |= {f"{key}_rating": row.get(key) for key in RATINGS if _is_number(row.get(key))}
    split = row.get("split")
    return Clip(
        id=_id(row, file),
        label=label,
        start=_seconds(row, "start"),
        end=_seconds(row, "end"),
        speaker=row.get("speaker"),
        split=SPLITS.get(split.lower(), split),
        fold=row.get("fold"),
        session=row.get("session"),
        language=row.get("language"),
        gender=row.get("gender"),
        sentence=row.get("sentence"),
        intensity=row.get("intensity"),
        corpus=row.get("corpus"),
        extra=extra,
    )


def _by_file(rows: Sequence[_Row], tree: Tree) -> dict[str, list[_Row]]:
    """Rows by file below ROOT; a file that is not there stands under the name in its table."""
    there = {unicodedata.normalize("NFC", name) for name in tree.audio}
    found: dict[str, list[_Row]] = defaultdict(list)
    owners: dict[str, str] = {}
    for row in rows:
        names = _candidates(row, tree.root)
        file = next((name for name in names if name in there), names[0])
        name = _id(row, file)
        if name in owners:
            raise CorpusError(
                f"{row.where} and {owners[name]} are both of the clip {name!r}",
                expected="one row for each clip, or ids that tell parts of a file apart",
            )
        owners[name] = row.where
        found[file].append(row)
    return found


def _candidates(row: _Row, root: Path) -> list[str]:
    name = unicodedata.normalize("NFC", row.get(*FILE_COLUMNS)).replace("\\", "/")
    if not name:
        raise CorpusError(f"{row.where} names no file")
    base = _absolute(root)
    paths = [_absolute(folder / name) for folder in (root, row.table.parent)]
    below = [path.relative_to(base).as_posix() for path in paths if path.is_relative_to(base)]
    return below or [name]


def _absolute(path: Path) -> Path:
    """Write out the whole path without its ``..``; links stay as they are."""
    return Path(os.path.normpath(path.absolute()))


def _id(row: _Row, file: str) -> str:
    start, end = row.get("start"), row.get("end")
    part = f"@{start or 0}-{end}" if start or end else ""
    return row.get("id") or file + part


def _seconds(row: _Row, column: str) -> float | None:
    text = row.get(column)
    try:
        return float(text) if text else None
    except ValueError as error:
        raise CorpusError(f"{row.where} has the {column} {text!r}", expected="seconds") from error


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _rows(table: Path) -> list[_Row]:
    part = SPLITS.get(table.stem.lower(), "")
    rows = []
    for row in read_table(table).require_whole().rows:
        cells = {name.lower(): cell for name, cell in row.cells.items()}
        if part and not cells.get("split"):
            cells["split"] = part
        rows.append(_Row(table, row.place, cells))
    return rows


def _is_table(path: Path) -> bool:
    try:
        columns = {name.lower() for name in read_table(path).columns}
    except UsageError:  # whatever it is, it was not named
        return False
    return bool(columns & set(FILE_COLUMNS)) and bool(columns & set(LABEL_COLUMNS))
