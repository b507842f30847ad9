"""The table of all rows of a store, read from its shards and kept in a disposable index."""

from __future__ import annotations

import contextlib
import io
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np

from ..errors import DamagedStore, StoreError
from ..files import publish, read_json
from .shard import NUMBERS, TEXT, check_bytes

INDEX = "index.npz"
SHARDS = "shards"
QUARANTINE = "quarantine"
STATE = "state.json"
_INDEX_VERSION = 1
_CHECK = 8  # hexadecimal digits of a CRC-32


class ShardFile(NamedTuple):
    """Where a shard's arrays lie. An offset of -1: the shard has no such array."""

    number: int
    size: int
    modified_ns: int
    rows: int
    width: int
    classes: int
    frames: int
    pooled_offset: int
    logits_offset: int
    frames_offset: int


@dataclass
class ShardTable:
    """One shard's place and its rows' columns."""

    place: ShardFile
    text: dict[str, list[str]]
    numbers: dict[str, np.ndarray]


@dataclass
class Catalog:
    """All rows of all shards, in shard order; ``live`` are those not replaced since.

    Text columns stay joined by NUL until somebody asks: 100,000 ids decode in milliseconds,
    but most readers never look at most columns.
    """

    shards: tuple[ShardFile, ...]
    joined: dict[str, bytes]
    numbers: dict[str, np.ndarray]
    live: np.ndarray
    first: np.ndarray = field(init=False)  # (shards + 1,) first row of each shard
    _decoded: dict[str, list[str]] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self.first = np.cumsum([0, *(shard.rows for shard in self.shards)], dtype=np.int64)

    def text(self, name: str) -> list[str]:
        """One text column, all rows."""
        if name not in self._decoded:
            words = self.joined[name].decode("utf-8", "surrogateescape").split("\0")
            self._decoded[name] = words if self.first[-1] else []
        return self._decoded[name]

    def equals(self, other: Catalog) -> bool:
        """Whether two catalogs say the same."""
        return (
            self.shards == other.shards
            and self.joined == other.joined
            and np.array_equal(self.live, other.live)
            and all(np.array_equal(self.numbers[name], other.numbers[name]) for name in NUMBERS)
        )

    def tables(self) -> Iterable[ShardTable]:
        """The catalog cut back into its shards."""
        for place, start in zip(self.shards, self.first[:-1], strict=True):
            rows = slice(int(start), int(start) + place.rows)
            yield ShardTable(
                place,
                {name: self.text(name)[rows] for name in TEXT},
                {name: self.numbers[name][rows] for name in NUMBERS},
            )


def join_tables(tables: Sequence[ShardTable]) -> Catalog:
    """One catalog out of shards; the newest shard that holds a clip wins."""
    text = {name: [word for table in tables for word in table.text[name]] for name in TEXT}
    newest = {clip: place for place, table in enumerate(tables) for clip in table.text["clip_id"]}
    owner = [place for place, table in enumerate(tables) for _ in table.text["clip_id"]]
    live = [
        row
        for row, (clip, place) in enumerate(zip(text["clip_id"], owner, strict=True))
        if newest[clip] == place
    ]
    return Catalog(
        shards=tuple(table.place for table in tables),
        joined={
            name: "\0".join(words).encode("utf-8", "surrogateescape")
            for name, words in text.items()
        },
        numbers={
            name: np.concatenate([np.empty(0, dtype), *(table.numbers[name] for table in tables)])
            for name, (dtype, *_) in NUMBERS.items()
        },
        live=np.array(live, dtype=np.int64),
    )


def shard_path(store: Path, number: int) -> Path:
    """Where shard ``number`` of a store lies; a packed store is its own only shard."""
    return store if store.is_file() else store / SHARDS / f"{number:06d}.h5"


def tombstone_path(store: Path, number: int) -> Path:
    """The note that shard ``number`` was taken out by a repair."""
    return store / QUARANTINE / f"{number:06d}.json"


def tombstones(store: Path) -> dict[int, Path]:
    """The notes of all shards that repairs took out."""
    notes = (store / QUARANTINE).glob("*.json")
    return {int(path.stem): path for path in notes if path.stem.isdecimal()}


def shard_number(path: Path) -> int | None:
    """Number of a shard file by its name, None for any other file."""
    number = int(path.stem) if path.stem.isdecimal() else -1
    return number if path.name == f"{number:06d}.h5" else None


def lost_shards(store: Path, present: Iterable[int]) -> list[int]:
    """Numbers of shards that were published once, and are neither there nor quarantined.

    Writers take numbers without gaps, and note at the end how many there are.
    """
    there = set(present)
    state = store / STATE
    noted = int(read_json(state)["shards"]) if state.exists() else 0
    missing = set(range(max([noted - 1, *there], default=-1) + 1)) - there
    return sorted(
        number
        for number in missing
        # A folder listing is no snapshot: look again before calling a shard lost.
        if not shard_path(store, number).exists() and not tombstone_path(store, number).exists()
    )


def next_number(store: Path, shards: Iterable[ShardFile]) -> int:
    """The number after every shard there is and every one a repair took out."""
    return max([*(shard.number for shard in shards), *tombstones(store)], default=-1) + 1


def load_catalog(store: Path, *, known: Sequence[ShardTable] = ()) -> Catalog:
    """The catalog of a store, from its index where that is current, else from the shards.

    A shard whose size and modification time are those in the index was checked before; any
    other is hashed before HDF5 opens it. ``known`` are shards that the caller has checked.

    Raises
    ------
    DamagedStore
        When a shard is missing, cut or changed.
    """
    if store.is_file():
        return join_tables([read_table(store, 0)])
    present = {}
    for path in (store / SHARDS).glob("[!.]*"):
        number = shard_number(path)
        if number is not None:
            status = path.stat()
            present[number] = (number, status.st_size, status.st_mtime_ns)
    keys = sorted(present.values())
    if lost := lost_shards(store, present):
        raise DamagedStore(
            f"{store} has lost {len(lost)} shards, the first is {shard_path(store, lost[0])}",
            remedy="Run `exhubert verify --repair` on it, then extract again",
        )
    index = read_index(store / INDEX)
    if index and [shard[:3] for shard in index.shards] == keys:
        return index
    checked = {table.place[:3]: table for table in [*(index.tables() if index else ()), *known]}
    catalog = join_tables(
        [checked.get(key) or read_table(shard_path(store, key[0]), key[0]) for key in keys]
    )
    _save_index(store / INDEX, catalog)
    return catalog


def read_table(path: Path, number: int) -> ShardTable:
    """Check one shard's bytes, then read its columns and where its arrays lie."""
    check_bytes(path)
    status = path.stat()
    try:
        with h5py.File(path, "r", locking=False) as file:
            shape = file["pooled"].shape
            place = ShardFile(
                number=number,
                size=status.st_size,
                modified_ns=status.st_mtime_ns,
                rows=shape[0],
                width=shape[3],
                classes=file["logits"].shape[1] if "logits" in file else 0,
                frames=file["frames"].shape[1] if "frames" in file else 0,
                pooled_offset=_offset(file, "pooled"),
                logits_offset=_offset(file, "logits"),
                frames_offset=_offset(file, "frames"),
            )
            text = {name: file[name].asstr(errors="surrogateescape")[:].tolist() for name in TEXT}
            numbers = {name: file[name][:] for name in NUMBERS}
    except (KeyError, IndexError, ValueError, OSError) as error:
        raise DamagedStore(f"{path} is not laid out as a shard: {error}") from error
    return ShardTable(place, text, numbers)


def _offset(file: h5py.File, name: str) -> int:
    offset = file[name].id.get_offset() if name in file else None
    return -1 if offset is None else offset


def read_index(path: Path) -> Catalog | None:
    """The index, or None when it is absent, spoiled or of another version."""
    try:
        content = path.read_bytes()
        if content[-_CHECK:] != _check(memoryview(content)[:-_CHECK]):
            return None
        # allow_pickle stays off: an index from elsewhere must not run code.
        with np.load(io.BytesIO(content)) as archive:
            if int(archive["version"]) != _INDEX_VERSION:
                return None
            return Catalog(
                shards=tuple(ShardFile(*row) for row in archive["shards"].tolist()),
                joined={name: archive[f"text_{name}"].tobytes() for name in TEXT},
                numbers={name: archive[name] for name in NUMBERS},
                live=archive["live"],
            )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _check(content: bytes | memoryview) -> bytes:
    return f"{zlib.crc32(content):08x}".encode()


def _save_index(path: Path, catalog: Catalog) -> None:
    arrays: dict[str, Any] = {
        "version": np.array(_INDEX_VERSION),
        "shards": np.array(catalog.shards, dtype="<i8").reshape(-1, len(ShardFile._fields)),
        "live": catalog.live,
        **{f"text_{name}": np.frombuffer(joined, "u1") for name, joined in catalog.joined.items()},
        **catalog.numbers,
    }
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    # A zip file guards its members but not its own tables: a checksum of all goes where the
    # comment stands, whose length is the last field.
    content = buffer.getvalue()[:-2] + _CHECK.to_bytes(2, "little")
    # A read-only or full disk: the index only saves time, the next reader builds its own.
    with contextlib.suppress(StoreError):
        publish(content + _check(content), path, replace=True)
