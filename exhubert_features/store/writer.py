"""Clips into shards: any number of writers, killed at any moment, none loses or doubles a clip."""

from __future__ import annotations

import contextlib
import logging
import time
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import groupby, islice
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, runtime_checkable

from ..errors import StoreError
from ..files import publish
from ..fingerprint import Fingerprint
from ..records import ClipFailure, ClipFeatures, Entry, Item, PlannedClip
from ..register import NameMap
from .fitness import cast, require_promised, size_of, unfit
from .flight import KILLED, Flight, left_out
from .folder import next_number, shard_path, tombstone_path
from .index import load_catalog, load_shard, note_shard, read_shard
from .journal import (
    ASKED_AT_ONCE,
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
from .limits import ShardLimits
from .opening import ShardTable
from .progress import Report, WriteProgress
from .shard import ShardRows, dtype_of, encode, gather

logger = logging.getLogger(__name__)
_EVENTS_AT_ONCE = 1000  # failures kept in memory before they are written

_FIRST_ASKED = 256  # clips named in the journal at first, then twice as many each time

Result = Sequence[ClipFeatures] | ClipFailure | None  # None: it is there already


@runtime_checkable
class FeatureSource(Protocol):
    """What the store needs to know of an extraction."""

    @property
    def fingerprint(self) -> Fingerprint:
        """What decides the numbers."""
        ...

    @property
    def plan(self) -> Iterable[Item]:
        """What to do, read as it goes; ids of entries are unique."""
        ...

    def results(
        self, entries: Iterable[Item], has: Callable[[str, str], bool] | None = None
    ) -> Iterator[tuple[PlannedClip, Result]]:
        """Give each clip with its rows or its failure; None for one that ``has`` tells of."""
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

    Attributes
    ----------
    stored
        The clips in the store, with 64 bits of their audio's hash: what a writer holds for each
        of them takes 24 to 48 bytes, and as much for each row that is not named like its clip.
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
        self._fingerprint = fingerprint
        self._provenance = provenance or {}
        self._limits = limits or ShardLimits()
        self._flight = Flight(store)
        create_store(store, fingerprint, self._provenance)
        self._rows: list[ClipFeatures] = []
        self._clips = self._bytes = 0  # of these rows
        self._fresh: dict[str, str] = {}  # their ids -> clip ids
        self._events: list[dict[str, Any]] = []
        self._mended: list[dict[str, Any]] = []  # not to be written before their rows
        self._changed: deque[tuple[str, str]] = deque()  # clips, and hashes that are not stored
        self._changes, self._first_changed = 0, ""
        self._flushed = time.monotonic()
        self._renewed = False  # the description
        self._alone = True  # as far as is known
        self._failures = read_journal(store).failures
        catalog = load_catalog(store, fingerprint)
        self._next = next_number(store, catalog.shards)
        self.stored = NameMap(expected=len(catalog.live))
        self._owners = NameMap()  # clips of rows that are not named like them
        for table in catalog.tables:  # later ones replace what earlier ones say
            self._remember(table)

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
            catalog = load_catalog(self.store, self._fingerprint, alone=self._alone)
            note_state(self.store, next_number(self.store, catalog.shards))
        if kind is None:
            compact_journal(self.store)

    def has(self, clip_id: str, audio_sha256: str) -> bool:
        """Whether this very audio is stored under this id; any thread may ask."""
        return self.stored.get(clip_id) == _number(audio_sha256)

    def add(self, clip: PlannedClip, result: Sequence[ClipFeatures] | ClipFailure) -> bool:
        """Take one clip's rows, or its failure; False when it is a failure."""
        return self._add(clip, result) is None

    def _add(
        self, clip: PlannedClip, result: Sequence[ClipFeatures] | ClipFailure
    ) -> ClipFailure | None:
        """Take one clip's rows or failure; why it is a failure, None when it is none."""
        if isinstance(result, ClipFailure):
            refusal: ClipFailure | None = replace(result, audio_sha256=clip.audio_sha256)
        else:
            refusal = self._refusal(clip, result)
        if refusal:
            self.fail(refusal)
        elif not isinstance(result, ClipFailure):
            dtype = dtype_of("pooled", self._fingerprint)
            self._rows += [cast(row, dtype) for row in result]
            self._fresh.update((row.id, clip.id) for row in result)
            self._clips += 1
            self._bytes += sum(size_of(row) for row in self._rows[-len(result) :])
            self.mend(clip)
        waited = time.monotonic() - self._flushed
        if self._limits.reached(self._clips, self._bytes, waited, stored=len(self.stored)):
            self.flush()
        return refusal

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
        self._fresh = {}
        changed = dict(self._changed.popleft() for _ in range(len(self._changed)))
        self._events += [planned(changed)] if changed else []
        self._first_changed = self._first_changed or next(iter(changed), "")
        self._changes += len(changed)
        events, self._events, self._mended = self._events + self._mended, [], []
        append_events(self.store, events)

    def publish(self, rows: ShardRows) -> None:
        """Publish rows as one shard, without those that another writer stored first."""
        if not self._renewed:
            renew_description(self.store, self._fingerprint)
            self._renewed = True
        # Also before the first try: rows were under way when an earlier shard told of others.
        while len(rows := self._unstored(rows)):
            if table := self._publish(rows):
                self._remember(table)
            self._next += 1

    def _publish(self, rows: ShardRows) -> ShardTable | None:
        """Publish rows under the next number; the table of what is there then, by whoever."""
        path = shard_path(self.store, self._next)
        if not path.exists() and tombstone_path(self.store, self._next).exists():
            return None  # a repair took it out: readers know of the gap, and it stays one
        # Beside many writers it mostly exists. Nothing is swept: create_store has done that.
        if not path.exists() and publish(
            encode(rows, self._fingerprint, self._provenance), path, sweeping=False
        ):
            # Reading back finds a bad disk early, and the file still in memory.
            table = read_shard(path, self._next, self._fingerprint)
            note_shard(self.store, table)
            return table
        self._alone = False
        return load_shard(self.store, self._next, self._fingerprint)

    def take(
        self, source: FeatureSource | Iterable[ClipFeatures | ClipFailure], report: Report
    ) -> None:
        """Store what is missing of an extraction, or of plain rows, those of one clip together."""
        if isinstance(source, FeatureSource):
            self._take_planned(source, report)
        else:
            self._take_rows(source, report)

    def _take_planned(self, extraction: FeatureSource, report: Report) -> None:
        done: Counter[str] = Counter()
        killed = {one.id for one in self._failures.values() if one.kind == KILLED}
        self._flight.suspects |= killed - self._flight.guilty
        with contextlib.closing(self._results(extraction)) as results:
            for clip, result in results:
                refusal = None
                if result is None:
                    self.mend(clip)
                else:
                    refusal = self._add(clip, result)
                done["present" if result is None else "failed" if refusal else "stored"] += 1
                report(
                    WriteProgress(
                        total=done.total(), present=done["present"], stored=done["stored"],
                        failed=done["failed"], clip=clip, failure=refusal,
                    )
                )  # fmt: skip
        self.flush()
        if forgotten := list(self._flight.hand):
            raise StoreError(
                f"the extraction returned nothing for {len(forgotten)} clips, "
                f"first {forgotten[0]!r}"
            )
        self._warn_of_changes()

    def _warn_of_changes(self) -> None:
        if self._changes:
            logger.warning(
                "audio has changed since it was stored (clips: %d, the first: %r): "
                "it is extracted anew and replaces the old",
                self._changes,
                self._first_changed,
            )
        self._changes, self._first_changed = 0, ""

    def _results(
        self, extraction: FeatureSource
    ) -> Generator[tuple[PlannedClip, Result], None, None]:
        """Extract clips; those that were in hand when an earlier run was killed come last."""
        flight, suspects, guilty = self._flight, list[Entry](), list[Entry]()

        def unsuspected() -> Iterator[Item]:
            for entry in self._asked(extraction.plan):
                if isinstance(entry, ClipFailure):
                    yield entry
                elif entry.id in flight.guilty and entry.id not in self.stored:
                    guilty.append(entry)
                elif entry.id in flight.suspects or entry.id in flight.guilty:
                    suspects.append(entry)
                else:
                    yield entry

        with flight.begun():
            yield from flight.through(extraction.results(flight.watch(unsuspected()), self._holds))
            if suspects:
                self.flush()
            for entry in suspects:
                yield from flight.through(extraction.results(flight.alone(entry), self._holds))
        for entry in guilty:
            yield entry.clip(), left_out(entry.clip())
            flight.settle(entry.id)

    def _asked(self, plan: Iterable[Item]) -> Iterator[Item]:
        """Hand a plan's entries on in blocks, those that are new in the journal first."""
        entries, size = iter(plan), _FIRST_ASKED
        while block := list(islice(entries, size)):
            new = {
                entry.id: ""
                for entry in block
                if not isinstance(entry, ClipFailure)
                and entry.id not in self.stored
                and clip_key(entry.id, entry.file) not in self._failures
            }
            if new:
                append_events(self.store, [planned(new)])
            yield from block
            size = min(2 * size, ASKED_AT_ONCE)

    def _holds(self, clip_id: str, audio_sha256: str) -> bool:
        """Whether a clip need not be extracted; remembers those whose audio has changed."""
        known = self.stored.get(clip_id)
        if known is not None and known != _number(audio_sha256):
            self._changed.append((clip_id, audio_sha256))
        return known == _number(audio_sha256)

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

    def mend(self, clip: PlannedClip) -> None:
        """Note of a clip that had failed that it is stored, once it is."""
        if failure := self._failures.get(clip_key(clip.id, clip.file)):
            self._mended.append(mended(failure))

    def _unstored(self, rows: ShardRows) -> ShardRows:
        pairs = zip(rows.text["clip_id"], rows.text["audio_sha256"], strict=True)
        new = [row for row, pair in enumerate(pairs) if not self.has(*pair)]
        return rows if len(new) == len(rows) else rows.select(new)

    def _remember(self, table: ShardTable) -> None:
        columns = (table.words(name) for name in ("clip_id", "audio_sha256", "id"))
        for clip, audio, row in zip(*columns, strict=True):
            self.stored[clip] = _number(audio)
            if row != clip:
                self._owners[row] = _number(clip)

    def _belongs_to_another(self, row: str, clip: str) -> bool:
        """Whether a row of this name is there already, of another clip."""
        if row in self._fresh:
            return self._fresh[row] != clip
        owner = self._owners.get(row)
        return owner != _number(clip) if owner is not None else row != clip and row in self.stored

    def _refusal(self, clip: PlannedClip, rows: Sequence[ClipFeatures]) -> ClipFailure | None:
        """Why a clip's rows must not be stored, or None when they may."""
        if not rows:
            return clip.failure("empty", "the extraction returned no rows for it")
        if len({row.id for row in rows}) < len(rows):
            return clip.failure("duplicate", "two of its rows have the same id")
        for row in rows:
            if self._belongs_to_another(row.id, clip.id):
                return clip.failure("duplicate", f"row id {row.id!r} belongs to another clip")
            if "\0" in row.id:
                return clip.failure("bad_id", f"row id {row.id!r} holds a NUL character")
            require_promised(clip, row, self._fingerprint)
            if row.audio_sha256 != clip.audio_sha256:
                return clip.failure("changed", "the audio changed between planning and reading")
            if refused := unfit(row, self._fingerprint.spec.dtype):
                return clip.failure(*refused)
        return None


def _number(text: str) -> int:
    """64 bits of a text: enough to tell two versions of one clip apart, in this process."""
    return hash(text) & (1 << 64) - 1


def _clip_of(row: ClipFeatures | ClipFailure) -> tuple[str, str]:
    return (row.id, row.file) if isinstance(row, ClipFailure) else (row.clip_id, row.file)
