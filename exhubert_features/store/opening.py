"""A shard's bytes into a table: compared with the stamp first, then nothing is believed."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np

from ..errors import DamagedStore, StoreError, UsageError
from ..files import IrregularFile, RegularFile
from ..fingerprint import Fingerprint
from .shard import (
    FORMAT,
    MAGIC,
    NUMBERS,
    SUMS,
    TEXT,
    USER_BLOCK,
    VERSION,
    dtype_of,
    shapes,
    stamp,
)

REPAIR = "Run `exhubert verify --repair` on the store, then extract again"
_READ_SIZE = 1 << 20
_STRING = np.dtype([("length", "<u4"), ("address", "<u8"), ("index", "<u4")])  # on the disk


Key = tuple[int, int, int, int]


class ShardFile(NamedTuple):
    """Where a shard's arrays lie: offsets in the file by dataset, -1 where there is none."""

    number: int
    size: int
    modified_ns: int
    digest: int  # see stamped_digest
    version: int
    rows: int
    frame_count: int
    pooled: int
    logits: int
    frames: int
    pooled_sum64: int
    logits_sum64: int
    frames_sum64: int

    @property
    def key(self) -> Key:
        """What tells whether a file is the one that was checked."""
        return self[:4]


@dataclass
class ShardTable:
    """One shard's place and its rows' columns; words of text are joined by NUL."""

    place: ShardFile
    text: dict[str, bytes]
    numbers: dict[str, np.ndarray]

    def words(self, name: str) -> list[str]:
        """One text column."""
        return split_words(self.text[name], self.place.rows)


def split_words(joined: bytes, rows: int) -> list[str]:
    """Words out of what NUL joins."""
    return joined.decode("utf-8", "surrogateescape").split("\0") if rows else []


class CheckedShard:
    """A shard whose bytes are those of its stamp, open in HDF5.

    The stamp is no signature: whoever made the file could have put anything into it. So only
    plain contiguous datasets that lie inside the file are read, and sizes are checked first.
    """

    def __init__(self, path: Path, raw: RegularFile, version: int, file: h5py.File) -> None:
        self.path = path
        self.version = version
        self._raw = raw
        self._file = file
        self._size = os.fstat(raw.fileno()).st_size
        self._opened: dict[str, Any] = {}

    def about(self) -> dict[str, Any]:
        """``fingerprint`` and ``provenance``."""
        if self.version == 1:
            found = {name: json.loads(self._file.attrs[name]) for name in _ABOUT}
        else:
            found = json.loads(self.numbers("about", "u1").tobytes())
        return {
            "fingerprint": read_fingerprint(self.path, found["fingerprint"]),
            "provenance": dict(found["provenance"]),
        }

    def table(self, number: int, fingerprint: Fingerprint) -> ShardTable:
        """Give the columns, and where the arrays lie, of a shard of this very fingerprint."""
        if found := self.about()["fingerprint"].difference(fingerprint):
            raise ValueError(f"it is of another fingerprint than the store: {'; '.join(found)}")
        rows = self._dataset("pooled", 4).shape[0]
        frames = self._dataset("frames", 3).shape[1] if fingerprint.spec.frame_layers else 0
        offsets = {
            name: self._offset(name, shape, dtype_of(name, fingerprint))
            for name, shape in shapes(fingerprint, rows, frames).items()
            if self.version > 1 or not name.endswith(SUMS)
        }
        status = os.fstat(self._raw.fileno())
        place = ShardFile(
            number, status.st_size, status.st_mtime_ns, stamped_digest(self._raw),
            self.version, rows, frames,
            **{name: offsets.get(name, -1) for name in ShardFile._fields[7:]},
        )  # fmt: skip
        table = ShardTable(
            place,
            {name: b"\0".join(self.strings(name)) for name in TEXT},
            {name: self.numbers(name, NUMBERS[name][0]) for name in NUMBERS},
        )
        check_table(table)
        if not all(isinstance(json.loads(text), dict) for text in set(table.words("meta"))):
            raise ValueError("meta that is no JSON object")
        return table

    def strings(self, name: str) -> list[bytes]:
        """Give a column of strings."""
        dataset = self._dataset(name, 1)
        offset = self._offset(name, dataset.shape, None)
        described = np.frombuffer(self._read(offset, len(dataset) * _STRING.itemsize), _STRING)
        # HDF5 allocates what each claims before it looks.
        if int(described["length"].sum(dtype=np.uint64)) > self._size:
            raise ValueError(f"the strings of {name} claim to be longer than the file")
        return dataset[:].tolist()

    def failures(self) -> list[Any]:
        """Give what a packed store remembers of clips without features, as JSON data."""
        lines = self.strings("failures") if "failures" in self._file else []
        return [json.loads(line) for line in lines]

    def numbers(self, name: str, dtype: str) -> np.ndarray:
        """Give a column of numbers."""
        rows = len(self._dataset(name, 1))
        offset = self._offset(name, (rows,), np.dtype(dtype))
        return np.frombuffer(self._read(offset, rows * np.dtype(dtype).itemsize), dtype)

    def _dataset(self, name: str, axes: int) -> h5py.Dataset:
        if name not in self._opened:
            # A link may lead out of the file.
            if not isinstance(self._file.get(name, getlink=True), h5py.HardLink):
                raise ValueError(f"{name} is absent or a link")
            self._opened[name] = self._file[name]
        dataset = self._opened[name]
        if not isinstance(dataset, h5py.Dataset) or len(dataset.shape or ()) != axes:
            raise ValueError(f"{name} is no dataset of {axes} axes")
        return dataset

    def _offset(self, name: str, shape: tuple[int, ...], dtype: np.dtype | None) -> int:
        """Where a dataset's bytes lie; ``dtype`` None: strings of variable length."""
        dataset = self._dataset(name, len(shape))
        strings = h5py.check_string_dtype(dataset.dtype)
        fits = dataset.dtype == dtype if dtype else strings and strings.length is None
        if dataset.shape != shape or not fits:
            raise ValueError(f"{name} is {dataset.dtype} {dataset.shape}, not {dtype} {shape}")
        creation, offset = dataset.id.get_create_plist(), dataset.id.get_offset()
        size = (dtype or _STRING).itemsize * math.prod(shape)
        contiguous = creation.get_layout() == h5py.h5d.CONTIGUOUS
        if not contiguous or creation.get_external_count():
            raise ValueError(f"{name} does not lie in one piece inside the file")
        if dataset.id.get_storage_size() != size or (size and offset + size > self._size):
            raise ValueError(f"{name} does not lie inside the file")
        return offset if size else -1

    def _read(self, offset: int, size: int) -> bytes:
        content = bytearray(size)
        if size:
            self._raw.seek(offset)
            if self._raw.readinto(content) != size:
                raise ValueError("it ends too early")
        return bytes(content)


_ABOUT = ("fingerprint", "provenance")


@contextlib.contextmanager
def checked_shard(path: Path) -> Iterator[CheckedShard]:
    """Open a shard after its bytes were compared with its stamp.

    Raises
    ------
    DamagedStore
        When it is missing, cut, foreign, changed, or of another layout, also when that shows
        while it is used.
    UnreadableStore
        When the system fails to read it.
    """
    raw = open_shard(path)
    try:
        with raw:
            version = check_stamp(raw, path)
            with h5py.File(raw, "r") as file:
                yield CheckedShard(path, raw, version, file)
    # OverflowError: an address in the file that no number of h5py's holds.
    except (LookupError, ValueError, TypeError, RuntimeError, OverflowError, OSError) as error:
        if raw.failure:
            raise read_error(path, raw.failure) from error
        raise DamagedStore(f"{path} is not laid out as a shard: {error}", remedy=REPAIR) from error


def open_shard(path: Path) -> RegularFile:
    """Open a shard's file; see :func:`checked_shard` for what is raised."""
    try:
        return RegularFile(path)
    except (FileNotFoundError, IrregularFile) as error:
        reason = "is gone" if isinstance(error, FileNotFoundError) else "is no regular file"
        raise DamagedStore(f"{path} {reason}", remedy=REPAIR) from error
    except OSError as error:
        raise read_error(path, error) from error


class UnreadableStore(StoreError):
    """What the system refuses to read: that is no damage."""


def read_error(path: Path, error: OSError) -> UnreadableStore:
    """Give the StoreError for a failed read."""
    return UnreadableStore(
        f"{path} cannot be read: {error.strerror or error}",
        remedy="Try again; if the disk has lost the file, delete it and run "
        "`exhubert verify --repair` on the store",
    )


def read_fingerprint(path: Path, data: Any) -> Fingerprint:
    """Give the fingerprint in a file of a store.

    Raises
    ------
    DamagedStore
        When it is none.
    """
    try:
        return Fingerprint.from_dict(data)
    except UsageError as error:
        raise DamagedStore(f"{path}: {error}", remedy=REPAIR) from error


def check_table(table: ShardTable) -> None:
    """Refuse columns that contradict each other."""
    place, ends = table.place, table.numbers["frame_end"]
    counts = {len(column) for column in table.numbers.values()}
    counts |= {joined.count(b"\0") + 1 for joined in table.text.values()} if place.rows else set()
    if counts != {place.rows}:
        raise ValueError(f"columns of {sorted(counts)} rows, not {place.rows}")
    if (np.diff(ends, prepend=0) < 0).any() or (ends[-1] if place.rows else 0) != place.frame_count:
        raise ValueError(f"frame ends that do not rise to {place.frame_count}")
    if place.version not in range(1, VERSION + 1):
        raise ValueError(f"version {place.version}")


def is_shard(path: Path) -> bool:
    """Whether a file begins like a shard of this package."""
    with open_shard(path) as file:
        return file.read(len(MAGIC)) == MAGIC


def digest_of(file: RegularFile) -> str:
    """SHA-256 of everything behind the user block."""
    digest, block = hashlib.sha256(), memoryview(bytearray(_READ_SIZE))
    file.seek(USER_BLOCK)
    while count := file.readinto(block):
        digest.update(block[:count])
    return digest.hexdigest()


def stamped_digest(file: RegularFile) -> int:
    """Give 63 bits of the SHA-256 that a shard's stamp says it has; 0 where there is no stamp.

    Archives may give all files one time of change, and shards of one shape have one size.
    """
    block = bytearray(USER_BLOCK)
    file.seek(0)
    file.readinto(block)
    found = re.match(MAGIC + rb"version \d{1,4}\nlength \d+\nsha256 ([0-9a-f]{16})", block)
    return int(found[1], 16) >> 1 if found else 0


def check_stamp(file: RegularFile, path: Path) -> int:
    """Compare a shard with its stamp, before HDF5 sees a byte of it; the format's version.

    Raises
    ------
    DamagedStore
        When the file is cut, foreign or changed.
    OSError
        When the system fails to read it.
    """
    length, block = os.fstat(file.fileno()).st_size, bytearray(USER_BLOCK)
    file.seek(0)
    file.readinto(block)
    found = re.match(MAGIC + rb"version (\d{1,4})\nlength (\d+)\n", block)
    if found is None:
        raise DamagedStore(f"{path} is not a shard of a feature store", remedy=REPAIR)
    if int(found[2]) != length:
        raise DamagedStore(f"{path} is cut or grown: {length} bytes", remedy=REPAIR)
    version = int(found[1])
    if block != stamp(length, digest_of(file), version):
        raise DamagedStore(f"{path} has changed: its SHA-256 does not match", remedy=REPAIR)
    check_version(path, FORMAT, version)
    return version


def check_version(path: Path, name: object, version: object) -> None:
    """Refuse formats this code does not know."""
    if name != FORMAT or version not in range(1, VERSION + 1):
        raise StoreError(
            f"{path} is of format {name} version {version}",
            expected=f"{FORMAT} of a version up to {VERSION}",
            remedy="Open it with the package version that wrote it",
        )
