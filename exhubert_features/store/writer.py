"""Clips into shards: any number of writers, killed at any moment, none loses or doubles a clip."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from ..errors import StoreError, UsageError
from ..files import publish
from ..fingerprint import Fingerprint
from ..records import ClipFailure, ClipFeatures, PlannedClip
from .catalog import (
    Catalog,
    ShardTable,
    load_catalog,
    next_number,
    read_table,
    shard_path,
)
from .fitness import Fitness, refuse
from .ledger import create_store, note_state, read_failures, write_failure
from .shard import ShardRows, attributes, encode, gather

SHARD_BYTES = 64 << 20  # a shard is built in memory: writing needs about three times this
SHARD_CLIPS = 256  # at 100 KB a clip: 25 MB a shard
SHARD_SECONDS = 300.0  # on a slow encoder a kill shall cost minutes, not hours

Result = Sequence[ClipFeatures] | ClipFailure


class Writer:
    """Collects clips and publishes shards. Any number of writers may share a store.

    A shard's number is its commit: the hard link that takes number n succeeds for one writer
    only, and a writer takes n only when it knows every shard before n. So whoever loses reads
    the winner's shard, drops the clips that are in it, and tries n + 1: nothing is lost, nothing
    doubled, and no lock is left behind by a kill.
    """

    def __init__(
        self,
        store: Path,
        fingerprint: Fingerprint,
        *,
        provenance: Mapping[str, Any] | None = None,
        shard_bytes: int = SHARD_BYTES,
        shard_clips: int = SHARD_CLIPS,
        shard_seconds: float = SHARD_SECONDS,
    ) -> None:
        if store.is_file():
            raise StoreError(
                f"{store} is a file", expected="a folder", remedy="Packed stores are read-only"
            )
        if min(shard_bytes, shard_clips) < 1:
            raise UsageError(
                f"a shard of {shard_clips} clips and {shard_bytes} bytes", expected="at least 1"
            )
        create_store(store, fingerprint, provenance or {})
        self.store = store
        self.stored: dict[str, str] = {}  # clip id -> audio hash
        self._fitness = Fitness(fingerprint)
        self._described = attributes(fingerprint, provenance or {})
        self._limits = (shard_bytes, shard_clips, shard_seconds)
        self._owners: dict[str, str] = {}  # row id -> clip id
        self._rows: list[ClipFeatures] = []
        self._bytes = 0
        self._clips = 0
        self._flushed = time.monotonic()
        self._failed: set[str] = set()
        self._written: list[ShardTable] = []
        self._failure_files: set[Path] = set()
        self._take_in(load_catalog(store))

    def __enter__(self) -> Writer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Keep what is complete, also on Ctrl-C and when the extraction breaks."""
        self.flush()
        if kind is None or issubclass(kind, KeyboardInterrupt):
            self._take_in(load_catalog(self.store, known=self._written))
            note_state(self.store, self._next)

    def has(self, clip_id: str, audio_sha256: str) -> bool:
        """Whether this very audio is stored under this id."""
        return self.stored.get(clip_id) == audio_sha256

    def settled(self, clip: PlannedClip) -> bool:
        """Whether a clip is stored or has failed in this run."""
        return clip.id in self._failed or self.has(clip.id, clip.audio_sha256)

    def add(self, clip: PlannedClip, result: Result) -> bool:
        """Take one clip's rows, or its failure; False when it is a failure."""
        if not isinstance(result, ClipFailure):
            refusal = self._refusal(clip, result)
            if refusal is None:
                self._collect(clip, result)
                return True
            result = refusal
        self._failed.add(clip.id)
        self.fail(result, audio_sha256=clip.audio_sha256)
        return False

    def _collect(self, clip: PlannedClip, result: Sequence[ClipFeatures]) -> None:
        rows = [self._fitness.cast(row) for row in result]
        self._rows.extend(rows)
        self._owners.update((row.id, clip.id) for row in rows)
        self._clips += 1
        self._bytes += sum(
            array.nbytes for row in rows for array in (row.pooled, row.frames) if array is not None
        )
        shard_bytes, shard_clips, shard_seconds = self._limits
        waited = time.monotonic() - self._flushed
        if self._bytes >= shard_bytes or self._clips >= shard_clips or waited >= shard_seconds:
            self.flush()

    def fail(self, failure: ClipFailure, *, audio_sha256: str = "") -> None:
        """Record a clip without features."""
        self._failure_files.add(write_failure(self.store, failure, audio_sha256=audio_sha256))

    def flush(self) -> None:
        """Publish the clips collected so far as one shard."""
        collected, self._rows, self._bytes, self._clips = self._rows, [], 0, 0
        self._flushed = time.monotonic()
        if collected:
            self.publish(gather(collected))

    def publish(self, rows: ShardRows) -> None:
        """Publish rows as one shard, without those that another writer stored first."""
        # Also before the first try: rows were under way when an earlier shard told of others.
        while len(rows := self._unstored(rows)):
            if publish(encode(rows, self._described), shard_path(self.store, self._next)):
                # Reading back now finds a bad disk early, and the file still in memory.
                self._written.append(read_table(shard_path(self.store, self._next), self._next))
                self._next += 1
                self._remember(rows.text["clip_id"], rows.text["audio_sha256"], rows.text["id"])
                return
            self._take_in(load_catalog(self.store, known=self._written))

    def forget_resolved_failures(self, clips: Iterable[PlannedClip]) -> None:
        """Drop failure records of clips, or of their files, that are stored by now."""
        done = [clip for clip in clips if self.has(clip.id, clip.audio_sha256)]
        names = {clip.id for clip in done} | {clip.file for clip in done if clip.file}
        for path, failure in read_failures(self.store).items():
            if path not in self._failure_files and {failure.id, failure.file} & names:
                path.unlink(missing_ok=True)

    def _unstored(self, rows: ShardRows) -> ShardRows:
        pairs = zip(rows.text["clip_id"], rows.text["audio_sha256"], strict=True)
        new = [row for row, pair in enumerate(pairs) if not self.has(*pair)]
        return rows if len(new) == len(rows) else rows.select(new)

    def _take_in(self, catalog: Catalog) -> None:
        self._next = next_number(self.store, catalog.shards)
        columns = [catalog.text(name) for name in ("clip_id", "audio_sha256", "id")]
        self._remember(*([column[row] for row in catalog.live] for column in columns))

    def _remember(self, clips: list[str], audio: list[str], rows: list[str]) -> None:
        self.stored.update(zip(clips, audio, strict=True))
        self._owners.update(zip(rows, clips, strict=True))

    def _refusal(self, clip: PlannedClip, rows: Sequence[ClipFeatures]) -> ClipFailure | None:
        if len({row.id for row in rows}) < len(rows):
            return refuse(clip, "duplicate", "two of its rows have the same id")
        for row in rows:
            owner = self._owners.get(row.id, clip.id)
            if owner != clip.id:
                return refuse(clip, "duplicate", f"row id {row.id!r} belongs to clip {owner!r}")
            if "\0" in row.id:
                return refuse(clip, "bad_id", f"row id {row.id!r} holds a NUL character")
        return self._fitness.refusal(clip, rows)
