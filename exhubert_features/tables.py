"""CSV, TSV and JSON tables as people have them: manifests of clips, and labels.

Every cell is text without blanks around it and in one Unicode form, so that ``s1`` and ``s1 ``
are one speaker whichever way a table is read.
"""

from __future__ import annotations

import codecs
import csv
import io
import json
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import UsageError
from .files import RegularFile

if TYPE_CHECKING:
    import pandas as pd

_FORMULA = ("=", "+", "-", "@", "\t", "\r")  # what spreadsheets take for the start of one
TABLE_SUFFIXES = (".csv", ".tsv", ".json", ".jsonl")
ID_COLUMNS = ("id", "clip_id")
FILE_COLUMNS = ("file", "wav", "path", "audio")  # ours and audformat's, then others'
POSITION_COLUMNS = ("start", "end", "stop")
_KNOWN = {*ID_COLUMNS, *FILE_COLUMNS, *POSITION_COLUMNS}
_BYTE_ORDER_MARKS = {b"\xef\xbb\xbf": "utf-8-sig", b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}
_SAVE = "Save it as UTF-8"
_LONGEST_NUMBER = 300  # digits; Python refuses to read a number of more than some thousand
# NUL, and halves of characters, which no file could hold. Those that stand for bytes which are
# no UTF-8 are part of some names of files.
_NO_TEXT = re.compile("[\0\ud800-\udfff]")
# Control characters, those that turn the writing direction or end lines unseen, half characters.
_OBEYED = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069"
    "\ud800-\udfff]"
)
_NO_NAME = re.compile("[\0\r\n\ud800-\udc7f\udd00-\udfff]")


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
        under a header; or JSON, a list of objects or SpeechBrain's ``{id: {column: value}}``;
        or JSON lines (``.jsonl``), an object each.

    Returns
    -------
    Table
        Rows with too many or too few cells are in it, with their fault.

    Raises
    ------
    UsageError
        When the file cannot be read or is no table, naming the line where one is to blame.
    """
    columns, rows = stream_table(path)
    read = tuple(rows)
    # Objects may have more columns than the first of them.
    named = dict.fromkeys(chain(columns, *(row.cells for row in read)))
    return Table(path=Path(path), columns=tuple(named), rows=read)


def stream_table(path: str | Path) -> tuple[tuple[str, ...], Iterator[TableRow]]:
    """Read a table row by row, in memory that does not grow with it; only ``.json`` is read whole.

    Parameters
    ----------
    path
        As for :func:`read_table`.

    Returns
    -------
    The columns (of JSON lines none: each row has its own) and the rows, which raise what
    :func:`read_table` raises when they come to what cannot be read.
    """
    path = Path(path)
    if path.suffix.lower() == ".json":
        objects = tuple(_json_rows("".join(_lines(path)), path))
        return tuple(dict.fromkeys(chain(*(row.cells for row in objects)))), iter(objects)
    if path.suffix.lower() == ".jsonl":
        return (), _json_lines(path)
    records = _records(path)
    _, header, fault = next(records, ("", [], ""))
    if fault:
        raise UsageError(f"{path}, header: {fault}")
    columns = _column_names(header, path)
    return columns, (_row(cells, columns, place, fault) for place, cells, fault in records)


def count_rows(path: str | Path) -> int:
    """Tell about how many rows a table has, by its lines; 0 when it cannot be read.

    Rows over several lines count as several, and JSON is mostly written on one: only for a guess
    at the time that something takes.
    """
    count = 0
    try:
        with Path(path).open("rb") as raw:
            while block := raw.read(1 << 20):
                count += block.count(b"\n")
    except OSError:
        return 0
    return count


def clean(text: str) -> str:
    """Strip blanks and bring the text to one Unicode form (NFC)."""
    return unicodedata.normalize("NFC", text).strip()


def harmless(text: str) -> str:
    """Give text with escapes for what a terminal would obey, and for what nobody would see.

    Examples
    --------
    >>> harmless("caf\u00e9 \x1b[2J \u202e")
    'caf\xe9 \\\\x1b[2J \\\\u202e'
    """
    return _OBEYED.sub(lambda found: ascii(found[0])[1:-1], text)


def without_formulas(frame: pd.DataFrame) -> pd.DataFrame:
    """Put a quote before what a spreadsheet would take for a formula and carry out.

    Parameters
    ----------
    frame
        A table whose cells and names of columns come out of files.

    Returns
    -------
    The same as a new table, numbers untouched.
    """

    def quoted(value: Any) -> Any:
        return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value

    changed = {name: map(quoted, frame[name]) for name in frame.select_dtypes(exclude="number")}
    return frame.assign(**{name: list(cells) for name, cells in changed.items()}).rename(
        columns=quoted
    )


def first_of(columns: Iterable[str], cells: Mapping[str, str]) -> str:
    """Return the first of some columns that holds anything; empty where none does."""
    return next((cells[name] for name in columns if cells.get(name)), "")


def _lines(path: Path) -> Iterator[str]:
    """Read the lines of a text, with their ends as they are."""
    encoding = "utf-8"
    try:
        with io.BufferedReader(RegularFile(path)) as raw:
            head = raw.read(4)
            marks = (name for mark, name in _BYTE_ORDER_MARKS.items() if head.startswith(mark))
            encoding = next(marks, encoding)
            if head.count(0) > (encoding == "utf-16"):  # whose first letter may have half of one
                raise UsageError(
                    f"{path} looks like UTF-16 without its mark, or like UTF-32", remedy=_SAVE
                )
            raw.seek(0)
            with io.TextIOWrapper(raw, encoding, newline="") as stream:
                yield from stream
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        place = _undecodable(path, encoding)
        raise UsageError(f"{path} is not {encoding.upper()} text{place}", remedy=_SAVE) from error


def _undecodable(path: Path, encoding: str) -> str:
    """Say where a text cannot be decoded: readers of lines only know the place in a block."""
    decoder = codecs.getincrementaldecoder(encoding)()
    line = 1
    with path.open("rb") as raw:
        while True:
            block = raw.read(1 << 20)
            try:
                decoder.decode(block, final=not block)
            except UnicodeDecodeError as error:
                line += error.object.count(b"\n", 0, error.start)
                return f": byte {error.object[error.start]:#04x} in line {line}"
            if not block:
                return ""
            line += block.count(b"\n")


def _records(path: Path) -> Iterator[tuple[str, list[str], str]]:
    """Give the header and the rows that hold anything: place, cells and fault of each."""
    lines = _lines(path)
    header = next(lines, "")
    reader = csv.reader(chain([header], lines), delimiter=_delimiter(header, path), strict=True)
    while True:
        first = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            if reader.line_num > first or "end of data" in str(error):
                raise UsageError(
                    f"{path}: the quotes that open in line {first} are not closed there ({error})",
                    remedy='Close them; quotes inside quoted cells are written twice: ""',
                ) from error
            yield f"line {first}", [], str(error)
        else:
            last = reader.line_num
            place = f"line {first}" if last == first else f"lines {first} to {last}"
            if first == 1 or any(cells):
                yield place, cells, ""


def _delimiter(header: str, path: Path) -> str:
    if path.suffix.lower() == ".tsv":
        return "\t"
    header = re.sub(r'"[^"]*"', "", header)  # a comma inside quotes is a letter
    return max(",;\t", key=header.count)


def _column_names(header: Iterable[str], path: Path) -> tuple[str, ...]:
    """``ID``, ``Start`` and the like in lower case; other columns keep their names."""
    names = [clean(name.lstrip("\ufeff")) for name in header]  # a second mark, of a second tool
    if broken := [name for name in names if _NO_TEXT.search(name)]:
        raise UsageError(f"{path} has a column named {broken[0]!r}", expected="text")
    names = [name.lower() if name.lower() in _KNOWN else name for name in names]
    twice = [name for name, count in Counter(names).items() if count > 1 and name]
    if twice:
        raise UsageError(f"{path} has several columns named {twice[0]!r}", expected="one of each")
    return tuple(names)


def _row(cells: list[str], columns: tuple[str, ...], place: str, fault: str) -> TableRow:
    named = zip(columns, cells, strict=False)
    found = {name: _cell(name, value) for name, value in named if name}
    if not fault and len(cells) != len(columns):
        fault = f"{len(cells)} cells under a header of {len(columns)} columns"
    return TableRow(place=place, cells=found, fault=fault or fault_in(found))


def fault_in(cells: Mapping[str, str]) -> str:
    """Say which cell cannot be used: what is in it is no text, or no name of a file."""
    for name, value in cells.items():
        named = name in FILE_COLUMNS
        if found := (_NO_NAME if named else _NO_TEXT).search(value):
            kind = "a name of a file" if named else "text"
            return f"the column {name!r} holds {found[0]!r}, which cannot be part of {kind}"
    return ""


def _cell(column: str, value: str) -> str:
    """Text in its one form; a file keeps its spelling, for the disk may know no other."""
    return value.strip() if column in FILE_COLUMNS else clean(value)


def _json_lines(path: Path) -> Iterator[TableRow]:
    for number, line in enumerate(_lines(path), 1):
        if not line.strip():
            continue
        place = f"line {number}"
        try:
            row = _parse_json(line)
        except (RecursionError, ValueError) as error:
            yield TableRow(place=place, cells={}, fault=f"it is not JSON that can be used: {error}")
            continue
        if isinstance(row, dict):
            yield _json_row(place, row, path)
        else:
            yield TableRow(place=place, cells={}, fault="it is no JSON object")


def _parse_json(text: str) -> Any:
    return json.loads(text, object_pairs_hook=_without_repeats, parse_int=_whole)


def _json_rows(text: str, path: Path) -> Iterator[TableRow]:
    try:
        data = _parse_json(text)
    except RecursionError as error:
        raise UsageError(f"{path} is JSON nested too deeply", expected="a table") from error
    except ValueError as error:
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
        yield _json_row(place, row, path)


def _json_row(place: str, row: Mapping[str, Any], path: Path) -> TableRow:
    named = _unfold(dict(zip(_column_names(row, path), row.values(), strict=True)))
    try:
        cells = {name: _cell(name, _text(value)) for name, value in named.items()}
    except RecursionError:
        return TableRow(place=place, cells={}, fault="it is nested too deeply")
    return TableRow(place=place, cells=cells, fault=fault_in(cells))


def _whole(digits: str) -> int | str:
    return int(digits) if len(digits) <= _LONGEST_NUMBER else digits


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
