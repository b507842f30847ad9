"""Rows of a manifest or of a DataFrame: which file, which part of it, and what else is known."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from ..audio import is_url
from ..errors import UsageError
from ..records import ClipFailure, Entry, Item
from ..tables import (
    FILE_COLUMNS,
    ID_COLUMNS,
    POSITION_COLUMNS,
    TableRow,
    fault_in,
    first_of,
    stream_table,
)

PLACEHOLDER = re.compile(r"\{\w+\}|\$\w+")  # SpeechBrain's {data_root} and $data_folder
# Control characters, and the surrogates that stand for bytes which are no UTF-8.
UNSTORABLE = re.compile("[\x00-\x1f\x7f\ud800-\udfff]")
_KNOWN = {*ID_COLUMNS, *FILE_COLUMNS, *POSITION_COLUMNS}


def read_manifest(path: Path, data_root: str | None = None) -> Iterator[Item]:
    """Read the rows of a manifest; one that makes no sense is a failure, the others go on.

    Parameters
    ----------
    path
        A table with a ``file`` (or ``wav``) column and optional ``id``, ``start`` and ``end`` in
        seconds, or ``start`` and ``stop`` in samples as SpeechBrain has them; or SpeechBrain's
        ``.json``. Relative files resolve against the manifest.
    data_root
        Takes the place of a leading ``{data_root}`` or ``$data_root``, and holds relative files
        that are not beside the manifest.
    """
    columns, rows = stream_table(path)
    if columns and not set(FILE_COLUMNS) & set(columns):
        raise UsageError(
            f"{path} has the columns {', '.join(columns) or 'none'}",
            expected="a column named file (or wav, path)",
            remedy="Name the columns in the first line, with commas, semicolons or tabs between",
        )
    for row in rows:
        yield read_row(row, table=str(path), folder=path.parent, data_root=data_root)


def read_row(row: TableRow, *, table: str, folder: Path, data_root: str | None) -> Item:
    """Read one row.

    Parameters
    ----------
    row
        Its cells by column, as text.
    table
        What errors call the table.
    folder
        Where relative files are.
    data_root
        See :func:`read_manifest`.
    """
    try:
        if fault := row.fault or fault_in(row.cells):
            raise ValueError(fault)
        return _entry(row.cells, folder, data_root)
    except UsageError:  # not this row's fault
        raise
    except ValueError as error:
        name = storable(first_of((*ID_COLUMNS, *FILE_COLUMNS), row.cells)) or row.place
        reason = f"{table}, {row.place}: {error}"
        return ClipFailure(id=name, file=table, kind="manifest", reason=reason)


def _entry(cells: Mapping[str, str], folder: Path, data_root: str | None) -> Entry:
    """One row as an entry; a ValueError says what is wrong with it."""
    name = first_of(FILE_COLUMNS, cells)
    if not name:
        raise ValueError("no audio file")
    in_samples = bool(cells.get("stop")) and not cells.get("end")
    start = _position(cells.get("start", "")) or 0.0
    end = _position(cells.get("stop" if in_samples else "end", ""))
    if start < 0 or (end is not None and end <= start):
        raise ValueError(
            f"no part goes from {start:g} to {'the end' if end is None else f'{end:g}'}"
        )
    part = "" if not start and end is None else f"@{start:g}-{'' if end is None else f'{end:g}'}"
    return Entry(
        id=first_of(ID_COLUMNS, cells) or name + part,
        file=_resolve(name, folder, data_root),
        start=start,
        end=end,
        in_samples=in_samples,
        meta={key: value for key, value in cells.items() if key not in _KNOWN},
    )


def _position(text: str) -> float | None:
    """Read a position, a number or audformat's ``0 days 00:00:01.5``; None when not given."""
    if text in ("", "NaT"):
        return None
    try:
        position = float(text) if text.isascii() and "_" not in text else math.nan  # 1_0 is no 10
    except ValueError:
        position = _timedelta(text)
    if not math.isfinite(position):
        shown = text if len(text) < 60 else f"{text[:50]}..."
        raise ValueError(f"{shown!r} is no position in seconds or samples")
    return position


def _timedelta(text: str) -> float:
    """Seconds of ``0 days 00:00:01.5``; NaN for anything else."""
    import pandas

    if not re.search("[a-z:]", text):  # 0,5 would be five billionths of a second
        return math.nan
    return float(pandas.to_timedelta(text, errors="coerce").total_seconds())


def storable(text: object) -> str:
    """Control characters, and what is no character, as escapes: any store can hold the rest."""
    return UNSTORABLE.sub(lambda found: ascii(found[0])[1:-1], str(text))


def _resolve(name: str, folder: Path, data_root: str | None) -> str:
    if is_url(name):
        return name
    placeholder = PLACEHOLDER.match(name)
    if placeholder and data_root is None:
        raise UsageError(
            f"the manifest in {folder} says {placeholder[0]} in {name!r}",
            expected="to be told the folder that stands for it",
            remedy="Name it with --data-root, or data_root=",
        )
    if data_root is not None and is_url(data_root):
        return (
            f"{data_root.rstrip('/')}/{name[placeholder.end() if placeholder else 0 :].lstrip('/')}"
        )
    if placeholder:
        return os.path.normpath(str(data_root) + name[placeholder.end() :])
    beside = _below(str(folder), name)
    if data_root is not None and not os.path.lexists(beside):
        return _below(data_root, name)
    return beside


def _below(folder: str, name: str) -> str:
    """Join two names as Path does, in a third of its time."""
    return os.path.normpath(name if name.startswith("/") else f"{folder.rstrip('/')}/{name}")
