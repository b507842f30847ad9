"""The blocks of a source, dealt to actors of a Ray cluster.

Ray starts, places and watches the actors; that no clip is lost or stored twice is the store's
doing, so that any actor, node or the driver may die at any moment.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import RayActorError, RayTaskError, WorkerCrashedError

from ..errors import FingerprintMismatch, StoreError, UsageError
from ..extraction import Entry
from ..records import ClipFailure
from .schedule import BLOCK_CLIPS, Block, Schedule
from .worker import Job, Outcome, Worker

POLL_SECONDS = 1.0  # between looks at whether somebody asked for an end
MOST_DEATHS = 30  # of workers, in a row, without a block done in between
STRAGGLING = 2  # workers that may be at one block once nothing else is left to do

Report = Callable[[Outcome], None]


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """Where the workers run.

    Parameters
    ----------
    address
        Of a Ray cluster (``auto``, ``ray://host:10001``); None starts one in this machine.
    actors
        Workers; None is one for each GPU, or without GPUs one for each machine.
    gpus_per_actor
        May be a fraction, for several workers on one GPU.
    """

    address: str | None = None
    actors: int | None = None
    gpus_per_actor: float = 0.0


def extract_on_ray(
    entries: Iterable[Entry | ClipFailure],
    job: Job,
    cluster: Cluster | None = None,
    *,
    block_clips: int = BLOCK_CLIPS,
    report: Report = lambda outcome: None,
) -> Outcome:
    """Extract what a store lacks of some clips, with the workers of a Ray cluster.

    Parameters
    ----------
    entries
        What there is to do; taken as workers become free.
    job
        What the workers are told.
    cluster
        Where they run.
    block_clips
        Clips that a worker does at a time and commits together.
    report
        Called with what came of each block; what it raises ends the run. What is committed is
        kept, and the same call goes on from there.

    Returns
    -------
    Outcome
        The sum over all blocks.
    """
    with _connected(cluster or Cluster()) as (actors, options):
        return _Crew(job, actors, options).work(Schedule(entries, block_clips), report)


@contextmanager
def _connected(cluster: Cluster) -> Iterator[tuple[int, dict[str, Any]]]:
    """Give how many actors there shall be and what each needs, with Ray running."""
    ours = not ray.is_initialized()
    if ours:
        ray.init(address=cluster.address, log_to_driver=False, include_dashboard=False)
    try:
        there = ray.cluster_resources()
        nodes = sum(bool(node["Alive"]) for node in ray.nodes())
        gpus = cluster.gpus_per_actor
        if gpus > there.get("GPU", 0.0):
            raise UsageError(
                f"{gpus:g} GPUs for each worker, and the cluster has {there.get('GPU', 0):g}"
            )
        number = cluster.actors or (int(there["GPU"] / gpus) if gpus else nodes)
        share = max(1, int(there.get("CPU", 1) // max(number, 1)))
        environment = {"env_vars": {"OMP_NUM_THREADS": str(share)}}
        yield number, {"num_gpus": gpus, "num_cpus": share, "runtime_env": environment}
    finally:
        if ours:
            ray.shutdown()


class _Crew:
    """The actors of one run, each with the block that it is at."""

    def __init__(self, job: Job, actors: int, options: Mapping[str, Any]) -> None:
        self._job, self._options = job, options
        self._idle: list[Any] = [self._hire() for _ in range(actors)]
        self._busy: dict[Any, tuple[Any, Block]] = {}
        self._deaths = 0  # since a block was done

    def work(self, schedule: Schedule, report: Report) -> Outcome:
        """Deal out blocks until all are done."""
        total = Outcome()
        try:
            while self._deal(schedule):
                ready, _ = ray.wait(list(self._busy), timeout=POLL_SECONDS)
                outcome = self._take(ready[0], schedule) if ready else Outcome()
                total += outcome
                report(outcome)  # also when nothing came: it may raise to end the run
            self._ask("close")
        finally:
            for actor in [*self._idle, *(actor for actor, _ in self._busy.values())]:
                ray.kill(actor)
        return total

    def _hire(self) -> Any:
        return ray.remote(Worker).options(**self._options).remote(self._job)

    def _deal(self, schedule: Schedule) -> bool:
        """Give every idle worker something to do; False when nothing is left or under way."""
        while self._idle:
            block = schedule.next() or self._straggler()
            if block is None:
                break
            actor = self._idle.pop()
            self._busy[actor.run.remote(block.entries)] = (actor, block)
        return bool(self._busy)

    def _straggler(self) -> Block | None:
        """Give the block that is longest under way: whoever is first commits it, once."""
        blocks = [block for _, block in self._busy.values()]
        return next((block for block in blocks if blocks.count(block) < STRAGGLING), None)

    def _take(self, task: Any, schedule: Schedule) -> Outcome:
        """Take what a worker returned, or its death."""
        actor, block = self._busy.pop(task)
        rivals = [other for other, (_, same) in self._busy.items() if same is block]
        try:
            outcome: Outcome = ray.get(task)
        except RayTaskError as error:
            if not isinstance(error.cause, (OSError, StoreError, MemoryError)) or isinstance(
                error.cause, FingerprintMismatch
            ):
                raise error.cause from None
            ray.kill(actor)  # its disk may be full, another's need not be
            reason = error.cause
        except (RayActorError, WorkerCrashedError) as error:
            reason = error
        else:
            self._deaths = 0
            self._idle.append(actor)
            for other in rivals:  # too late: the block is committed, and nothing new is left
                ray.kill(self._busy.pop(other)[0])
            return outcome
        self._idle.append(self._hire())
        self._deaths += 1
        if self._deaths >= MOST_DEATHS:
            raise StoreError(
                f"{self._deaths} workers in a row ended without a block done, the last by: "
                f"{_first_line(reason)}",
                remedy="Mend that and run the same command again",
            )
        failure = None if rivals else schedule.lost(block, _first_line(reason))
        if failure is None:
            return Outcome()
        self._ask("give_up", failure)
        return Outcome(failed=1, failures=(failure,))

    def _ask(self, what: str, *arguments: Any) -> None:
        """Have an idle worker do a small thing, another one if it dies of it."""
        for _ in range(MOST_DEATHS):
            actor = self._idle.pop(0) if self._idle else self._hire()
            try:
                ray.get(getattr(actor, what).remote(*arguments))
            except (RayActorError, WorkerCrashedError):
                continue
            self._idle.append(actor)
            return


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
