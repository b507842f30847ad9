"""The clips of a source into one store, by the workers of a Ray cluster."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

from ..errors import AudioError, StoreError, UsageError
from ..extraction import Plan, Source, plan
from ..records import Entry, Item
from ..store.flight import KILLED
from ..store.journal import read_journal
from .places import Cluster, connected
from .schedule import Schedule
from .worker import Job, Report, Tally

BLOCK_CLIPS = 256
# A block costs this process 18 ms. What a worker commits within one is safe, however many clips
# it has, so that many clips make larger blocks, and with these larger shards.
_MOST_BLOCKS = 8192
_BLOCKS_EACH = 4  # blocks for each worker at least: with fewer the last one is waited for


def extract_on_ray(
    source: Source | Plan,
    job: Job,
    cluster: Cluster | None = None,
    *,
    data_root: str | Path | None = None,
    block_clips: int | None = None,
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
        them, under the same paths on every machine; or a plan. Read as workers become free.
    job
        What the workers are told: the store, the model, the settings.
    cluster
        Where they run.
    data_root
        See :meth:`exhubert_features.Encoder.predict`.
    block_clips
        Clips that a worker does at a time; None: 256 or those of a shard, or more where there are
        millions. Fewer where there would be too few blocks for all.
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

    def watch(tally: Tally, workers: int) -> None:
        if strict and tally.failures:
            raise AudioError(tally.failures[0].reason, kind=tally.failures[0].kind)
        report(tally, workers)

    work = plan(source, data_root=data_root)
    with connected(cluster or Cluster()) as (places, pulse):
        from .crew import Crew  # which needs Ray

        size = _block_size(work.about(), places.actors, block_clips, job.shard_clips)
        schedule = Schedule(_files(work), size, _suspects(Path(job.store)))
        return Crew(job, places, pulse).work(schedule, watch)


def _block_size(clips: int | None, actors: int, asked: int | None, shard_clips: int) -> int:
    usual = max(BLOCK_CLIPS, shard_clips, (clips or 0) // _MOST_BLOCKS)
    if clips is None:
        return asked or usual
    share = math.ceil(clips / (actors * _BLOCKS_EACH))
    return max(1, min(asked or usual, share))


def _files(work: Plan) -> Iterator[Item]:
    """Give what can be sent to another machine by its name."""
    for entry in work:
        if isinstance(entry, Entry) and entry.load is not None:
            raise UsageError(
                f"{entry.id} is audio in memory, or comes out of a function",
                expected="files, folders, manifests or a table, which every machine can read",
                remedy="Write it to files first",
            )
        yield entry


def _suspects(store: Path) -> set[str]:
    """Ids of clips that killed workers in an earlier run."""
    try:
        failures = read_journal(store).failures
    except StoreError:
        return set()  # the first worker says what is wrong with the store
    return {failure.id for failure in failures.values() if failure.kind == KILLED}
