"""Bring a store up to date with an extraction, or with plain rows."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Protocol, runtime_checkable

from ..errors import StoreError
from ..fingerprint import Fingerprint
from ..records import ClipFailure, ClipFeatures, PlannedClip
from .ledger import write_plan
from .writer import SHARD_BYTES, SHARD_CLIPS, SHARD_SECONDS, Result, Writer

logger = logging.getLogger(__name__)


@runtime_checkable
class Extraction(Protocol):
    """What the store needs to know of an extraction."""

    @property
    def fingerprint(self) -> Fingerprint: ...
    @property
    def clips(self) -> Sequence[PlannedClip]: ...
    @property
    def rejected(self) -> Sequence[ClipFailure]: ...
    def results(self, clips: Iterable[PlannedClip]) -> Iterator[tuple[PlannedClip, Result]]: ...


@dataclass(frozen=True, kw_only=True)
class WriteProgress:
    """Where a write stands after one more clip."""

    total: int  # clips asked for
    present: int  # of these, already in the store when the run began
    stored: int  # of these, done in this run
    failed: int  # in this run
    clip: PlannedClip | None  # the one just done; None for plain rows


def write_store(
    path: Path,
    source: Extraction | Iterable[ClipFeatures | ClipFailure],
    *,
    fingerprint: Fingerprint | None = None,
    shard_bytes: int = SHARD_BYTES,
    shard_clips: int = SHARD_CLIPS,
    shard_seconds: float = SHARD_SECONDS,
    on_progress: Callable[[WriteProgress], None] | None = None,
) -> None:
    """Bring a store up to date with a source; see :meth:`FeatureStore.write`."""
    if isinstance(source, Extraction):
        fingerprint = source.fingerprint
    if fingerprint is None:
        raise StoreError(
            "rows without a fingerprint cannot be stored",
            remedy="Pass fingerprint=Fingerprint(model=encoder.identity, spec=spec)",
        )
    report = on_progress or (lambda progress: None)
    with Writer(
        path,
        fingerprint,
        provenance=getattr(source, "provenance", {}),
        shard_bytes=shard_bytes,
        shard_clips=shard_clips,
        shard_seconds=shard_seconds,
    ) as writer:
        if isinstance(source, Extraction):
            _write_planned(writer, source, report)
        else:
            _write_rows(writer, source, report)


def _write_planned(
    writer: Writer, extraction: Extraction, report: Callable[[WriteProgress], None]
) -> None:
    clips = extraction.clips
    counts = Counter(clip.id for clip in clips)
    if doubled := [name for name, count in counts.items() if count > 1]:
        raise StoreError(f"{len(doubled)} ids are not unique, the first is {doubled[0]!r}")
    wanted = [clip for clip in clips if not writer.has(clip.id, clip.audio_sha256)]
    if changed := [clip.id for clip in wanted if clip.id in writer.stored]:
        logger.warning(
            "the audio of %d clips has changed since they were stored, the first is %r: "
            "they are extracted anew and replace the old",
            len(changed),
            changed[0],
        )
    write_plan(writer.store, wanted)
    for failure in extraction.rejected:
        writer.fail(failure)
    present, stored, failed = len(clips) - len(wanted), 0, len(extraction.rejected)
    # Lazily, so that what a second writer stored in the meantime is not extracted here too.
    missing = (clip for clip in wanted if not writer.has(clip.id, clip.audio_sha256))
    for clip, result in extraction.results(missing):
        succeeded = writer.add(clip, result)
        stored, failed = stored + succeeded, failed + (not succeeded)
        report(
            WriteProgress(
                total=len(clips), present=present, stored=stored, failed=failed, clip=clip
            )
        )
    writer.flush()
    forgotten = [clip.id for clip in wanted if not writer.settled(clip)]
    if forgotten:
        raise StoreError(
            f"the extraction returned nothing for {len(forgotten)} clips, first {forgotten[0]!r}"
        )
    writer.forget_resolved_failures(clips)


def _write_rows(
    writer: Writer,
    rows: Iterable[ClipFeatures | ClipFailure],
    report: Callable[[WriteProgress], None],
) -> None:
    seen: set[str] = set()
    stored = failed = 0

    def clip_of(row: ClipFeatures | ClipFailure) -> tuple[str, str]:
        return (row.id, row.file) if isinstance(row, ClipFailure) else (row.clip_id, row.file)

    for total, ((name, file), group) in enumerate(groupby(rows, key=clip_of), start=1):
        members = list(group)
        failure = next((row for row in members if isinstance(row, ClipFailure)), None)
        features = [row for row in members if isinstance(row, ClipFeatures)]
        if features and name in seen:
            raise StoreError(f"id {name!r} is not unique", expected="the rows of a clip together")
        seen.update(row.clip_id for row in features)
        audio = features[0].audio_sha256 if features else ""
        if failure or not writer.has(name, audio):
            clip = PlannedClip(id=name, file=file, audio_sha256=audio)
            succeeded = writer.add(clip, failure or features)
            stored, failed = stored + succeeded, failed + (not succeeded)
        present = total - stored - failed
        report(WriteProgress(total=total, present=present, stored=stored, failed=failed, clip=None))
    writer.flush()
