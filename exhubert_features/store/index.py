"""What is known of shards that were checked, in files that may be deleted: nobody hashes twice."""

from __future__ import annotations

import contextlib
import io
import time
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ..errors import StoreError
from ..files import read_regular, sweep, temporary_file, write_all
from ..fingerprint import Fingerprint
from .catalog import Catalog, join_tables
from .folder import list_folder, shard_key, shard_keys, shard_path
from .opening import ShardFile, ShardTable, check_table, checked_shard
from .shard import NUMBERS, TEXT

INDEX = "index.npz"
RECENT = "recent"  # the same of one shard each, by who wrote it, for those who write beside it
_INDEX_VERSION = 3
# By then each of many writers, who publish every five minutes, has read what others wrote.
_SETTLED_SECONDS = 3600.0
# What flipped bits make zipfile and numpy raise; RuntimeError is for features of zip files.
_SPOILT: tuple[type[Exception], ...] = (
    *(OSError, ValueError, LookupError, TypeError, MemoryError, EOFError, RuntimeError),
    zipfile.BadZipFile,
)


def load_catalog(store: Path, fingerprint: Fingerprint, *, alone: bool = False) -> Catalog:
    """Give the catalog of a store, from the index where that is current, else from the shards.

    A shard whose size, modification time and stamp are those in the index was checked before;
    any other is hashed before HDF5 opens it.

    Parameters
    ----------
    store
        Folder of the store.
    fingerprint
        Of its features.
    alone
        Whether nobody else is known to write to it: notes of single shards can go at once.

    Raises
    ------
    DamagedStore
        When a shard is missing, cut or changed.
    """
    keys = shard_keys(store)
    catalog = read_index(store / INDEX)
    if catalog is None or [shard.key for shard in catalog.shards] != keys:
        known = {table.place.key: table for table in catalog.tables} if catalog else {}
        tables = [known.get(key) or load_shard(store, key[0], fingerprint) for key in keys]
        catalog = join_tables(tables)
        sweep(store, INDEX)
        _save(store / INDEX, catalog)
    _tidy(store, 0.0 if alone else _SETTLED_SECONDS)
    return catalog


def load_shard(store: Path, number: int, fingerprint: Fingerprint) -> ShardTable:
    """Give one shard's table, as who wrote it has noted, else from the shard after a check."""
    path = shard_path(store, number)
    if noted := read_index(note_path(store, number)):
        with contextlib.suppress(OSError):  # reading it tells what is wrong
            if [shard.key for shard in noted.shards] == [shard_key(number, path)]:
                return noted.tables[0]
    return read_shard(path, number, fingerprint)


def read_shard(path: Path, number: int, fingerprint: Fingerprint) -> ShardTable:
    """Check one shard's bytes, then read its columns and where its arrays lie."""
    with checked_shard(path) as shard:
        return shard.table(number, fingerprint)


def note_path(store: Path, number: int) -> Path:
    """Where the writer of shard ``number`` notes its table."""
    return store / RECENT / f"{number:06d}.npz"


def note_shard(store: Path, table: ShardTable) -> None:
    """Note the table of a shard that was just checked, for whoever else needs it."""
    _save(note_path(store, table.place.number), join_tables([table]))


def forget_notes(store: Path) -> None:
    """Delete the index and all notes; the next reader looks at the shards themselves.

    Raises
    ------
    OSError
        When one cannot be deleted.
    """
    for path in (store / INDEX, *list_folder(store / RECENT)):
        path.unlink(missing_ok=True)


def _tidy(store: Path, seconds: float) -> None:
    """Delete notes of this age, which the index has by now."""
    with contextlib.suppress(OSError, StoreError):  # they are in nobody's way
        now = time.time()
        for path in list_folder(store / RECENT):
            if now - path.stat().st_mtime >= seconds:
                path.unlink(missing_ok=True)


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
    except _SPOILT:
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


def _save(path: Path, catalog: Catalog) -> None:
    """Write an index; without waiting for the disk, as a torn one is none."""
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
    with contextlib.suppress(StoreError), temporary_file(path) as (descriptor, temporary):
        write_all(descriptor, buffer.getbuffer())
        temporary.replace(path)
