"""The store as its users see it: open, look up, read whole layers, write."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import StoreError
from ..fingerprint import Fingerprint
from ..records import ClipFailure, ClipFeatures
from ..spec import Layers, resolve_layers
from .arrays import ShardReader
from .catalog import join_tables
from .index import load_catalog
from .journal import StoredFailure, no_store, read_description, read_journal, stored_failure
from .limits import ShardLimits
from .opening import checked_shard, is_shard
from .progress import Report, bar
from .rows import meta_table, row_index, row_times, unknown_id
from .shard import ShardRows
from .writer import FeatureSource, Writer

if TYPE_CHECKING:
    import pandas as pd


class FeatureStore:
    """Features of many clips, read-only; a folder or one packed ``.h5`` file.

    Opening checks every shard that the index does not know, every read what it gives. What is
    seen is the store as it was then; rows that a writer adds later show after opening it again.
    Safe to pickle, and to use in forked and spawned workers.

    Parameters
    ----------
    path
        What `exhubert extract` or `exhubert pack` wrote.

    Raises
    ------
    StoreError
        When there is no store, it cannot be read, or (DamagedStore) is not what was written.

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
        if self.path.is_dir():
            about = read_description(self.path)
            self._catalog = load_catalog(self.path, about["fingerprint"])
        else:
            about = self._open_packed()
        self.fingerprint: Fingerprint = about["fingerprint"]
        self.provenance: dict[str, Any] = about["provenance"]
        self._reader = ShardReader(self.path, self._catalog, self.fingerprint)

    def _open_packed(self) -> dict[str, Any]:
        if not is_shard(self.path):
            raise StoreError(
                f"{self.path} is not a feature store",
                expected="a folder written by `exhubert extract` or a file by `exhubert pack`",
            )
        with checked_shard(self.path) as shard:
            about = shard.about()
            self._catalog = join_tables([shard.table(0, about["fingerprint"])])
            self._packed_failures = tuple(map(stored_failure, shard.failures()))
        return about

    @staticmethod
    def write(
        path: str | Path,
        source: FeatureSource | Iterable[ClipFeatures | ClipFailure],
        *,
        fingerprint: Fingerprint | None = None,
        limits: ShardLimits | None = None,
        on_progress: Report | None = None,
        progress: bool = False,
    ) -> FeatureStore:
        """Store what an extraction yields: only clips that are missing or have changed.

        Interrupted at any moment, the same call goes on where it stopped. Clips that failed are
        tried again, those whose audio changed are replaced, those no longer in the source stay.

        Parameters
        ----------
        path
            Folder of the store; made when absent.
        source
            An extraction, or any rows and failures, those of one clip together.
        fingerprint
            Of plain rows; an extraction brings its own.
        limits
            How large a shard grows before it is published.
        on_progress
            Called after each clip.
        progress
            Show a bar of clips on stderr, unless ``on_progress`` is given.

        Returns
        -------
        FeatureStore
            The store, open.

        Raises
        ------
        StoreError
            When the disk is full, ids are not unique, or (FingerprintMismatch) the store was
            made with other weights or settings.
        """
        fingerprint = source.fingerprint if isinstance(source, FeatureSource) else fingerprint
        if fingerprint is None:
            raise StoreError(
                "rows without a fingerprint cannot be stored",
                remedy="Pass fingerprint=Fingerprint(model=encoder.identity, spec=spec)",
            )
        origin = getattr(source, "provenance", {})
        with Writer(Path(path), fingerprint, origin, limits) as writer, bar(progress) as shown:
            writer.take(source, on_progress or shown)
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
        if not self.path.is_dir():
            return self._packed_failures
        stored = self._audio()
        return tuple(
            failure
            for failure in read_journal(self.path).failures.values()
            # A kill between a late success and the note of it leaves the failure behind.
            if not failure.audio_sha256 or stored.get(failure.id) != failure.audio_sha256
        )

    @property
    def pending(self) -> tuple[str, ...]:
        """Clips that a run was asked for and that are neither stored nor failed."""
        if not self.path.is_dir():
            return ()
        stored, missing = self._audio(), dict[str, None]()

        def ask(clips: Mapping[str, str]) -> None:
            for name, audio in clips.items():
                missing[name] = None
                if name in stored and (not audio or stored[name] == audio):
                    del missing[name]

        read_journal(self.path, ask)
        failed = {failure.id for failure in self.failures}
        return tuple(name for name in missing if name not in failed)

    @property
    def shard_count(self) -> int:
        """How many shard files there are."""
        return len(self._catalog.shards)

    @property
    def stored_bytes(self) -> int:
        """Size of all shards."""
        return sum(shard.size for shard in self._catalog.shards)

    def column(self, name: str) -> list[Any]:
        """Give one column of the table of rows, such as ``file`` or ``start``."""
        return self._catalog.column(name)

    def __len__(self) -> int:
        return len(self._catalog.live)

    def __iter__(self) -> Iterator[str]:
        return iter(self.ids)

    def __contains__(self, name: object) -> bool:
        return name in self._catalog.rows

    def __repr__(self) -> str:
        return f"FeatureStore({str(self.path)!r}: {len(self)} rows)"

    def __getitem__(self, name: str) -> ClipFeatures:
        """One row; UnknownId, a KeyError, names near ids, DamagedStore says that it has changed."""
        row = self.row(name)
        shard, local = self._reader.place(row)
        logits, frames = self._reader.logits(shard, local, 1), self._reader.frames(shard, local, 1)
        text, numbers = self._catalog.text, self._catalog.numbers
        status = text("status")[row]
        return ClipFeatures(
            id=name,
            clip_id=text("clip_id")[row],
            file=text("file")[row],
            start=float(numbers["start"][row]),
            end=float(numbers["end"][row]),
            samples=int(numbers["samples"][row]),
            audio_sha256=text("audio_sha256")[row],
            warnings=() if status == "ok" else tuple(status.split(",")),
            pooled=self._reader.pooled(shard, local, 1)[0],
            logits=None if logits is None else logits[0],
            frames=frames,
            frame_times=row_times(numbers, row, frames, self.fingerprint.spec),
            meta=json.loads(text("meta")[row]),
        )

    def vector(self, name: str, *, layer: int, pool: str = "mean") -> np.ndarray:
        """Read one layer of one row without the others.

        Parameters
        ----------
        name
            Id of the row.
        layer, pool
            Hidden-state id and pooling, among those stored.

        Returns
        -------
        np.ndarray
            (D,)
        """
        shard, local = self._reader.place(self.row(name))
        return self._reader.vectors(shard, [local], self.position(layer, pool))[0]

    def frames(self, name: str, *, layer: int) -> np.ndarray:
        """Read the frames of one layer of one row without the others.

        Parameters
        ----------
        name
            Id of the row.
        layer
            Hidden-state id, among :attr:`frame_layers`.

        Returns
        -------
        np.ndarray
            (T, D)
        """
        shard, local = self._reader.place(self.row(name))
        frames = self._reader.frames(shard, local, 1, [self.position(layer, None)])
        return frames[0]  # type: ignore[index]

    def matrix(self, *, layer: int, pool: str = "mean") -> np.ndarray:
        """Read one layer of all rows.

        Parameters
        ----------
        layer, pool
            Hidden-state id and pooling, among those stored.

        Returns
        -------
        np.ndarray
            (N, D), in the order of :attr:`ids`.
        """
        return self._reader.matrix(self.position(layer, pool))

    def logits(self) -> np.ndarray:
        """Read the class scores of all rows.

        Returns
        -------
        np.ndarray
            (N, C) float32, in the order of :attr:`ids`.
        """
        if not self.has_logits:
            raise StoreError(f"{self.path} holds no logits")
        return self._reader.all_logits()

    def blocks(self) -> Iterator[ShardRows]:
        """Give all rows in stored order, a few dozen MB at a time: for copying and checking."""
        yield from self._reader.blocks()

    def frame_counts(self) -> np.ndarray:
        """Tell how many frames each row has stored, (N,)."""
        return self._catalog.frame_counts()

    def to_dataframe(self, layer: Layers = None, pool: str | None = None) -> pd.DataFrame:
        """Put all rows on audformat's index (file, start, end).

        Clips that came as arrays have their id for a file.

        Parameters
        ----------
        layer
            A hidden-state id: columns ``feature_0``, ``feature_1``, ... in float32; several:
            columns ``layer12_0``, ...; None: ``id``, ``status`` and those of the manifest.
        pool
            One of those stored; None is the first.

        Returns
        -------
        pandas.DataFrame
            One row each, in the order of :attr:`ids`.
        """
        import pandas as pd

        bounds = (self.column(name) for name in ("file", "start", "end"))
        index = row_index(self.ids, *bounds)
        if layer is None:
            return meta_table(index, self.ids, self.column("status"), self.column("meta"))
        parts = [
            pd.DataFrame(
                self.matrix(layer=one, pool=pool or self.pools[0]).astype(np.float32), index=index
            ).add_prefix("feature_" if isinstance(layer, int) else f"layer{one}_")
            for one in ((layer,) if isinstance(layer, int) else layer)
        ]
        return pd.concat(parts, axis=1)

    def position(self, layer: int, pool: str | None) -> int:
        """Find where a layer stands among those stored.

        Parameters
        ----------
        layer
            A hidden-state id; negative ones count from the end.
        pool
            One of those stored: positions are counted pool by pool. None: among the layers
            stored frame by frame.

        Returns
        -------
        int
            From 0.

        Raises
        ------
        StoreError
            When they are not, naming what is.
        """
        stored = self.frame_layers if pool is None else self.layers
        (wanted,) = resolve_layers([layer], self.fingerprint.model.num_states)
        if wanted not in stored:
            raise StoreError(
                f"{self.path} holds no {'frames' if pool is None else 'pooled features'} "
                f"of layer {layer}",
                expected=f"one of {', '.join(map(str, stored)) or 'none'}",
            )
        if pool is None:
            return stored.index(wanted)
        if pool not in self.pools:
            raise StoreError(
                f"pool {pool!r} is not in {self.path}", expected=f"one of {', '.join(self.pools)}"
            )
        return stored.index(wanted) * len(self.pools) + self.pools.index(pool)

    def row(self, name: str) -> int:
        """Find the row of an id in the catalog.

        Returns
        -------
        int
            Where it stands; UnknownId, a KeyError naming near ids, is raised when it does not.
        """
        row = self._catalog.rows.get(name)
        if row is None:
            raise unknown_id(name, self.ids, self.path)
        return row

    def _audio(self) -> dict[str, str]:
        return dict(zip(self.column("clip_id"), self.column("audio_sha256"), strict=True))
