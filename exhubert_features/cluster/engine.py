"""The clips of a source into one store, by the workers of a Ray cluster."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sized
from pathlib import Path
from typing import TypeGuard, cast

from ..errors import AudioError, StoreError, UsageError
from ..extraction import Entry, Part, Source, plan_ids, read_source
from ..records import ClipFailure
from ..store.flight import KILLED
from ..store.journal import read_journal
from .places import Cluster, connected
from .schedule import Schedule
from .worker import Job, Report, Tally

BLOCK_CLIPS = 256  # one shard; a worker that dies costs no more than this
_BLOCKS_EACH = 4  # blocks for each worker at least: with fewer the last one is waited for


def extract_on_ray(
    source: Source | Iterable[Entry | ClipFailure],
    job: Job,
    cluster: Cluster | None = None,
    *,
    data_root: str | Path | None = None,
    block_clips: int = BLOCK_CLIPS,
    strict: bool = False,
    report: Report = lambda tally, workers: None,
) -> Tally:
    """Extract what a store lacks of a source, with the workers of a Ray cluster.

    Any worker, machine, or this process may die at any moment: no clip is lost or stored twice,
    and the same call goes on where it was.

    Parameters
    ----------
    source
        Files, folders, manifests or a table, as :meth:`exhubert_features.Encoder.extract` takes
        them, under the same paths on every machine; or entries, which are taken as workers
        become free.
    job
        What the workers are told: the store, the model, the settings.
    cluster
        Where they run.
    data_root
        See :meth:`exhubert_features.Encoder.predict`.
    block_clips
        Clips that a worker does at a time; fewer where there would be too few blocks for all.
    strict
        Raise at the first block in which a clip failed.
    report
        Called at least every second with what came of a block, if any, and the number of workers
        there are; what it raises ends the run.

    Returns
    -------
    Tally
        The sum over all blocks.
    """
    entries = list_entries(source, data_root)

    def watch(tally: Tally, workers: int) -> None:
        if strict and tally.failures:
            raise AudioError(tally.failures[0].reason, kind=tally.failures[0].kind)
        report(tally, workers)

    with connected(cluster or Cluster()) as places:
        from .crew import Crew  # which needs Ray

        if isinstance(entries, Sized):
            share = math.ceil(len(entries) / (places.actors * _BLOCKS_EACH))
            block_clips = max(1, min(block_clips, share))
        schedule = Schedule(entries, block_clips, _suspects(Path(job.store)))
        return Crew(job, places).work(schedule, watch)


def list_entries(
    source: Source | Iterable[Entry | ClipFailure],
    data_root: str | Path | None = None,
    part: Part | None = None,
) -> Iterable[Entry | ClipFailure]:
    """Give what a source names, no audio opened; entries are given on as they are.

    Parameters
    ----------
    source, data_root
        See :func:`extract_on_ray`.
    part
        Only the clips of this part.
    """
    if _are_entries(source):
        return source
    source = cast(Source, source)
    named = read_source(source, data_root)
    if named.arrays or named.lazy:
        raise UsageError(
            "audio in memory",
            expected="files, folders, manifests or a table, which every machine can read",
            remedy="Write it to files first",
        )
    return list(plan_ids(entry for entry in named.entries if part is None or part.holds(entry.id)))


def _are_entries(source: object) -> TypeGuard[Iterable[Entry | ClipFailure]]:
    if isinstance(source, list | tuple) and source:
        return isinstance(source[0], Entry | ClipFailure)
    return isinstance(source, Iterator)


def _suspects(store: Path) -> set[str]:
    """Ids of clips that killed workers in an earlier run."""
    try:
        failures = read_journal(store).failures
    except StoreError:
        return set()  # the first worker says what is wrong with the store
    return {failure.id for failure in failures.values() if failure.kind == KILLED}
