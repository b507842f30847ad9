"""What a user points at (paths, tables, arrays), taken apart into clips as it is read."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Real
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, TypeAlias, TypeGuard

import numpy as np
from torch import Tensor

from ..audio import check_scheme, is_url, list_urls
from ..errors import AudioError, UsageError
from ..records import ClipFailure, Entry, Item
from ..spec import SAMPLE_RATE
from ..suffixes import SOUND_SUFFIXES, VIDEO_SUFFIXES
from ..tables import FILE_COLUMNS, TABLE_SUFFIXES, TableRow, count_rows
from .manifest import read_manifest, read_row

if TYPE_CHECKING:
    import pandas as pd

Wave = np.ndarray | Tensor
Array = Wave | tuple[Wave, int]
Source: TypeAlias = (
    "str | Path | Iterable[str | Path] | Array | Iterable[Array] | Mapping[str, Array]"
    " | Iterable[LazyClip] | Iterable[Entry | ClipFailure] | pd.DataFrame | pd.Series | pd.Index"
)
_TAKEN = SOUND_SUFFIXES | VIDEO_SUFFIXES  # from folders
MOST_CHANNELS = 64  # an array with more is something else, a matrix of features for example


@dataclass(frozen=True, kw_only=True)
class LazyClip:
    """A clip that comes out of a function, for audio that is neither a file nor in memory.

    It is loaded when its turn comes, in a thread, and not kept: its samples are hashed, by which
    a store knows what it has, and encoded if they are new.

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


@dataclass(frozen=True)
class InMemory:
    """Gives an array that is there already."""

    array: np.ndarray
    rate: int

    def __call__(self) -> Array:
        """Give it, with its rate."""
        return self.array, self.rate


def read_source(source: Source, data_root: str | Path | None = None) -> Iterable[Item]:
    """Find out what a source names, without opening any audio.

    Parameters
    ----------
    source
        A file, folder or manifest, or several of them; an array or a pair (array, rate), a
        list of these, or a dict of them by id, 16 kHz where no rate is given; several
        :class:`LazyClip`; a DataFrame or Series with audformat's index (file, start, end), a
        DataFrame with columns of these names, or such an index alone; or entries. Arrays in a
        list are known by their place in it.
    data_root
        Takes the place of ``{data_root}`` in manifests, and holds relative files that are not
        beside them.

    Returns
    -------
    What can be iterated over any number of times, each time from the beginning, but for an
    iterator: its items are not kept, and it is read once.
    """
    root = None if data_root is None else str(data_root)
    if root is not None and is_url(root):
        check_scheme(root)
    if isinstance(source, str | os.PathLike):
        return Inputs([source], root)
    if isinstance(source, Mapping):
        return [_array_entry(name, array) for name, array in source.items()]
    if _is_array(source):
        return [_array_entry("0", source)]
    if _is_table(source):
        return _Table(source, root)
    items = source if isinstance(source, Sequence | Iterator) else list(source)
    return Inputs(items, root)


class Inputs:
    """Items one by one, files and folders and manifests taken apart.

    Attributes
    ----------
    left_out
        How many files in folders were passed over the last time, as their names are not those
        of audio.
    """

    def __init__(self, items: Sequence[Any] | Iterator[Any], data_root: str | None) -> None:
        self._items, self._data_root = items, data_root
        self._used = False
        self.left_out = 0
        if isinstance(items, Iterator):
            return
        if not items:
            raise UsageError("no input at all", expected="files, folders or manifests")
        kinds = [_kind(item, _kind(items[0])) for item in items]
        if kinds[0] == "path" and not any(is_url(str(i)) or os.path.lexists(i) for i in items):
            raise UsageError(f"{', '.join(map(str, items))} does not exist")

    def __iter__(self) -> Iterator[Item]:
        if self.once and self._used:
            raise UsageError(
                "the source is an iterator, and has been read to its end",
                expected="to be read once",
                remedy="Pass a list, or make another iterator",
            )
        self._used = True
        self.left_out = count = 0
        kind = ""
        for number, item in enumerate(self._items):
            kind = _kind(item, kind)
            for entry in self._entries(number, item):
                count += 1
                yield entry
        if not count:
            named = "the source" if self.once else ", ".join(map(str, self._items))
            raise UsageError(f"no audio in {named}", expected="files such as .wav or .flac")

    @property
    def once(self) -> bool:
        """Whether it can be read once only."""
        return isinstance(self._items, Iterator)

    def about(self) -> int | None:
        """Tell how many clips there are, about, in less time than it takes to name them."""
        if isinstance(self._items, Iterator):
            return None
        if _kind(self._items[0]) != "path":
            return len(self._items)
        return sum(self._about(Path(item), str(item)) for item in self._items)

    def _about(self, path: Path, name: str) -> int:
        if is_url(name) or path.is_dir():
            left_out = self.left_out
            count = sum(1 for _ in self._entries(0, name))
            self.left_out = left_out
            return count
        return count_rows(path) if path.suffix.lower() in TABLE_SUFFIXES else 1

    def _entries(self, number: int, item: Any) -> Iterator[Item]:
        if isinstance(item, Entry | ClipFailure):
            yield item
        elif isinstance(item, LazyClip):
            known = {name: str(value) for name, value in item.labels.items() if value is not None}
            yield Entry(id=item.id, meta=known, load=item.load)
        elif _is_array(item):
            yield _array_entry(str(number), item)
        elif is_url(str(item)):
            yield from self._url(str(item))
        else:
            yield from self._path(Path(item))

    def _path(self, path: Path) -> Iterator[Item]:
        """Clips of one input. A file is known by its path, a folder's by the path inside."""
        if path.is_dir():
            yield from self._folder(path)
        elif path.suffix.lower() in TABLE_SUFFIXES:
            yield from read_manifest(path, self._data_root)
        else:
            yield Entry(id=path.as_posix(), file=str(path))

    def _url(self, url: str) -> Iterator[Item]:
        """Clips of a URL: a file, or with a slash at its end a folder."""
        check_scheme(url)
        if not url.endswith("/"):
            if PurePosixPath(url).suffix.lower() in TABLE_SUFFIXES:
                raise UsageError(
                    f"{url} is a table at a URL",
                    expected="a manifest in a file here; its column of files may hold URLs",
                    remedy="Download it first, and name its files' folder with --data-root",
                )
            yield Entry(id=url, file=url)
            return
        for inside, file in list_urls(url):
            if _is_audio(PurePosixPath(inside).name):
                yield Entry(id=inside, file=file)
            else:
                self.left_out += 1

    def _folder(self, folder: Path) -> Iterator[Item]:
        unreadable: list[OSError] = []
        seen = {os.path.realpath(folder)}
        for where, folders, names in os.walk(folder, onerror=unreadable.append, followlinks=True):
            folders[:] = sorted(name for name in folders if _enter(Path(where, name), seen))
            inside = Path(where).relative_to(folder).as_posix()
            known = "" if inside == "." else f"{inside}/"
            base = "" if Path(where) == Path() else f"{Path(where)}/".replace("//", "/")
            for name in sorted(names):
                if _is_audio(name):
                    yield Entry(id=known + name, file=base + name)
                else:
                    self.left_out += 1
        for error in unreadable:
            file = os.fspath(error.filename)
            reason = f"the folder {file} cannot be listed ({error.strerror})"
            yield ClipFailure(id=file, file=file, kind="permission", reason=reason)


def _kind(item: object, wanted: str = "") -> str:
    """Tell what an item of a source is; all have to be of one kind."""
    kinds = {"path": str | os.PathLike, "clip": LazyClip, "entry": Entry | ClipFailure}
    found = next((kind for kind, types in kinds.items() if isinstance(item, types)), "")
    found = found or ("array" if _is_array(item) else "")
    if not found or (wanted and found != wanted):
        raise UsageError(
            f"a {type(item).__name__} among the inputs",
            expected="paths only, only arrays and pairs (array, rate), or only LazyClips",
        )
    return found


def _is_audio(name: str) -> bool:
    """Whether to take a file of a folder, by its name."""
    # Hidden: among others the ._name.wav that macOS leaves beside every name.wav.
    return PurePosixPath(name).suffix.lower() in _TAKEN and not name.startswith(".")


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


class _Table:
    """Rows of a table in memory, as those of a manifest that lies in the working directory."""

    def __init__(self, source: pd.DataFrame | pd.Series | pd.Index, root: str | None) -> None:
        self._table, self._root = _with_columns(source), root
        self._columns = [str(name) for name in self._table.columns]
        if not set(self._columns) & set(FILE_COLUMNS):
            raise UsageError(
                f"the table has the columns {', '.join(self._columns) or 'none'}",
                expected="an index (file, start, end), or a column named file",
            )

    def __iter__(self) -> Iterator[Item]:
        texts = (map(_cell, self._table[name]) for name in self._table.columns)
        for number, values in enumerate(zip(*texts, strict=True)):
            cells = dict(zip(self._columns, values, strict=True))
            row = TableRow(place=f"row {number}", cells=cells)
            yield read_row(row, table="the table", folder=Path(), data_root=self._root)

    def __len__(self) -> int:
        return len(self._table)


def _with_columns(source: pd.DataFrame | pd.Series | pd.Index) -> pd.DataFrame:
    """Put audformat's index into columns."""
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
    return table


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


def _with_rate(name: str, item: Array) -> tuple[np.ndarray, int]:
    """Take an array, or a pair (array, rate), apart; refuse anything else."""
    if not _is_array(item):
        raise UsageError(
            f"{name} is a {type(item).__name__}",
            expected="an array, or a pair (array, rate) with a whole number of samples a second",
        )
    wave, rate = item if isinstance(item, tuple) else (item, SAMPLE_RATE)
    array = np.asarray(wave.detach().cpu() if isinstance(wave, Tensor) else wave)
    return array, int(rate) if float(rate).is_integer() else rate  # others are refused by name


def _array_entry(name: str, item: Array) -> Entry:
    array, rate = _with_rate(name, item)
    return Entry(id=name, load=InMemory(array, rate))


def load_array(entry: Entry, channel: int | None) -> tuple[np.ndarray, int]:
    """Load a clip that is no file: its samples (N,) and their rate.

    An AudioError says what went wrong.

    Parameters
    ----------
    entry
        One with a function that loads it.
    channel
        The channel to hear, from 0; None for the mean of all.
    """
    assert entry.load is not None
    try:
        wave, rate = _with_rate(entry.id, entry.load())
    except UsageError as error:
        raise AudioError(str(error), kind="dtype") from error
    except (OSError, RuntimeError, ValueError, LookupError) as error:
        raise AudioError(
            f"{entry.id} could not be loaded ({type(error).__name__}: {error})", kind="unreadable"
        ) from error
    return _one_channel(entry.id, wave, channel), rate


def _one_channel(name: str, array: np.ndarray, channel: int | None) -> np.ndarray:
    """(N,) out of (N,), (N, C) or (C, N): the channel asked for, or the mean of all."""
    if array.ndim != 2 or min(array.shape) > MOST_CHANNELS:
        channels = [array]  # of any other shape it is refused when its samples are counted
    else:
        channels = list(array if array.shape[0] < array.shape[1] else array.T)
    if channel is not None and channel >= len(channels):
        raise AudioError(
            f"{name} has no channel {channel}",
            expected=f"0 to {len(channels) - 1}, as it has {len(channels)}",
            kind="channel",
        )
    if len(channels) == 1 or channel is not None:
        return channels[channel or 0]
    if not np.issubdtype(array.dtype, np.floating):
        return channels[0]  # refused when its samples are counted; the mean would not be
    with np.errstate(over="ignore", invalid="ignore"):  # refused by name when it is read
        return np.mean(channels, axis=0)
