"""One worker: a loaded encoder that turns blocks of clips into rows of a store."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from ..encoder import Encoder, load_encoder
from ..extraction import Entry, Extraction, plan_entries
from ..records import ClipFailure
from ..spec import SAMPLE_RATE
from ..store import ShardLimits, WriteProgress
from ..store.writer import Writer

FAILURES_TOLD = 20  # of a block; all of them are in the store


@dataclass(frozen=True, kw_only=True)
class Job:
    """What all workers of a run are told.

    Parameters
    ----------
    store
        Folder of the store, under this path on every machine.
    model
        Arguments of :func:`exhubert_features.load_encoder`, ``source`` among them.
    settings
        Arguments of :meth:`exhubert_features.Encoder.extract`: ``layers``, ``pools``, ...
    batch_size, threads
        The same, ``threads`` being its ``workers``; they decide no numbers.
    """

    store: Path
    model: Mapping[str, Any]
    settings: Mapping[str, Any] = field(default_factory=dict)
    batch_size: int | None = None
    threads: int | None = None


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What came of one block. ``present`` clips were in the store already."""

    stored: int = 0
    present: int = 0
    failed: int = 0
    seconds: float = 0.0  # of audio in the stored
    failures: tuple[ClipFailure, ...] = ()  # the first few

    def __add__(self, other: Outcome) -> Outcome:
        return Outcome(
            stored=self.stored + other.stored,
            present=self.present + other.present,
            failed=self.failed + other.failed,
            seconds=self.seconds + other.seconds,
            failures=(self.failures + other.failures)[:FAILURES_TOLD],
        )


class Worker:
    """Loads the model once, then does block after block.

    A block is committed as a whole when it is through: what a killed worker had not committed
    is done again by another, and nothing is stored twice, as the store itself sees to that.

    Parameters
    ----------
    job
        What to do.
    encoder
        A loaded one, in place of the job's model.
    """

    def __init__(self, job: Job, encoder: Encoder | None = None) -> None:
        self.job = job
        self._encoder = encoder

    @cached_property
    def encoder(self) -> Encoder:
        """The model, loaded when first asked for: what is wrong with it is told by that call."""
        return self._encoder or load_encoder(**self.job.model)

    @cached_property
    def _writer(self) -> Writer:
        empty = self._extraction(())
        limits = ShardLimits(seconds=math.inf)  # one shard for a block, if its bytes allow it
        return Writer(Path(self.job.store), empty.fingerprint, empty.provenance, limits)

    def run(self, entries: Sequence[Entry | ClipFailure]) -> Outcome:
        """Extract what the store lacks of some clips, and commit it."""
        extraction = self._extraction(entries)
        clips, rejected = len(extraction.clips), len(extraction.rejected)
        last = WriteProgress(total=clips, present=clips, stored=0, failed=rejected, clip=None)
        samples = 0

        def watch(state: WriteProgress) -> None:
            nonlocal last, samples
            if state.clip is not None and state.stored > last.stored:
                samples += state.clip.samples
            last = state

        self._writer.take(extraction, watch)
        return Outcome(
            stored=last.stored,
            present=last.present,
            failed=last.failed,
            seconds=samples / SAMPLE_RATE,
            failures=tuple(extraction.failures[:FAILURES_TOLD]),
        )

    def give_up(self, failure: ClipFailure) -> None:
        """Record a clip that no worker survives."""
        self._writer.fail(failure)
        self._writer.flush()

    def close(self) -> None:
        """Leave the store as a run of its own would."""
        self._writer.__exit__(None, None, None)

    def _extraction(self, entries: Sequence[Entry | ClipFailure]) -> Extraction:
        job = self.job
        channel = job.settings.get("channel")
        plan = plan_entries(entries, channel=channel, workers=job.threads)
        return self.encoder.extract(
            plan, **job.settings, batch_size=job.batch_size, workers=job.threads
        )
