"""Arrays out of shards: plain reads at offsets known from the catalog, each one checked."""

from __future__ import annotations

import math
import os
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DamagedStore, StoreError
from ..files import RegularFile
from ..fingerprint import Fingerprint
from .catalog import Catalog
from .folder import shard_path
from .opening import REPAIR, ShardFile, check_stamp, open_shard, read_error, stamped_digest
from .shard import NUMBERS, SUMS, TEXT, ShardRows, dtype_of, shapes, sum64

OPEN_FILES = 256  # many shells allow 1,024 in all
BLOCK_BYTES = 64 << 20  # what copying a store holds in memory, however large its shards


class ShardReader:
    """Reads arrays of the rows of a catalog, and compares every vector with its checksum.

    Shards of format version 1 have no checksums of vectors: they are compared with their stamp
    when this process reads them first. Reads name their offset, so a handle stays right in a
    forked worker; it is dropped for pickling and opened again when needed.
    """

    def __init__(self, store: Path, catalog: Catalog, fingerprint: Fingerprint) -> None:
        self._store = store
        self._catalog = catalog
        self._fingerprint = fingerprint
        # Of each array: shape of what one row (or one frame of one layer) has of it, and type.
        self._parts = {
            name: (
                shape[2:] if name.startswith("frames") else shape[1:],
                dtype_of(name, fingerprint),
            )
            for name, shape in shapes(fingerprint, 1, 1).items()
        }
        self._files: OrderedDict[int, RegularFile] = OrderedDict()
        self._stamped: set[int] = set()

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_files": OrderedDict(), "_stamped": set()}

    def place(self, row: int) -> tuple[int, int]:
        """Shard position and row inside that shard of a row of the catalog."""
        shard = int(np.searchsorted(self._catalog.first, row, side="right")) - 1
        return shard, row - int(self._catalog.first[shard])

    def pooled(self, shard: int, first: int, count: int) -> np.ndarray:
        """Rows ``first`` to ``first + count`` of a shard, (count, L, P, D)."""
        return self._checked(shard, "pooled", first, count)

    def vectors(self, shard: int, rows: Sequence[int], position: int) -> np.ndarray:
        """One layer and pool of some rows, (len(rows), D).

        ``position`` is the layer's position times the number of pools plus the pool's.
        """
        place = self._catalog.shards[shard]
        (layers, pools, width), dtype = self._parts["pooled"]
        if layers * pools == 1 and len(rows) == place.rows:
            return self.pooled(shard, 0, place.rows)[:, 0, 0]  # no other layer lies between
        out, size = np.empty((len(rows), width), dtype), dtype.itemsize * width
        offsets = [place.pooled + (row * layers * pools + position) * size for row in rows]
        if len(rows) > 1 and hasattr(os, "posix_fadvise"):
            # Asked for together, a disk serves these small reads five times faster.
            descriptor = self._open(shard).fileno()
            for offset in offsets:
                os.posix_fadvise(descriptor, offset, size, os.POSIX_FADV_WILLNEED)
        content = out.reshape(-1).view(np.uint8).data
        for number, offset in enumerate(offsets):
            self._read(shard, content[number * size : (number + 1) * size], offset)
        if place.version > 1 and len(rows):
            first = min(rows)
            sums = self._piece(shard, "pooled" + SUMS, first, max(rows) - first + 1)
            known = sums.reshape(len(sums), -1)[np.subtract(rows, first), position]
            wrong = np.flatnonzero(sum64(out) != known)
            if len(wrong):
                raise self._damage(shard, rows[int(wrong[0])])
        return out

    def logits(self, shard: int, first: int, count: int) -> np.ndarray | None:
        """Rows of logits, (count, C) float32, or None when the store has none."""
        has_logits = self._fingerprint.has_logits
        return self._checked(shard, "logits", first, count) if has_logits else None

    def frames(
        self, shard: int, first: int, count: int, layers: Sequence[int] | None = None
    ) -> np.ndarray | None:
        """Frames of consecutive rows, (F, T, D); ``layers`` are positions among the stored."""
        kept = len(self._fingerprint.spec.frame_layers)
        if not kept:
            return None
        ends = self._frame_ends(shard)
        start, stop = (int(ends[row - 1]) if row else 0 for row in (first, first + count))
        wanted = range(kept) if layers is None else layers
        return np.stack(
            [self._checked(shard, "frames", start, stop - start, layer) for layer in wanted]
        )

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

    def matrix(self, position: int) -> np.ndarray:
        """One layer and pool of all rows that count, (N, D)."""
        (_, _, width), dtype = self._parts["pooled"]
        out = np.empty((len(self._catalog.live), width), dtype)
        for shard, rows, where in self._live_rows():
            out[where] = self.vectors(shard, rows, position)
        return out

    def all_logits(self) -> np.ndarray:
        """Logits of all rows that count, (N, C) float32."""
        (classes,), dtype = self._parts["logits"]
        out = np.empty((len(self._catalog.live), classes), dtype)
        for shard, rows, where in self._live_rows():
            whole = self.logits(shard, 0, self._catalog.shards[shard].rows)
            out[where] = whole[rows]  # type: ignore[index]
        return out

    def blocks(self) -> Iterator[ShardRows]:
        """All rows that count, in pieces of about 64 MB.

        The rows of a clip stay together: in a store, one shard holds all of them.
        """
        live = np.zeros(int(self._catalog.first[-1]), dtype=bool)
        live[self._catalog.live] = True
        clips = self._catalog.text("clip_id")
        for shard, place in enumerate(self._catalog.shards):
            base = int(self._catalog.first[shard])
            step = max(1, BLOCK_BYTES * place.rows // place.size)
            first = 0
            while first < place.rows:
                last = min(first + step, place.rows)
                while last < place.rows and clips[base + last] == clips[base + last - 1]:
                    last += 1
                block, keep = (
                    self.block(shard, first, last - first),
                    live[base + first : base + last],
                )
                yield block if keep.all() else block.select(np.flatnonzero(keep))
                first = last

    def _live_rows(self) -> Iterator[tuple[int, list[int], slice]]:
        """Shard, its rows that count, and where these stand among all that do."""
        edges = np.searchsorted(self._catalog.live, self._catalog.first)
        for shard, (start, stop) in enumerate(pairwise(edges.tolist())):
            rows = self._catalog.live[start:stop] - self._catalog.first[shard]
            yield shard, rows.tolist(), slice(start, stop)

    def _frame_ends(self, shard: int) -> np.ndarray:
        first, last = self._catalog.first[shard : shard + 2]
        return self._catalog.numbers["frame_end"][first:last]

    def _checked(self, shard: int, name: str, first: int, count: int, layer: int = 0) -> np.ndarray:
        """Consecutive rows (or frames, of one ``layer``) of an array, compared."""
        array = self._piece(shard, name, first, count, layer)
        if self._catalog.shards[shard].version > 1:
            same = sum64(array) == self._piece(shard, name + SUMS, first, count, layer)
            if not same.all():
                place = first + int(np.argmin(same.reshape(count, -1).all(axis=1)))
                if name == "frames":
                    place = int(np.searchsorted(self._frame_ends(shard), place, side="right"))
                raise self._damage(shard, place)
        return array

    def _piece(self, shard: int, name: str, first: int, count: int, layer: int = 0) -> np.ndarray:
        place = self._catalog.shards[shard]
        shape, dtype = self._parts[name]
        out = np.empty((count, *shape), dtype)
        first += layer * place.frame_count
        offset = getattr(place, name) + first * dtype.itemsize * math.prod(shape)
        self._read(shard, out.reshape(-1).view(np.uint8).data, offset)
        return out

    def _damage(self, shard: int, row: int) -> DamagedStore:
        name = self._catalog.text("id")[int(self._catalog.first[shard]) + row]
        return DamagedStore(
            f"{self._path(shard)}: row {name!r} does not match its checksum", remedy=REPAIR
        )

    def _path(self, shard: int) -> Path:
        return shard_path(self._store, self._catalog.shards[shard].number)

    def _open(self, shard: int) -> RegularFile:
        file = self._files.get(shard)
        if file is None:
            file = self._checked_open(self._catalog.shards[shard])
            self._files[shard] = file
            if len(self._files) > OPEN_FILES:
                # Dropped, not closed: another thread may be reading; the last one closes it.
                self._files.popitem(last=False)
        return file

    def _checked_open(self, place: ShardFile) -> RegularFile:
        path = shard_path(self._store, place.number)
        file = open_shard(path)
        try:
            self._require_unchanged(file, path, place)
        except StoreError:
            file.close()
            raise
        return file

    def _require_unchanged(self, file: RegularFile, path: Path, place: ShardFile) -> None:
        try:
            status = os.fstat(file.fileno())
            found = (place.number, status.st_size, status.st_mtime_ns, stamped_digest(file))
            if found == place.key and place.version == 1 and place.number not in self._stamped:
                check_stamp(file, path)
        except OSError as error:
            raise read_error(path, error) from error
        if found != place.key:
            raise DamagedStore(
                f"{path} has changed since the store was opened",
                remedy="Run `exhubert verify` on the store",
            )
        self._stamped.add(place.number)

    def _read(self, shard: int, rest: memoryview, offset: int) -> None:
        """Fill bytes of an array from a file offset."""
        descriptor = self._open(shard).fileno()
        while rest:
            try:
                count = os.preadv(descriptor, [rest], offset)
            except OSError as error:
                raise read_error(self._path(shard), error) from error
            if not count:
                raise DamagedStore(f"{self._path(shard)} ends too early", remedy=REPAIR)
            rest, offset = rest[count:], offset + count
