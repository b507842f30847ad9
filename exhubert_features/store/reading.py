"""Bytes out of shards: plain ``pread`` at offsets known from the catalog, no HDF5 handle kept."""

from __future__ import annotations

import io
import os
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DamagedStore
from ..fingerprint import Fingerprint
from .catalog import Catalog, ShardFile, shard_path
from .shard import NUMBERS, TEXT, ShardRows

OPEN_FILES = 256  # many shells allow 1,024 in all
BLOCK_BYTES = 64 << 20  # what copying a store holds in memory, however large its shards


class ShardReader:
    """Reads arrays of the rows of a catalog.

    ``pread`` has no file position, so a handle stays right in a forked worker; it is dropped
    for pickling and opened again when needed.
    """

    def __init__(self, store: Path, catalog: Catalog, fingerprint: Fingerprint) -> None:
        spec = fingerprint.spec
        self._store = store
        self._catalog = catalog
        self._dtype = np.dtype(spec.dtype)
        self._layers, self._pools = len(fingerprint.layers), len(spec.pools)
        self._frame_layers = len(spec.frame_layers)
        self._files: OrderedDict[int, io.FileIO] = OrderedDict()

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_files": OrderedDict()}

    def place(self, row: int) -> tuple[int, int]:
        """Shard position and row inside that shard of a row of the catalog."""
        shard = int(np.searchsorted(self._catalog.first, row, side="right")) - 1
        return shard, row - int(self._catalog.first[shard])

    def pooled(self, shard: int, first: int, count: int) -> np.ndarray:
        """Rows ``first`` to ``first + count`` of a shard, (count, L, P, D)."""
        place = self._catalog.shards[shard]
        out = np.empty((count, self._layers, self._pools, place.width), self._dtype)
        step = out.itemsize * self._layers * self._pools * place.width
        self._read(shard, out, place.pooled_offset + first * step)
        return out

    def vectors(self, shard: int, rows: Sequence[int], position: int) -> np.ndarray:
        """One layer and pool of some rows, (len(rows), D).

        ``position`` is the layer's position times the number of pools plus the pool's.
        """
        place = self._catalog.shards[shard]
        if self._layers * self._pools == 1 and len(rows) == place.rows:
            return self.pooled(shard, 0, place.rows)[:, 0, 0]  # no other layer lies between
        out = np.empty((len(rows), place.width), self._dtype)
        size = out.itemsize * place.width
        step = size * self._layers * self._pools
        offsets = [place.pooled_offset + row * step + position * size for row in rows]
        if len(rows) > 1 and hasattr(os, "posix_fadvise"):
            # Asked for together, a disk serves these small reads five times faster.
            descriptor = self._open(shard).fileno()
            for offset in offsets:
                os.posix_fadvise(descriptor, offset, size, os.POSIX_FADV_WILLNEED)
        for vector, offset in zip(out, offsets, strict=True):
            self._read(shard, vector, offset)
        return out

    def logits(self, shard: int, first: int, count: int) -> np.ndarray | None:
        """Rows of logits, (count, C) float32, or None when the shard has none."""
        place = self._catalog.shards[shard]
        if not place.classes:
            return None
        out = np.empty((count, place.classes), np.float32)
        self._read(shard, out, place.logits_offset + first * 4 * place.classes)
        return out

    def frames(
        self, shard: int, first: int, count: int, layers: Sequence[int] | None = None
    ) -> np.ndarray | None:
        """Frames of consecutive rows, (F, T, D); ``layers`` are positions among the stored."""
        place = self._catalog.shards[shard]
        if not self._frame_layers:
            return None
        base = int(self._catalog.first[shard]) + first
        ends = self._catalog.numbers["frame_end"]
        start = int(ends[base - 1]) if first else 0
        stop = int(ends[base + count - 1]) if count else start
        wanted = range(self._frame_layers) if layers is None else layers
        out = np.empty((len(wanted), stop - start, place.width), self._dtype)
        size = out.itemsize * place.width
        for block, layer in zip(out, wanted, strict=True):
            self._read(shard, block, place.frames_offset + (layer * place.frames + start) * size)
        return out

    def block(self, shard: int, first: int, count: int) -> ShardRows:
        """Everything about consecutive rows of a shard."""
        base = int(self._catalog.first[shard]) + first
        rows = slice(base, base + count)
        numbers = {name: self._catalog.numbers[name][rows] for name in NUMBERS}
        start = int(self._catalog.numbers["frame_end"][base - 1]) if first else 0
        numbers["frame_end"] = numbers["frame_end"] - start
        return ShardRows(
            text={name: self._catalog.text(name)[rows] for name in TEXT},
            numbers=numbers,
            pooled=self.pooled(shard, first, count),
            logits=self.logits(shard, first, count),
            frames=self.frames(shard, first, count),
        )

    def blocks(self, shard: int) -> Iterator[tuple[int, ShardRows]]:
        """A shard in pieces of about 64 MB, each with the catalog row it begins at.

        The rows of a clip stay together: in a store, one shard holds all of them.
        """
        place, base = self._catalog.shards[shard], int(self._catalog.first[shard])
        clips = self._catalog.text("clip_id")[base : base + place.rows]
        step = max(1, BLOCK_BYTES * place.rows // place.size)
        first = 0
        while first < place.rows:
            last = min(first + step, place.rows)
            while last < place.rows and clips[last] == clips[last - 1]:
                last += 1
            yield base + first, self.block(shard, first, last - first)
            first = last

    def _open(self, shard: int) -> io.FileIO:
        file = self._files.get(shard)
        if file is None:
            file = self._checked_open(self._catalog.shards[shard])
            self._files[shard] = file
            if len(self._files) > OPEN_FILES:
                # Dropped, not closed: another thread may be reading; the last one closes it.
                self._files.popitem(last=False)
        return file

    def _checked_open(self, place: ShardFile) -> io.FileIO:
        path = shard_path(self._store, place.number)
        try:
            file = io.FileIO(path)
        except OSError as error:
            raise DamagedStore(f"{path} is gone: {error.strerror}") from error
        status = os.fstat(file.fileno())
        if (status.st_size, status.st_mtime_ns) != (place.size, place.modified_ns):
            raise DamagedStore(
                f"{path} has changed since the store was opened",
                remedy="Run `exhubert verify` on the store",
            )
        return file

    def _read(self, shard: int, out: np.ndarray, offset: int) -> None:
        """Fill a contiguous array from a file offset."""
        file = self._open(shard)
        rest = out.reshape(-1).view(np.uint8).data
        while rest:
            count = os.preadv(file.fileno(), [rest], offset)
            if not count:
                path = shard_path(self._store, self._catalog.shards[shard].number)
                raise DamagedStore(f"{path} ends too early")
            rest, offset = rest[count:], offset + count
