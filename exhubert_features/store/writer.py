"""Clips into shards: any number of writers, killed at any moment, none loses or doubles a clip."""

from __future__ import annotations

import contextlib
import logging
import time
from collections import Counter
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, runtime_checkable

import numpy as np

from ..errors import StoreError, UsageError
from ..files import publish
from ..fingerprint import Fingerprint
from ..records import ClipFailure, ClipFeatures, PlannedClip
from .catalog import load_catalog, next_number, read_shard, shard_path
from .flight import KILLED, Flight, left_out
from .journal import (
    append_events,
    clip_key,
    compact_journal,
    create_store,
    failed,
    mended,
    note_state,
    planned,
    read_journal,
    renew_description,
)
from .opening import ShardTable
from .progress import Report, WriteProgress
from .rows import outstanding
from .shard import ShardRows, dtype_of, encode, gather, shapes

logger = logging.getLogger(__name__)
FLOAT16_LARGEST = 65_504.0
_EVENTS_AT_ONCE = 1000  # failures kept in memory before they are written

Result = Sequence[ClipFeatures] | ClipFailure


@dataclass(frozen=True, kw_only=True)
class ShardLimits:
    """A shard is published as soon as it reaches one of these."""

    bytes: int = 64 << 20  # a shard is built in memory: writing needs about three times this
    clips: int = 256  # at 100 KB a clip: 25 MB a shard
    seconds: float = 300.0  # on a slow encoder a kill shall cost minutes, not hours

    def __post_init__(self) -> None:
        if min(self.bytes, self.clips) < 1:
            raise UsageError(
                f"a shard of {self.clips} clips and {self.bytes} bytes", expected="at least 1"
            )


@runtime_checkable
class FeatureSource(Protocol):
    """What the store needs to know of an extraction."""

    @property
    def fingerprint(self) -> Fingerprint:
        """What decides the numbers."""
        ...

    @property
    def clips(self) -> Sequence[PlannedClip]:
        """The clips to do."""
        ...

    @property
    def rejected(self) -> Sequence[ClipFailure]:
        """Those that could not even be planned."""
        ...

    def results(self, clips: Iterable[PlannedClip]) -> Iterator[tuple[PlannedClip, Result]]:
        """Give each clip with its rows or its failure."""
        ...


class Writer:
    """Collects clips and publishes shards. Any number of writers may share a store.

    A shard's number is its commit: the hard link that takes number n succeeds for one writer
    only, and a writer takes n only when it knows every shard before n. So whoever loses reads
    the winner's shard, drops the clips that are in it, and tries n + 1: nothing is lost, nothing
    doubled, and no lock is left behind by a kill.

    Parameters
    ----------
    store
        Folder of the store; made when absent.
    fingerprint
        Of the features; a store of another one is refused.
    provenance
        Where the model was found; decides no numbers.
    limits
        When to publish a shard.
    """

    def __init__(
        self,
        store: Path,
        fingerprint: Fingerprint,
        provenance: Mapping[str, Any] | None = None,
        limits: ShardLimits | None = None,
    ) -> None:
        if store.is_file():
            raise StoreError(
                f"{store} is a file", expected="a folder", remedy="Packed stores are read-only"
            )
        self.store = store
        self.stored: dict[str, str] = {}  # clip id -> audio hash
        self._fingerprint = fingerprint
        self._provenance = provenance or {}
        self._limits = limits or ShardLimits()
        self._flight = Flight(store)
        create_store(store, fingerprint, self._provenance)
        self._owners: dict[str, str] = {}  # row id -> clip id
        self._rows: list[ClipFeatures] = []
        self._clips = self._bytes = 0  # of these rows
        self._events: list[dict[str, Any]] = []
        self._failed: set[str] = set()
        self._flushed = time.monotonic()
        self._known: list[ShardTable] = []  # shards written, or met, by this writer
        catalog = load_catalog(store, fingerprint)
        self._next = next_number(store, catalog.shards)
        columns = [catalog.text(name) for name in ("clip_id", "audio_sha256", "id")]
        self._remember(*([column[row] for row in catalog.live.tolist()] for column in columns))

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
            catalog = load_catalog(self.store, self._fingerprint, known=self._known)
            note_state(self.store, next_number(self.store, catalog.shards))

    def has(self, clip_id: str, audio_sha256: str) -> bool:
        """Whether this very audio is stored under this id."""
        return self.stored.get(clip_id) == audio_sha256

    def add(self, clip: PlannedClip, result: Result) -> bool:
        """Take one clip's rows, or its failure; False when it is a failure."""
        if isinstance(result, ClipFailure):
            refusal: ClipFailure | None = replace(result, audio_sha256=clip.audio_sha256)
        else:
            refusal = self._refusal(clip, result)
        if refusal:
            self._failed.add(clip.id)
            self.fail(refusal)
        elif not isinstance(result, ClipFailure):
            dtype = dtype_of("pooled", self._fingerprint)
            self._rows += [_cast(row, dtype) for row in result]
            self._owners.update((row.id, clip.id) for row in result)
            self._clips += 1
            self._bytes += sum(_size(row) for row in self._rows[-len(result) :])
        limits, waited = self._limits, time.monotonic() - self._flushed
        if self._bytes >= limits.bytes or self._clips >= limits.clips or waited >= limits.seconds:
            self.flush()
        return refusal is None

    def fail(self, failure: ClipFailure) -> None:
        """Record a clip without features."""
        self._events.append(failed(failure))
        if len(self._events) >= _EVENTS_AT_ONCE:
            events, self._events = self._events, []
            append_events(self.store, events)

    def flush(self) -> None:
        """Publish the clips collected so far as one shard, and write failures down."""
        self._flushed = time.monotonic()
        collected, self._rows, self._clips, self._bytes = self._rows, [], 0, 0
        if collected:
            self.publish(gather(collected))
        events, self._events = self._events, []
        append_events(self.store, events)

    def publish(self, rows: ShardRows) -> None:
        """Publish rows as one shard, without those that another writer stored first."""
        if not self._known:
            renew_description(self.store, self._fingerprint)
        # Also before the first try: rows were under way when an earlier shard told of others.
        while len(rows := self._unstored(rows)):
            path = shard_path(self.store, self._next)
            if not path.exists():  # beside many writers it mostly does; create_store has swept
                publish(encode(rows, self._fingerprint, self._provenance), path, sweeping=False)
            # Whoever won: reading back finds a bad disk early, and the file still in memory.
            table = read_shard(path, self._next, self._fingerprint)
            self._known.append(table)
            self._next += 1
            self._remember(*(table.words(name) for name in ("clip_id", "audio_sha256", "id")))

    def take(
        self, source: FeatureSource | Iterable[ClipFeatures | ClipFailure], report: Report
    ) -> None:
        """Store what is missing of an extraction, or of plain rows, those of one clip together."""
        if isinstance(source, FeatureSource):
            self._take_planned(source, report)
        else:
            self._take_rows(source, report)

    def _take_planned(self, extraction: FeatureSource, report: Report) -> None:
        clips = extraction.clips
        counts = Counter(clip.id for clip in clips)
        if doubled := [name for name, count in counts.items() if count > 1]:
            raise StoreError(f"{len(doubled)} ids are not unique, the first is {doubled[0]!r}")
        wanted = outstanding(clips, self.stored)
        if changed := [clip.id for clip in wanted if clip.id in self.stored]:
            logger.warning(
                "audio has changed since it was stored (clips: %d, the first: %r): "
                "it is extracted anew and replaces the old",
                len(changed),
                changed[0],
            )
        journal = read_journal(self.store)
        known = journal.planned
        if new := [clip for clip in wanted if known.get(clip.id) != clip.audio_sha256]:
            append_events(self.store, [planned(new)])
        for failure in extraction.rejected:
            self.fail(failure)
        present, done = len(clips) - len(wanted), Counter({False: len(extraction.rejected)})
        killed = {one.id for one in journal.failures.values() if one.kind == KILLED}
        self._flight.suspects |= killed - self._flight.guilty
        with contextlib.closing(self._results(extraction, wanted)) as results:
            for clip, result in results:
                done[self.add(clip, result)] += 1
                report(
                    WriteProgress(
                        total=len(clips), present=present, stored=done[True], failed=done[False],
                        clip=clip,
                    )
                )  # fmt: skip
        self.flush()
        done_with = {clip.id for clip in wanted if self.has(clip.id, clip.audio_sha256)}
        if forgotten := [c.id for c in wanted if c.id not in done_with | self._failed]:
            raise StoreError(
                f"the extraction returned nothing for {len(forgotten)} clips, "
                f"first {forgotten[0]!r}"
            )
        self._mend(clips)

    def _results(
        self, extraction: FeatureSource, wanted: Sequence[PlannedClip]
    ) -> Generator[tuple[PlannedClip, Result], None, None]:
        """Extract clips; those that were in hand when an earlier run was killed come last."""
        if not wanted:
            return
        flight = self._flight
        suspects = [clip for clip in wanted if clip.id in flight.suspects]
        guilty = [clip for clip in wanted if clip.id in flight.guilty]
        late = {clip.id for clip in (*suspects, *guilty)}
        # Lazily, so that what a second writer stored in the meantime is not extracted here too.
        missing = (clip for clip in wanted if not self.has(clip.id, clip.audio_sha256))
        parts = [flight.watch(clip for clip in missing if clip.id not in late)]
        parts += [flight.alone(clip) for clip in suspects]
        with flight.begun():
            for number, part in enumerate(parts):
                for clip, result in extraction.results(part):
                    yield clip, result
                    flight.done(clip)
                if number == 0 and suspects:
                    self.flush()
        yield from ((clip, left_out(clip)) for clip in guilty)

    def _take_rows(self, rows: Iterable[ClipFeatures | ClipFailure], report: Report) -> None:
        seen: set[str] = set()
        done: Counter[bool] = Counter()
        for total, ((name, file), group) in enumerate(groupby(rows, key=_clip_of), start=1):
            members = list(group)
            failure = next((row for row in members if isinstance(row, ClipFailure)), None)
            features = [row for row in members if isinstance(row, ClipFeatures)]
            if features and name in seen:
                raise StoreError(
                    f"id {name!r} is not unique", expected="the rows of a clip together"
                )
            seen.update(row.clip_id for row in features)
            audio = features[0].audio_sha256 if features else ""
            if failure or not self.has(name, audio):
                clip = PlannedClip(id=name, file=file, audio_sha256=audio)
                done[self.add(clip, failure or features)] += 1
            report(
                WriteProgress(
                    total=total, present=total - done.total(), stored=done[True],
                    failed=done[False], clip=None,
                )
            )  # fmt: skip
        self.flush()

    def _mend(self, clips: Iterable[PlannedClip]) -> None:
        """Note of clips that had failed, before or in another run, that they are stored now."""
        failures = read_journal(self.store).failures
        stored = {
            clip_key(clip.id, clip.file) for clip in clips if self.has(clip.id, clip.audio_sha256)
        }
        append_events(self.store, [mended(failures[key]) for key in failures.keys() & stored])
        compact_journal(self.store)

    def _unstored(self, rows: ShardRows) -> ShardRows:
        pairs = zip(rows.text["clip_id"], rows.text["audio_sha256"], strict=True)
        new = [row for row, pair in enumerate(pairs) if not self.has(*pair)]
        return rows if len(new) == len(rows) else rows.select(new)

    def _remember(self, clips: list[str], audio: list[str], rows: list[str]) -> None:
        self.stored.update(zip(clips, audio, strict=True))
        self._owners.update(zip(rows, clips, strict=True))

    def _refusal(self, clip: PlannedClip, rows: Sequence[ClipFeatures]) -> ClipFailure | None:
        """Why a clip's rows must not be stored, or None when they may."""
        if not rows:
            return clip.failure("empty", "the extraction returned no rows for it")
        if len({row.id for row in rows}) < len(rows):
            return clip.failure("duplicate", "two of its rows have the same id")
        for row in rows:
            owner = self._owners.get(row.id, clip.id)
            if owner != clip.id:
                return clip.failure("duplicate", f"row id {row.id!r} belongs to clip {owner!r}")
            if "\0" in row.id:
                return clip.failure("bad_id", f"row id {row.id!r} holds a NUL character")
            self._require_promised(clip, row)
            if row.audio_sha256 != clip.audio_sha256:
                return clip.failure("changed", "the audio changed between planning and reading")
            if refused := _unfit(row, self._fingerprint.spec.dtype):
                return clip.failure(*refused)
        return None

    def _require_promised(self, clip: PlannedClip, row: ClipFeatures) -> None:
        """Raise for rows of another shape or clip than was promised: no fault of the audio."""
        if row.clip_id != clip.id:
            raise StoreError(f"row {row.id!r} came for clip {clip.id!r}, says {row.clip_id!r}")
        frames = 0 if row.frames is None else row.frames.shape[1]
        wanted = {
            name: shape if name == "frames" else shape[1:]
            for name, shape in shapes(self._fingerprint, 1, frames).items()
            if name in ("pooled", "logits", "frames")
        }
        given = (("pooled", row.pooled), ("logits", row.logits), ("frames", row.frames))
        found = {name: array.shape for name, array in given if array is not None}
        if found != wanted:
            raise StoreError(f"row {row.id!r} has {_listed(found)}", expected=_listed(wanted))


def _listed(arrays: Mapping[str, tuple[int, ...]]) -> str:
    return ", ".join(f"{name} {shape}" for name, shape in arrays.items())


def _clip_of(row: ClipFeatures | ClipFailure) -> tuple[str, str]:
    return (row.id, row.file) if isinstance(row, ClipFailure) else (row.clip_id, row.file)


def _size(row: ClipFeatures) -> int:
    return row.pooled.nbytes + (0 if row.frames is None else row.frames.nbytes)


def _cast(row: ClipFeatures, dtype: np.dtype) -> ClipFeatures:
    """Give the row in the store's dtype; logits are few and stay float32."""
    return replace(
        row,
        pooled=row.pooled.astype(dtype),
        logits=None if row.logits is None else row.logits.astype(np.float32),
        frames=None if row.frames is None else row.frames.astype(dtype),
    )


def _unfit(row: ClipFeatures, dtype: str) -> tuple[str, str] | None:
    """Kind and reason of a row whose numbers cannot be stored."""
    for name in ("pooled", "logits", "frames"):
        array = getattr(row, name)
        largest = 0.0 if array is None else _magnitude(array)
        if np.isnan(largest):
            return "nan", f"{name} of {row.id} hold NaN"
        if name != "logits" and dtype == "float16" and largest > FLOAT16_LARGEST:
            reason = f"{name} of {row.id} reach {largest:.6g}, float16 ends at 65,504"
            return "overflow", f"{reason}. Use --dtype float32."
        if np.isinf(largest):
            return "infinite", f"{name} of {row.id} hold infinity"
    return None


def _magnitude(array: np.ndarray) -> float:
    """Give the largest absolute value; NaN when one is NaN, infinity when one is infinite."""
    if array.dtype == np.float16:
        # Without their sign, the bits of float16 rise from 0 over infinity to NaN, and comparing
        # integers is 40 times faster than numpy's comparison of halves.
        bits = (np.ascontiguousarray(array).view(np.uint16) & 0x7FFF).max(initial=0)
        return float(np.uint16(bits).view(np.float16))
    return float(np.abs(array).max(initial=0))
