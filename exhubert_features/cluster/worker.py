"""One worker: a loaded encoder that turns blocks of clips into rows of a store."""

from __future__ import annotations

import contextlib
import os
import socket
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..encoder import load_encoder
from ..extraction import Extraction, Plan
from ..records import ClipFailure, Entry, Item, PlannedClip
from ..spec import SAMPLE_RATE
from ..store.journal import append_events, planned
from ..store.limits import ShardLimits
from ..store.writer import Result, Writer

SEEING_SECONDS = 60  # that a new file may take to show on another machine
FAILURES_TOLD = 256  # of a run; all of them are in the store
# What libraries raise over one clip. Others of a batch need not suffer: each is tried alone.
_RAISED = (RuntimeError, ValueError, TypeError, LookupError, ArithmeticError, MemoryError)


@dataclass(frozen=True, kw_only=True)
class Job:
    """What all workers of a run are told.

    Parameters
    ----------
    store
        Folder of the store, under this path on every machine; made when absent.
    model
        Arguments of :func:`exhubert_features.load_encoder`: ``source``, ``precision``, ...
    settings
        Arguments of :meth:`exhubert_features.Encoder.extract`: ``layers``, ``pools``, ...
    batch_size, threads
        Windows at a time, and threads that read audio; they decide no numbers.
    shard_clips
        Clips in one file of the store; more as it grows, fewer where blocks are smaller.
    folder
        What relative paths are relative to; that of the caller.
    """

    store: str | Path
    model: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    batch_size: int | None = None
    threads: int | None = None
    shard_clips: int = 256
    folder: Path = field(default_factory=Path.cwd)


@dataclass(frozen=True, kw_only=True)
class Tally:
    """What came of some blocks. ``present`` clips were in the store already."""

    stored: int = 0
    present: int = 0
    failed: int = 0
    seconds: float = 0.0  # of audio in the stored
    failures: tuple[ClipFailure, ...] = ()  # the first few

    @property
    def clips(self) -> int:
        """How many there were."""
        return self.stored + self.present + self.failed

    def __add__(self, other: Tally) -> Tally:
        return Tally(
            stored=self.stored + other.stored,
            present=self.present + other.present,
            failed=self.failed + other.failed,
            seconds=self.seconds + other.seconds,
            failures=(self.failures + other.failures)[:FAILURES_TOLD],
        )


# Told what came of a block, if any, and how many workers there are.
Report = Callable[[Tally, int], None]


@dataclass(frozen=True, kw_only=True)
class Ready:
    """What a worker says when it has loaded the model."""

    precision: str
    warnings: tuple[str, ...] = ()


class Worker:
    """Loads the model once, then does block after block.

    A block is committed when it is through, or every few minutes: what a killed worker had not
    committed is done again by another, and nothing is stored twice, as the store sees to that.

    Parameters
    ----------
    job
        What to do.
    """

    def __init__(self, job: Job) -> None:
        self._job = job
        self._stopping = False
        self._moves = 0

    def begin(self) -> Ready:
        """Load the model and open the store: whatever is wrong with these shows here."""
        with contextlib.suppress(FileNotFoundError):  # a machine without it may do without it
            os.chdir(self._job.folder)
        with warnings.catch_warnings(record=True) as heard:
            warnings.simplefilter("always", UserWarning)
            self._encoder = load_encoder(**self._job.model)
        for layer in self._encoder.model.hubert.encoder.blocks:  # a large batch takes minutes
            layer.register_forward_hook(self._move)
        store = Path(self._job.store)
        empty = self._extraction(Plan(()))
        empty.go_on_with(store)  # one that version 0.1.0 began has its own fingerprint
        self._fingerprint = empty.fingerprint
        limits = ShardLimits(clips=self._job.shard_clips)
        self._writer = Writer(store, empty.fingerprint, empty.provenance, limits)
        return Ready(
            precision=self._encoder.precision, warnings=tuple(str(one.message) for one in heard)
        )

    def run(self, entries: Sequence[Item]) -> Tally:
        """Extract what the store lacks of some clips, and commit it."""
        self._moves = 0
        extraction, writer = self._extraction(entries), self._writer
        extraction.fingerprint = self._fingerprint
        asked = [entry.id for entry in entries if isinstance(entry, Entry)]
        if new := {name: "" for name in asked if name not in writer.stored}:
            append_events(writer.store, [planned(new)])
        stored, present, samples, failures = 0, 0, 0, list[ClipFailure]()
        for clip, result in _each(extraction, entries, writer.has):
            self._move()
            if result is None:
                writer.mend(clip)
                present += 1
            elif writer.add(clip, result):
                stored, samples = stored + 1, samples + clip.samples
            else:
                failures.append(_failure(clip, result))
            if self._stopping:
                break
        writer.flush()
        return Tally(
            stored=stored,
            present=present,
            failed=len(failures),
            seconds=samples / SAMPLE_RATE,
            failures=tuple(failures),
        )

    def misses(self, name: str) -> str:
        """Tell this machine's name when a new file of the store does not come to be seen here."""
        path = Path(self._job.store).absolute() / name
        return "" if comes_to_be_seen(path) else socket.gethostname()

    def stop(self) -> None:
        """Have :meth:`run`, which another thread is in, commit what it has and return."""
        self._stopping = True

    def moves(self) -> int:
        """Tell how often :meth:`run`, which another thread is in, has got on."""
        return self._moves

    def close(self) -> None:
        """Leave the store as a run on one machine would."""
        self._writer.__exit__(None, None, None)

    def _move(self, *_: object) -> None:
        """Count a clip, or a batch that is through a layer."""
        self._moves += 1

    def _extraction(self, source: Sequence[Item] | Plan) -> Extraction:
        job = self._job
        return self._encoder.extract(
            source, **job.settings, batch_size=job.batch_size, workers=job.threads
        )


def comes_to_be_seen(path: Path) -> bool:
    """Tell whether something is there, soon: what a network file system remembers may be old."""
    for _ in range(SEEING_SECONDS):
        with contextlib.suppress(OSError):  # a listing has it look again
            if path in path.parent.iterdir() or path.exists():
                return True
        time.sleep(1)
    return False


def _each(
    extraction: Extraction, entries: Sequence[Item], has: Callable[[str, str], bool]
) -> Iterator[tuple[PlannedClip, Result]]:
    """Give clips with what became of them; when something raises, the rest one by one."""
    done = 0
    try:
        for pair in extraction.results(entries, has):
            done += 1
            yield pair
        return
    except _RAISED as error:
        _require_sane(error)
    for entry in entries[done:]:
        try:
            yield from extraction.results([entry], has)
        except _RAISED as error:
            _require_sane(error)
            clip = entry.clip() if isinstance(entry, Entry) else PlannedClip(id=entry.id)
            reason = f"{clip.file or clip.id} made {type(error).__name__}: {error}"
            yield clip, clip.failure("raised", reason)


def _require_sane(error: Exception) -> None:
    """Raise again what is no clip's fault: a GPU that is lost answers nothing any more."""
    if isinstance(error, RuntimeError) and "CUDA error" in str(error):
        raise error


def _failure(clip: PlannedClip, result: Result) -> ClipFailure:
    if isinstance(result, ClipFailure):
        return result
    return clip.failure("refused", "the store refused its numbers; `exhubert inspect` says why")
