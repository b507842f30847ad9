"""The store as its users see it: open, look up, read whole layers, write."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import DamagedStore, StoreError
from ..fingerprint import Fingerprint
from ..records import ClipFailure, ClipFeatures
from ..spec import resolve_layers
from .catalog import load_catalog
from .ledger import StoredFailure, no_store, read_failures, read_manifest, read_plans
from .packed import read_packed, require_packed
from .reading import ShardReader
from .row import StoredFeatures, row_table, unknown_id
from .shard import ShardRows, checksum
from .update import Extraction, WriteProgress, write_store
from .writer import SHARD_BYTES, SHARD_CLIPS, SHARD_SECONDS

if TYPE_CHECKING:
    import pandas as pd


class FeatureStore:
    """Features of many clips, read-only; a folder or one packed ``.h5`` file.

    Opening checks every shard that is not known from the index. What is seen is the store as
    it was then; rows that a writer adds later show after opening it again. Safe to
    pickle, and to use in forked and spawned workers.

    Examples
    --------
    >>> store = FeatureStore("features")
    >>> store["clip_a.wav"].pooled.shape
    (49, 1, 1024)
    >>> store.matrix(layer=12, pool="mean").shape
    (3, 1024)
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if not self.path.exists():
            raise no_store(self.path)
        self._packed_failures: tuple[StoredFailure, ...] = ()
        if self.path.is_file():
            require_packed(self.path)
            self._catalog = load_catalog(self.path)
            manifest, self._packed_failures = read_packed(self.path)
        else:
            manifest = read_manifest(self.path)
            self._catalog = load_catalog(self.path)
        self.fingerprint: Fingerprint = manifest["fingerprint"]
        self.provenance: dict[str, Any] = manifest["provenance"]
        self._reader = ShardReader(self.path, self._catalog, self.fingerprint)

    @staticmethod
    def write(
        path: str | Path,
        source: Extraction | Iterable[ClipFeatures | ClipFailure],
        *,
        fingerprint: Fingerprint | None = None,
        shard_bytes: int = SHARD_BYTES,
        shard_clips: int = SHARD_CLIPS,
        shard_seconds: float = SHARD_SECONDS,
        on_progress: Callable[[WriteProgress], None] | None = None,
    ) -> FeatureStore:
        """Store what an extraction yields: only clips that are missing or have changed.

        Interrupted at any moment, the same call goes on where it stopped. Clips that failed
        before are tried again. A clip whose audio changed is extracted anew and replaces the
        old; clips that are no longer in the source stay.

        Parameters
        ----------
        path
            Folder of the store; made when absent.
        source
            An extraction, or any iterable of rows and failures (rows of one clip together)
            with its ``fingerprint``.
        shard_bytes, shard_clips, shard_seconds
            A shard is published as soon as it reaches one of these.
        on_progress
            Called after each clip.

        Raises
        ------
        FingerprintMismatch
            When the store was made with other weights or settings.
        StoreError
            When the disk is full, or ids are not unique.
        """
        write_store(
            Path(path),
            source,
            fingerprint=fingerprint,
            shard_bytes=shard_bytes,
            shard_clips=shard_clips,
            shard_seconds=shard_seconds,
            on_progress=on_progress,
        )
        return FeatureStore(path)

    @cached_property
    def ids(self) -> list[str]:
        """All row ids, in stored order: the order of :meth:`matrix` and :meth:`logits`."""
        return self.column("id")

    @property
    def layers(self) -> tuple[int, ...]:
        """Hidden-state ids that are stored pooled."""
        return self.fingerprint.layers

    @property
    def frame_layers(self) -> tuple[int, ...]:
        """Hidden-state ids that are stored frame by frame."""
        return self.fingerprint.spec.frame_layers

    @property
    def pools(self) -> tuple[str, ...]:
        """Poolings that are stored."""
        return self.fingerprint.spec.pools

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names of the logits, in their order."""
        return self.fingerprint.model.classes

    @property
    def has_logits(self) -> bool:
        """Whether class scores are stored: asked for, and the model has a classifier."""
        return self.fingerprint.has_logits

    @property
    def failures(self) -> tuple[StoredFailure, ...]:
        """Clips that did not become features, and why."""
        if self.path.is_file():
            return self._packed_failures
        stored = dict(zip(self.column("clip_id"), self.column("audio_sha256"), strict=True))
        return tuple(
            failure
            for failure in read_failures(self.path).values()
            # A kill between a late success and the removal of the record leaves it behind.
            if not failure.audio_sha256 or stored.get(failure.id) != failure.audio_sha256
        )

    @property
    def pending(self) -> tuple[str, ...]:
        """Clips that a run was asked for and that are neither stored nor failed."""
        if self.path.is_file():
            return ()
        stored = dict(zip(self.column("clip_id"), self.column("audio_sha256"), strict=True))
        failed = {failure.id for failure in self.failures}
        return tuple(
            name
            for name, audio in read_plans(self.path).items()
            if stored.get(name) != audio and name not in failed
        )

    @property
    def shard_count(self) -> int:
        """How many shard files there are."""
        return len(self._catalog.shards)

    @property
    def stored_bytes(self) -> int:
        """Size of all shards."""
        return sum(shard.size for shard in self._catalog.shards)

    def column(self, name: str) -> list[Any]:
        """One column of the table of rows, such as ``file`` or ``start``."""
        if name in self._catalog.numbers:
            return self._catalog.numbers[name][self._catalog.live].tolist()
        words = self._catalog.text(name)
        if len(words) == len(self._catalog.live):
            return list(words)
        return [words[row] for row in self._catalog.live]

    def frame_counts(self) -> np.ndarray:
        """How many frames each row has stored, (N,)."""
        ends = self._catalog.numbers["frame_end"]
        counts = np.diff(ends, prepend=0)
        firsts = self._catalog.first[:-1][np.diff(self._catalog.first) > 0]
        counts[firsts] = ends[firsts]  # ends count from the beginning of each shard
        return counts[self._catalog.live]

    def __len__(self) -> int:
        return len(self._catalog.live)

    def __iter__(self) -> Iterator[str]:
        return iter(self.ids)

    def __contains__(self, name: object) -> bool:
        return name in self._rows

    def __repr__(self) -> str:
        return f"FeatureStore({str(self.path)!r}: {len(self)} rows)"

    def __getstate__(self) -> dict[str, Any]:
        # The lookup table is quicker to build than to send.
        return {key: value for key, value in self.__dict__.items() if key != "_rows"}

    def __getitem__(self, name: str) -> StoredFeatures:
        """One row, its bytes compared with its checksum.

        Raises
        ------
        UnknownId
            (a KeyError) naming near ids.
        DamagedStore
            When the stored bytes have changed.
        """
        row = self._row(name)
        shard, local = self._reader.place(row)
        pooled = self._reader.pooled(shard, local, 1)[0]
        logits = self._reader.logits(shard, local, 1)
        frames = self._reader.frames(shard, local, 1)
        logits = None if logits is None else logits[0]
        text, numbers = self._catalog.text, self._catalog.numbers
        if checksum(pooled, logits, frames) != numbers["crc32"][row]:
            raise DamagedStore(
                f"the features of {name!r} in {self.path} no longer match their checksum",
                remedy="Run `exhubert verify --repair` on the store, then extract again",
            )
        return StoredFeatures(
            id=name,
            clip_id=text("clip_id")[row],
            file=text("file")[row],
            start=float(numbers["start"][row]),
            end=float(numbers["end"][row]),
            samples=int(numbers["samples"][row]),
            audio_sha256=text("audio_sha256")[row],
            status=text("status")[row],
            pooled=pooled,
            logits=logits,
            frames=frames,
            meta=json.loads(text("meta")[row]),
        )

    def vector(self, name: str, *, layer: int, pool: str = "mean") -> np.ndarray:
        """One layer of one row, (D,), without reading the others."""
        shard, local = self._reader.place(self._row(name))
        return self._reader.vectors(shard, [local], self.position(layer, pool))[0]

    def frames(self, name: str, *, layer: int) -> np.ndarray:
        """The frames of one layer of one row, (T, D), without reading the others."""
        shard, local = self._reader.place(self._row(name))
        position = self.frame_position(layer)
        frames = self._reader.frames(shard, local, 1, [position])
        return frames[0]  # type: ignore[index]

    def matrix(self, *, layer: int, pool: str = "mean") -> np.ndarray:
        """One layer of all rows, (N, D), in the order of :attr:`ids`."""
        position = self.position(layer, pool)
        width = self.fingerprint.model.hidden_size
        out = np.empty((len(self), width), self.fingerprint.spec.dtype)
        for shard, rows, where in self._live_rows():
            out[where] = self._reader.vectors(shard, rows, position)
        return out

    def logits(self) -> np.ndarray:
        """Class scores of all rows, (N, C) float32, in the order of :attr:`ids`."""
        if not self.has_logits:
            raise StoreError(f"{self.path} holds no logits")
        out = np.empty((len(self), len(self.classes)), np.float32)
        for shard, rows, where in self._live_rows():
            whole = self._reader.logits(shard, 0, self._catalog.shards[shard].rows)
            out[where] = whole[rows]  # type: ignore[index]
        return out

    def blocks(self) -> Iterator[ShardRows]:
        """All rows in stored order, a few dozen MB at a time: for copying and checking."""
        live = np.zeros(int(self._catalog.first[-1]), dtype=bool)
        live[self._catalog.live] = True
        for shard in range(len(self._catalog.shards)):
            for start, block in self._reader.blocks(shard):
                keep = live[start : start + len(block)]
                yield block if keep.all() else block.select(np.flatnonzero(keep))

    def to_dataframe(self) -> pd.DataFrame:
        """The table of rows, on audformat's index (file, start, end).

        Columns: ``id``, ``status`` and those of the manifest. Clips that came as arrays have
        their id for a file.
        """
        return row_table(
            self.ids,
            files=self.column("file"),
            starts=self.column("start"),
            ends=self.column("end"),
            statuses=self.column("status"),
            meta=self.column("meta"),
        )

    def position(self, layer: int, pool: str) -> int:
        """Where a layer and pool stand among those stored, counted pool by pool.

        Raises
        ------
        StoreError
            When they are not stored, naming what is.
        """
        position = self._stored_layer(layer, self.layers, "pooled features")
        if pool not in self.pools:
            raise StoreError(
                f"pool {pool!r} is not in {self.path}", expected=f"one of {', '.join(self.pools)}"
            )
        return position * len(self.pools) + self.pools.index(pool)

    def frame_position(self, layer: int) -> int:
        """Where a layer stands among those stored frame by frame; see :meth:`position`."""
        return self._stored_layer(layer, self.frame_layers, "frames")

    @cached_property
    def _rows(self) -> dict[str, int]:
        return dict(zip(self.ids, self._catalog.live.tolist(), strict=True))

    def _row(self, name: str) -> int:
        row = self._rows.get(name)
        if row is None:
            raise unknown_id(name, self.ids, self.path)
        return row

    def _live_rows(self) -> Iterator[tuple[int, list[int], slice]]:
        """Shard, its rows that count, and where these stand among all."""
        edges = np.searchsorted(self._catalog.live, self._catalog.first)
        for shard, (start, stop) in enumerate(pairwise(edges.tolist())):
            rows = self._catalog.live[start:stop] - self._catalog.first[shard]
            yield shard, rows.tolist(), slice(start, stop)

    def _stored_layer(self, layer: int, stored: tuple[int, ...], what: str) -> int:
        (wanted,) = resolve_layers([layer], self.fingerprint.model.num_states)
        if wanted not in stored:
            raise StoreError(
                f"{self.path} holds no {what} of layer {layer}",
                expected=f"one of {', '.join(map(str, stored)) or 'none'}",
            )
        return stored.index(wanted)
