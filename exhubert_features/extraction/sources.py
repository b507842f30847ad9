"""What a user points at (paths, tables, arrays), taken apart into clips."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeGuard

import numpy as np
from torch import Tensor

from ..errors import UsageError
from ..records import ClipFailure
from ..spec import SAMPLE_RATE
from ..suffixes import SOUND_SUFFIXES, VIDEO_SUFFIXES
from ..tables import FILE_COLUMNS, TABLE_SUFFIXES, TableRow
from .manifest import Entry, read_manifest, read_row

if TYPE_CHECKING:
    import pandas as pd

Wave = np.ndarray | Tensor
Array = Wave | tuple[Wave, int]
Source: TypeAlias = (
    "str | Path | Iterable[str | Path] | Array | Iterable[Array] | Mapping[str, Array]"
    " | Iterable[LazyClip] | pd.DataFrame | pd.Series | pd.Index"
)
_TAKEN = SOUND_SUFFIXES | VIDEO_SUFFIXES  # from folders


@dataclass(frozen=True, kw_only=True)
class LazyClip:
    """A clip that comes out of a function, for audio that is neither a file nor in memory.

    It is loaded twice, never kept: once for its length and its hash, by which a store knows
    what it has, and once to be encoded.

    Parameters
    ----------
    id
        Its name, like no other's.
    load
        Gives an array (N,) or (N, channels) at 16 kHz, or a pair (array, rate). When it raises
        OSError, RuntimeError, ValueError or LookupError the clip has failed, and why is kept.
    labels
        What is known of the clip by column, ``{"emotion": "joy", "speaker": "s1"}``: kept in
        stores as the columns of a manifest are.

    Examples
    --------
    >>> noise = np.random.default_rng(0)
    >>> clips = (
    ...     LazyClip(id=f"take {n}", load=lambda: noise.normal(size=16_000), labels={"take": n})
    ...     for n in range(3)
    ... )
    >>> [clip.labels["take"] for clip in clips]
    [0, 1, 2]
    """

    id: str
    load: Callable[[], Array]
    labels: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Named:
    """What a source names: entries of files, arrays by id, or clips to load.

    ``left_out`` counts files in folders whose names are not those of audio.
    """

    entries: tuple[Entry | ClipFailure, ...] = ()
    arrays: Mapping[str, tuple[np.ndarray, int]] = field(default_factory=dict)
    lazy: tuple[LazyClip, ...] = ()
    left_out: int = 0


def read_source(source: Source, data_root: str | Path | None = None) -> Named:
    """Find out what a source names, without opening any audio.

    Parameters
    ----------
    source
        A file, folder or manifest, or several of them; an array or a pair (array, rate), a
        list of these, or a dict of them by id, 16 kHz where no rate is given; several
        :class:`LazyClip`; a DataFrame or Series with audformat's index (file, start, end), a
        DataFrame with columns of these names, or such an index alone. Arrays in a list are known
        by their place in it.
    data_root
        Takes the place of ``{data_root}`` in manifests, and holds relative files that are not
        beside them.
    """
    root = None if data_root is None else str(data_root)
    if isinstance(source, str | os.PathLike):
        return _read_paths([source], root)
    if isinstance(source, Mapping):
        return Named(arrays={name: with_rate(name, array) for name, array in source.items()})
    if _is_array(source):
        return Named(arrays={"0": with_rate("0", source)})
    if _is_table(source):
        return Named(entries=tuple(_read_table(source, root)))
    items = list(source)
    if items and all(isinstance(item, LazyClip) for item in items):
        return Named(lazy=tuple(items))
    if items and all(_is_array(item) for item in items):
        return Named(arrays={str(n): with_rate(str(n), item) for n, item in enumerate(items)})
    return _read_paths(items, root)


def _read_paths(paths: Sequence[Any], data_root: str | None) -> Named:
    if not paths:
        raise UsageError("no input at all", expected="files, folders or manifests")
    strange = [item for item in paths if not isinstance(item, str | os.PathLike)]
    if strange:
        raise UsageError(
            f"a {type(strange[0]).__name__} among the inputs",
            expected="paths only, only arrays and pairs (array, rate), or only LazyClips",
        )
    if not any(os.path.lexists(path) for path in paths):
        raise UsageError(f"{', '.join(map(str, paths))} does not exist")
    left_out: list[Path] = []
    entries = [entry for path in paths for entry in _read_path(Path(path), data_root, left_out)]
    if not entries:
        raise UsageError(
            f"no audio in {', '.join(map(str, paths))}", expected="files such as .wav or .flac"
        )
    return Named(entries=tuple(entries), left_out=len(left_out))


def _read_path(
    path: Path, data_root: str | None, left_out: list[Path]
) -> Iterator[Entry | ClipFailure]:
    """Clips that one input names. A file is known by its path, a folder's by the path inside."""
    if path.is_dir():
        yield from _read_folder(path, left_out)
    elif path.suffix.lower() in TABLE_SUFFIXES:
        yield from read_manifest(path, data_root)
    else:
        yield Entry(id=path.as_posix(), file=str(path))


def _read_folder(folder: Path, left_out: list[Path]) -> Iterator[Entry | ClipFailure]:
    unreadable: list[OSError] = []
    seen = {os.path.realpath(folder)}
    for where, folders, names in os.walk(folder, onerror=unreadable.append, followlinks=True):
        folders[:] = sorted(name for name in folders if _enter(Path(where, name), seen))
        for name in sorted(names):
            path = Path(where, name)
            # Hidden: among others the ._name.wav that macOS leaves beside every name.wav.
            if path.suffix.lower() in _TAKEN and not name.startswith("."):
                yield Entry(id=path.relative_to(folder).as_posix(), file=str(path))
            else:
                left_out.append(path)
    for error in unreadable:
        file = os.fspath(error.filename)
        reason = f"the folder {file} cannot be listed ({error.strerror})"
        yield ClipFailure(id=file, file=file, kind="permission", reason=reason)


def _enter(folder: Path, seen: set[str]) -> bool:
    """Whether to walk a folder: not a hidden one, and none twice, as links may form circles."""
    real = os.path.realpath(folder)
    if folder.name.startswith(".") or real in seen:
        return False
    seen.add(real)
    return True


def _is_table(source: object) -> TypeGuard[pd.DataFrame | pd.Series | pd.Index]:
    pandas = sys.modules.get("pandas")  # who holds a DataFrame has imported it
    kinds = () if pandas is None else (pandas.DataFrame, pandas.Series, pandas.Index)
    return isinstance(source, kinds)


def _read_table(
    source: pd.DataFrame | pd.Series | pd.Index, root: str | None
) -> Iterator[Entry | ClipFailure]:
    """Rows of a table in memory, as those of a manifest that lies in the working directory."""
    import pandas

    if isinstance(source, pandas.Index):
        # One without a name is of files, as pandas makes it of a list.
        nameless = source.nlevels == 1 and source.name is None
        table = (source.rename("file") if nameless else source).to_frame(index=False)
    elif isinstance(source, pandas.Series):
        named = bool(set(source.index.names) & set(FILE_COLUMNS))
        table = source.to_frame(source.name if named and source.name is not None else "file")
    else:
        table = source
    if set(table.index.names) & set(FILE_COLUMNS):
        table = table.drop(columns=table.index.names, errors="ignore").reset_index()
    columns = [str(name) for name in table.columns]
    if not set(columns) & set(FILE_COLUMNS):
        raise UsageError(
            f"the table has the columns {', '.join(columns) or 'none'}",
            expected="an index (file, start, end), or a column named file",
        )
    texts = [[_cell(value) for value in table[name]] for name in table.columns]
    for number, values in enumerate(zip(*texts, strict=True)):
        row = TableRow(place=f"row {number}", cells=dict(zip(columns, values, strict=True)))
        yield read_row(row, table="the table", folder=Path(), data_root=root)


def _cell(value: Any) -> str:
    """Turn a cell into text: nothing for what is missing, seconds for a timedelta."""
    import pandas

    if value is None or (np.ndim(value) == 0 and pandas.isna(value)):
        return ""
    return str(value.total_seconds() if isinstance(value, pandas.Timedelta) else value)


def _is_array(item: object) -> TypeGuard[Array]:
    if isinstance(item, tuple):
        return len(item) == 2 and _is_array(item[0]) and isinstance(item[1], Real)
    return isinstance(item, np.ndarray | Tensor)


def with_rate(name: str, item: Array) -> tuple[np.ndarray, int]:
    """Take an array, or a pair (array, rate), apart; refuse anything else."""
    if not _is_array(item):
        raise UsageError(
            f"{name} is a {type(item).__name__}",
            expected="an array, or a pair (array, rate) with a whole number of samples a second",
        )
    wave, rate = item if isinstance(item, tuple) else (item, SAMPLE_RATE)
    array = np.asarray(wave.detach().cpu() if isinstance(wave, Tensor) else wave)
    return array, int(rate) if float(rate).is_integer() else rate  # others are refused by name
