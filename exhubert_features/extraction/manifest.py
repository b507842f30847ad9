"""CSV, TSV and SpeechBrain manifests: which file, which part of it, and what else is known."""

from __future__ import annotations

import csv
import json
import math
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import UsageError
from ..records import ClipFailure

MANIFEST_SUFFIXES = (".csv", ".tsv", ".json")
FILE_COLUMNS = ("file", "wav", "path")  # ours and audformat's, SpeechBrain's, Common Voice's
PLACEHOLDER = re.compile(r"\{\w+\}|\$\w+")  # SpeechBrain's {data_root} and $data_folder


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One row: a file or a part of it. ``in_samples`` tells the unit of start and end."""

    id: str
    file: str
    start: float = 0.0
    end: float | None = None
    in_samples: bool = False
    meta: Mapping[str, str] = field(default_factory=dict)


def read_manifest(path: Path, data_root: str | None = None) -> Iterator[Entry | ClipFailure]:
    """Rows of a manifest; a row that makes no sense is a failure, the others go on.

    Parameters
    ----------
    path
        ``.csv`` or ``.tsv`` with a ``file`` (or ``wav``) column and optional ``id``, ``start``
        and ``end`` in seconds, or ``start`` and ``stop`` in samples as SpeechBrain has them;
        or SpeechBrain's ``.json``. Relative files resolve against the manifest.
    data_root
        Takes the place of a leading ``{data_root}`` or ``$data_root``, and holds relative files
        that are not beside the manifest.
    """
    rows = _json_rows(path) if path.suffix.lower() == ".json" else _table_rows(path)
    for where, row in rows:
        try:
            yield _entry(row, path.parent, data_root)
        except UsageError:  # not this row's fault
            raise
        except ValueError as error:
            name = str(row.get("id") or _file_of(row) or where)
            reason = f"{path}, {where}: {error}"
            yield ClipFailure(id=name, file=str(path), kind="manifest", reason=reason)


def _table_rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Rows of a table as (place, cells), known column names in lower case."""
    separator = "\t" if path.suffix.lower() == ".tsv" else ","
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            table = csv.DictReader(stream, delimiter=separator)
            header = [_known(name) for name in table.fieldnames or ()]
            if not set(FILE_COLUMNS) & set(header):
                raise UsageError(
                    f"{path} has the columns {', '.join(header) or 'none'}",
                    expected="a column named file (or wav, path)",
                )
            for row in table:
                cells = {_known(name or ""): value or "" for name, value in row.items()}
                yield f"line {table.line_num}", cells
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise _unreadable(path, error) from error


def _json_rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Items of a SpeechBrain JSON manifest, ``{id: {"wav": ..., ...}}``."""
    try:
        data = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from error
    if not isinstance(data, dict) or not all(isinstance(row, dict) for row in data.values()):
        raise UsageError(
            f"{path} is JSON of another kind",
            expected='a SpeechBrain manifest: {"clip id": {"wav": "file", ...}, ...}',
        )
    for name, row in data.items():
        cells = {_known(key): value for key, value in row.items()}
        audio = _file_of(cells)
        if isinstance(audio, dict):  # SpeechBrain's way to name a part of a file
            cells |= {"file": audio.get("file"), "start": audio.get("start")}
            cells["stop"] = audio.get("stop")
        yield f"item {name!r}", {**cells, "id": name}


def _entry(row: Mapping[str, Any], folder: Path, data_root: str | None) -> Entry:
    """One row as an entry; a ValueError says what is wrong with it."""
    if row.get(""):
        raise ValueError("more cells than the header has columns")
    name = _file_of(row)
    if not isinstance(name, str) or not name:
        raise ValueError("no audio file")
    in_samples = row.get("stop") not in (None, "") and row.get("end") in (None, "")
    start = _position(row.get("start")) or 0.0
    end = _position(row.get("stop" if in_samples else "end"))
    part = "" if not start and end is None else f"@{start:g}-{'' if end is None else f'{end:g}'}"
    known = {"", "id", "start", "end", "stop", *FILE_COLUMNS}
    return Entry(
        id=str(row.get("id") or name + part),
        file=_resolve(name, folder, data_root),
        start=start,
        end=end,
        in_samples=in_samples,
        meta={key: _text(value) for key, value in row.items() if key not in known},
    )


def _known(name: str) -> str:
    """``ID``, ``Start`` and the like in lower case; other columns keep their names."""
    lower = name.strip().lower()
    return lower if lower in {"id", "start", "end", "stop", *FILE_COLUMNS} else name


def _file_of(row: Mapping[str, Any]) -> Any:
    return next((row[name] for name in FILE_COLUMNS if row.get(name)), None)


def _position(value: Any) -> float | None:
    """A position as a number, or as audformat's ``0 days 00:00:01.5``; None when not given."""
    if value is None or value in ("", "NaT"):
        return None
    try:
        position = float(value)
    except (TypeError, ValueError):
        position = _timedelta(value)
    if not math.isfinite(position):
        raise ValueError(f"{value!r} is no position in seconds or samples")
    return position


def _timedelta(value: Any) -> float:
    """Seconds of ``0 days 00:00:01.5``; NaN for anything else."""
    import pandas

    return float(pandas.to_timedelta(value, errors="coerce").total_seconds())


def _resolve(name: str, folder: Path, data_root: str | None) -> str:
    placeholder = PLACEHOLDER.match(name)
    if placeholder and data_root is None:
        raise UsageError(
            f"the manifest in {folder} says {placeholder[0]} in {name!r}",
            expected="to be told the folder that stands for it",
            remedy="Name it with --data-root, or data_root=",
        )
    if placeholder:
        name = str(data_root) + name[placeholder.end() :]
        return os.path.normpath(name)
    if data_root is not None and not os.path.lexists(folder / name):
        return os.path.normpath(Path(data_root) / name)
    return os.path.normpath(folder / name)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _unreadable(path: Path, error: Exception) -> UsageError:
    return UsageError(f"the manifest {path} cannot be read ({error})")
