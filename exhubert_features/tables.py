"""CSV, TSV and JSON tables as people have them: manifests of clips, and labels.

Every cell is text without blanks around it and in one Unicode form, so that ``s1`` and ``s1 ``
are one speaker whichever way a table is read.
"""

from __future__ import annotations

import csv
import io
import json
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from .errors import UsageError

TABLE_SUFFIXES = (".csv", ".tsv", ".json")
ID_COLUMNS = ("id", "clip_id")
FILE_COLUMNS = ("file", "wav", "path", "audio")  # ours and audformat's, then others'
POSITION_COLUMNS = ("start", "end", "stop")
_KNOWN = {*ID_COLUMNS, *FILE_COLUMNS, *POSITION_COLUMNS}
_BYTE_ORDER_MARKS = {b"\xef\xbb\xbf": "utf-8-sig", b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}


@dataclass(frozen=True, kw_only=True)
class TableRow:
    """One row: where it stands (``line 3``, ``item 'a'``), and its cells by column.

    ``fault`` says what is wrong with the row as such; empty is nothing.
    """

    place: str
    cells: Mapping[str, str]
    fault: str = ""


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table as it was read; known columns (id, file, start, ...) are in lower case."""

    path: Path
    columns: tuple[str, ...]
    rows: tuple[TableRow, ...]

    def require_whole(self) -> Table:
        """Raise UsageError, naming the first line, if any row has a fault."""
        faulty = [row for row in self.rows if row.fault]
        if faulty:
            raise UsageError(
                f"{self.path} has {len(faulty)} rows that cannot be used, first in "
                f"{faulty[0].place}: {faulty[0].fault}"
            )
        return self


def read_table(path: str | Path) -> Table:
    """Read a table; the suffix ``.json`` says JSON, the header says what separates cells.

    Parameters
    ----------
    path
        UTF-8 (or UTF-16 with its mark) text: cells separated by commas, semicolons or tabs
        under a header; or JSON, a list of objects or SpeechBrain's ``{id: {column: value}}``.

    Returns
    -------
    Table
        Rows with too many or too few cells are in it, with their fault.

    Raises
    ------
    UsageError
        When the file cannot be read or is no table, naming the line where one is to blame.
    """
    path = Path(path)
    text = _read_text(path)
    if path.suffix.lower() == ".json":
        rows = tuple(_json_rows(text, path))
        named = dict.fromkeys(column for row in rows for column in row.cells)
        return Table(path=path, columns=tuple(named), rows=rows)
    return _separated(text, path)


def clean(text: str) -> str:
    """Strip blanks and bring the text to one Unicode form (NFC)."""
    return unicodedata.normalize("NFC", text).strip()


def first_of(columns: Iterable[str], cells: Mapping[str, str]) -> str:
    """Return the first of some columns that holds anything; empty where none does."""
    return next((cells[name] for name in columns if cells.get(name)), "")


def _read_text(path: Path) -> str:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror or error}") from error
    encoding = next(
        (name for mark, name in _BYTE_ORDER_MARKS.items() if content.startswith(mark)), "utf-8"
    )
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        place = f"byte {content[error.start]:#04x} in line {content.count(10, 0, error.start) + 1}"
        raise UsageError(
            f"{path} is not {encoding.upper()} text: {place}",
            remedy="Save it as UTF-8",
        ) from error


def _separated(text: str, path: Path) -> Table:
    """Read a table whose cells are separated by what its header is separated by."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=_delimiter(text, path))
    try:
        header = next(reader, [])
        columns = _column_names(header, path)
        rows = [_row(cells, columns, f"line {reader.line_num}") for cells in reader if any(cells)]
    except csv.Error as error:
        raise UsageError(f"{path}, line {reader.line_num}: {error}") from error
    return Table(path=path, columns=columns, rows=tuple(rows))


def _delimiter(text: str, path: Path) -> str:
    if path.suffix.lower() == ".tsv":
        return "\t"
    header = re.sub(r'"[^"]*"', "", text.split("\n", 1)[0])  # a comma inside quotes is a letter
    return max(",;\t", key=header.count)


def _column_names(header: Iterable[str], path: Path) -> tuple[str, ...]:
    """``ID``, ``Start`` and the like in lower case; other columns keep their names."""
    names = [clean(name) for name in header]
    names = [name.lower() if name.lower() in _KNOWN else name for name in names]
    twice = [name for name, count in Counter(names).items() if count > 1 and name]
    if twice:
        raise UsageError(f"{path} has several columns named {twice[0]!r}", expected="one of each")
    return tuple(names)


def _row(cells: list[str], columns: tuple[str, ...], place: str) -> TableRow:
    named = zip(columns, cells, strict=False)
    row = TableRow(place=place, cells={name: _cell(name, value) for name, value in named if name})
    if len(cells) == len(columns):
        return row
    return replace(row, fault=f"{len(cells)} cells under a header of {len(columns)} columns")


def _cell(column: str, value: str) -> str:
    """Text in its one form; a file keeps its spelling, for the disk may know no other."""
    return value.strip() if column in FILE_COLUMNS else clean(value)


def _json_rows(text: str, path: Path) -> Iterator[TableRow]:
    try:
        data = json.loads(text, object_pairs_hook=_without_repeats)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path} is not JSON that can be used: {error}") from error
    if isinstance(data, dict) and all(isinstance(row, dict) for row in data.values()):
        items = [
            (
                f"item {name!r}",
                {**{key: row[key] for key in row if key.lower() != "id"}, "id": name},
            )
            for name, row in data.items()
        ]
    elif isinstance(data, list) and all(isinstance(row, dict) for row in data):
        items = [(f"item {number}", row) for number, row in enumerate(data, 1)]
    else:
        raise UsageError(
            f"{path} is JSON of another kind",
            expected='a list of objects, or {"clip id": {"column": "value", ...}, ...}',
        )
    for place, row in items:
        names = _column_names(row, path)
        cells = dict(zip(names, row.values(), strict=True))
        yield TableRow(
            place=place,
            cells={name: _cell(name, _text(value)) for name, value in _unfold(cells).items()},
        )


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"the key {key!r} stands twice in one object")
        found[key] = value
    return found


def _unfold(cells: Mapping[str, Any]) -> dict[str, Any]:
    """SpeechBrain's ``"wav": {"file": ..., "start": ..., "stop": ...}``, as columns."""
    flat: dict[str, Any] = {}
    for name, value in cells.items():
        parted = name in FILE_COLUMNS and isinstance(value, dict)
        flat |= (
            {key: value.get(key) for key in ("file", "start", "stop")} if parted else {name: value}
        )
    return flat


def _text(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
