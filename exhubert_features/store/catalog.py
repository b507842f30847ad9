"""The table of all rows of a store, read from its shards and kept in a disposable index."""

from __future__ import annotations

import contextlib
import io
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DamagedStore, StoreError
from ..files import IrregularFile, publish, read_regular
from ..fingerprint import Fingerprint
from ..stamps import read_json
from .opening import (
    REPAIR,
    ShardFile,
    ShardTable,
    check_table,
    checked_shard,
    read_error,
    split_words,
)
from .shard import NUMBERS, TEXT

INDEX = "index.npz"
SHARDS = "shards"
QUARANTINE = "quarantine"
STATE = "state.json"
_INDEX_VERSION = 2
_DIGITS = 8  # a number of more is no shard's: they are taken one by one
_LOST_NAMED = 1000  # of a store that misses millions, no more are listed


@dataclass
class Catalog:
    """All rows of all shards, in shard order; ``live`` are those not replaced since.

    Text columns stay joined by NUL until somebody asks: 100,000 ids decode in milliseconds,
    but most readers never look at most columns.
    """

    tables: tuple[ShardTable, ...]
    live: np.ndarray
    shards: tuple[ShardFile, ...] = field(init=False)
    first: np.ndarray = field(init=False)  # (shards + 1,) first row of each shard
    numbers: dict[str, np.ndarray] = field(init=False)
    _words: dict[str, list[str]] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self.shards = tuple(table.place for table in self.tables)
        self.first = np.cumsum([0, *(shard.rows for shard in self.shards)], dtype=np.int64)
        self.numbers = {
            name: np.concatenate([np.empty(0, dtype), *(t.numbers[name] for t in self.tables)])
            for name, (dtype, *_) in NUMBERS.items()
        }

    def joined(self, name: str) -> bytes:
        """One text column, all rows, words joined by NUL."""
        return b"\0".join(table.text[name] for table in self.tables if table.place.rows)

    def text(self, name: str) -> list[str]:
        """One text column, all rows."""
        if name not in self._words:
            self._words[name] = split_words(self.joined(name), int(self.first[-1]))
        return self._words[name]

    def column(self, name: str) -> list[Any]:
        """One column of the rows that count."""
        if name in self.numbers:
            return self.numbers[name][self.live].tolist()
        words = self.text(name)
        return words[:] if len(words) == len(self.live) else [words[row] for row in self.live]

    @cached_property
    def rows(self) -> dict[str, int]:
        """Where each row that counts stands among all, by id."""
        return dict(zip(self.column("id"), self.live.tolist(), strict=True))

    def frame_counts(self) -> np.ndarray:
        """How many frames each row that counts has, (N,)."""
        ends = self.numbers["frame_end"]
        counts = np.diff(ends, prepend=0)
        firsts = self.first[:-1][np.diff(self.first) > 0]
        counts[firsts] = ends[firsts]  # ends count from the beginning of each shard
        return counts[self.live]

    def __getstate__(self) -> dict[str, Any]:
        # The lookup table is quicker to build than to send.
        return {key: value for key, value in self.__dict__.items() if key != "rows"}

    def equals(self, other: Catalog) -> bool:
        """Whether two catalogs say the same."""
        return (
            self.shards == other.shards
            and np.array_equal(self.live, other.live)
            and all(self.joined(name) == other.joined(name) for name in TEXT)
            and all(np.array_equal(self.numbers[name], other.numbers[name]) for name in NUMBERS)
        )


def join_tables(tables: Sequence[ShardTable]) -> Catalog:
    """One catalog out of shards; the newest shard that holds a clip wins."""
    catalog = Catalog(tuple(tables), np.empty(0, np.int64))
    clips = catalog.text("clip_id")
    owners = np.repeat(np.arange(len(tables)), np.diff(catalog.first)).tolist()
    newest = dict(zip(clips, owners, strict=True))  # the last one stays
    live = [newest[clip] == owner for clip, owner in zip(clips, owners, strict=True)]
    catalog.live = np.flatnonzero(live)
    return catalog


def shard_path(store: Path, number: int) -> Path:
    """Where shard ``number`` of a store lies; a packed store is its own only shard."""
    return store if store.is_file() else store / SHARDS / f"{number:06d}.h5"


def tombstone_path(store: Path, number: int) -> Path:
    """Give the note that shard ``number`` was taken out by a repair."""
    return store / QUARANTINE / f"{number:06d}.json"


def tombstones(store: Path) -> dict[int, Path]:
    """Give the notes of all shards that repairs took out."""
    paths = ((_number(path, ".json"), path) for path in list_folder(store / QUARANTINE))
    return {number: path for number, path in paths if number is not None}


def shard_number(path: Path) -> int | None:
    """Give number of a shard file by its name, None for any other file."""
    return _number(path, ".h5")


def _number(path: Path, suffix: str) -> int | None:
    digits = path.stem.isascii() and path.stem.isdecimal() and len(path.stem) <= _DIGITS
    number = int(path.stem) if digits else -1
    return number if path.name == f"{number:06d}{suffix}" else None


def list_folder(folder: Path) -> list[Path]:
    """Files in a folder, sorted; none when it is absent.

    Raises
    ------
    StoreError
        When it cannot be listed: what is in it is not known then.
    """
    try:
        return sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except FileNotFoundError:
        return []
    except OSError as error:
        raise read_error(folder, error) from error


def shard_files(store: Path) -> dict[int, Path]:
    """Give the shards of a store, by number."""
    paths = ((shard_number(path), path) for path in list_folder(store / SHARDS))
    return {number: path for number, path in paths if number is not None}


def lost_shards(store: Path, present: Iterable[int]) -> list[int]:
    """Numbers of shards that were published once, and are neither there nor quarantined.

    Writers take numbers without gaps, and note at the end how many there are.
    """
    there = {*present, *tombstones(store)}
    state = read_record(store / STATE)
    noted = state.get("shards") if state else 0
    if type(noted) is not int or noted < 0:
        raise DamagedStore(f"{store / STATE} notes {noted!r} shards", remedy=REPAIR)
    stop = max([noted, *(number + 1 for number in there)], default=0)
    missing = (number for number in range(stop) if number not in there)
    # A folder listing is no snapshot: look again before calling a shard lost.
    lost = (
        number
        for number in missing
        if not shard_path(store, number).exists() and not tombstone_path(store, number).exists()
    )
    return list(islice(lost, _LOST_NAMED))


def read_record(path: Path) -> dict[str, Any]:
    """JSON data of a store, empty when the file is absent.

    Raises
    ------
    DamagedStore
        When it is not what was written.
    """
    try:
        return read_json(path)
    except FileNotFoundError:
        return {}
    except IrregularFile as error:
        raise DamagedStore(f"{path} is no regular file", remedy=REPAIR) from error
    except OSError as error:
        raise read_error(path, error) from error


def next_number(store: Path, shards: Iterable[ShardFile]) -> int:
    """Give the number after every shard there is and every one a repair took out."""
    return max([*(shard.number for shard in shards), *tombstones(store)], default=-1) + 1


def load_catalog(
    store: Path, fingerprint: Fingerprint, *, known: Sequence[ShardTable] = ()
) -> Catalog:
    """Give the catalog of a store, from its index where that is current, else from the shards.

    A shard whose size and modification time are those in the index was checked before; any
    other is hashed before HDF5 opens it. ``known`` are shards that the caller has checked.

    Raises
    ------
    DamagedStore
        When a shard is missing, cut or changed.
    """
    keys = sorted(found for found in map(_key, shard_files(store).items()) if found)
    if lost := lost_shards(store, [number for number, *_ in keys]):
        many = f"at least {len(lost)}" if len(lost) == _LOST_NAMED else len(lost)
        raise DamagedStore(
            f"{store} has lost {many} shards, the first is {shard_path(store, lost[0])}",
            remedy="Run `exhubert verify --repair` on it, then extract again",
        )
    index = read_index(store / INDEX)
    if index and [shard[:3] for shard in index.shards] == keys:
        return index
    checked = {table.place[:3]: table for table in [*(index.tables if index else ()), *known]}
    catalog = join_tables(
        [
            checked.get(key) or read_shard(shard_path(store, key[0]), key[0], fingerprint)
            for key in keys
        ]
    )
    _save_index(store / INDEX, catalog)
    return catalog


def _key(item: tuple[int, Path]) -> tuple[int, int, int] | None:
    number, path = item
    try:
        status = path.stat()
    except FileNotFoundError:
        return None  # a repair came between: it is lost, or noted
    return number, status.st_size, status.st_mtime_ns


def read_shard(path: Path, number: int, fingerprint: Fingerprint) -> ShardTable:
    """Check one shard's bytes, then read its columns and where its arrays lie."""
    with checked_shard(path) as shard:
        return shard.table(number, fingerprint)


def read_index(path: Path) -> Catalog | None:
    """Give the index, or None when it is absent, spoiled or of another version."""
    try:
        content = io.BytesIO(read_regular(path))
        with zipfile.ZipFile(content) as members:
            if any(member.compress_type != zipfile.ZIP_STORED for member in members.infolist()):
                return None  # not ours, and it could unfold to anything
        # allow_pickle stays off: an index from elsewhere must not run code.
        with np.load(content) as archive:
            arrays = {name: archive[name] for name in archive.files}
        if int(arrays.pop("check")) != _check(arrays) or int(arrays["version"]) != _INDEX_VERSION:
            return None
        catalog = Catalog(tuple(_cut_tables(arrays)), arrays["live"])
        bounded = np.concatenate([[-1], catalog.live, catalog.first[-1:]])
        return catalog if (np.diff(bounded) > 0).all() else None
    except (OSError, ValueError, LookupError, TypeError, MemoryError, zipfile.BadZipFile):
        return None


def _cut_tables(arrays: dict[str, np.ndarray]) -> Iterator[ShardTable]:
    texts = {name: arrays[f"text_{name}"].tobytes() for name in TEXT}
    ends = np.cumsum(arrays["text_lengths"] + 1, axis=0)  # a NUL behind each
    row = 0
    for shard, numbers in enumerate(arrays["shards"].tolist()):
        place = ShardFile(*numbers)
        rows = slice(row, row + place.rows)
        text = {
            name: texts[name][int(ends[shard - 1, column]) if shard else 0 : stop - 1]
            for column, (name, stop) in enumerate(zip(TEXT, ends[shard].tolist(), strict=True))
        }
        table = ShardTable(place, text, {name: arrays[name][rows] for name in NUMBERS})
        check_table(table)
        yield table
        row = rows.stop


def _check(arrays: dict[str, np.ndarray]) -> int:
    """Give a CRC-32 of names and bytes: a zip file guards its members, but not its own tables."""
    value = 0
    for name, array in sorted(arrays.items()):
        value = zlib.crc32(f"{name} {array.dtype} {array.shape};".encode(), value)
        value = zlib.crc32(np.ascontiguousarray(array).data, value)
    return value


def _save_index(path: Path, catalog: Catalog) -> None:
    lengths = [[len(table.text[name]) for name in TEXT] for table in catalog.tables]
    arrays = {
        "version": np.array(_INDEX_VERSION),
        "shards": np.array(catalog.shards, dtype="<i8").reshape(-1, len(ShardFile._fields)),
        "live": catalog.live,
        "text_lengths": np.array(lengths, dtype="<i8").reshape(-1, len(TEXT)),
        **{
            f"text_{name}": np.frombuffer(
                b"".join(table.text[name] + b"\0" for table in catalog.tables), "u1"
            )
            for name in TEXT
        },
        **catalog.numbers,
    }
    buffer = io.BytesIO()
    np.savez(buffer, check=np.array(_check(arrays)), **arrays)  # type: ignore[arg-type]
    # A read-only or full disk: the index only saves time, the next reader builds its own.
    with contextlib.suppress(StoreError):
        publish(buffer.getbuffer(), path, replace=True)
