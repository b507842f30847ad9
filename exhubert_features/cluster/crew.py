"""The actors of one run on Ray: hired, given blocks, replaced when they die."""

from __future__ import annotations

import contextlib
import time
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import ray
from ray.exceptions import RayError, RayTaskError

from ..errors import (
    CheckpointError,
    DamagedStore,
    FingerprintMismatch,
    MissingDependency,
    StoreError,
    UsageError,
)
from ..store.journal import append_events, failed
from .places import Places
from .schedule import Block, Schedule
from .worker import Job, Ready, Report, Tally, Worker

POLL_SECONDS = 1.0  # between looks at whether somebody asked for an end
STOP_SECONDS = 60.0  # that workers have to commit what they are at after Ctrl-C
MOST_DEATHS = 30  # of workers, and two for each, without a block done in between
STRAGGLING = 2.0  # times as long as blocks take: then an idle worker does the block as well
_FATAL = (UsageError, CheckpointError, FingerprintMismatch, DamagedStore, MissingDependency)


class _Turn(NamedTuple):
    """An actor at a block."""

    actor: Any
    block: Block
    since: float


class _Lost(Exception):
    """An actor did not answer. ``refused``: its machine's fault, such as a full disk."""

    def __init__(self, reason: BaseException, *, refused: bool) -> None:
        super().__init__(_first_line(reason))
        self.reason, self.refused = reason, refused


class Crew:
    """The actors of one run, each with the block that it is at.

    Parameters
    ----------
    job
        What they are told.
    places
        How many there shall be, and where.
    """

    def __init__(self, job: Job, places: Places) -> None:
        self._job, self._places = job, places
        self._wanted = 1  # until the first has made the store: its precision is everybody's
        self._starting: dict[Any, Any] = {}  # task -> actor
        self._idle: list[Any] = []
        self._busy: dict[Any, _Turn] = {}
        self._deaths = self._refusals = 0  # since a block was done
        self._pace: tuple[int, float] = (0, 0.0)  # blocks done, and the seconds that they took

    def work(self, schedule: Schedule, report: Report) -> Tally:
        """Have all blocks done; what is lost is done again.

        Parameters
        ----------
        schedule
            Which block is next.
        report
            See :func:`exhubert_features.cluster.extract_on_ray`.
        """
        total = Tally()
        try:
            while schedule or self._busy:
                tally = self._step(schedule)
                total += tally
                report(tally, len(self._idle) + len(self._busy))  # it may raise to end the run
            self._close()
        except KeyboardInterrupt:
            self._stop()
            raise
        finally:
            for actor in self._actors():
                ray.kill(actor)
        return total

    def _actors(self) -> list[Any]:
        return [
            *self._starting.values(),
            *self._idle,
            *(turn.actor for turn in self._busy.values()),
        ]

    def _step(self, schedule: Schedule) -> Tally:
        """Hire and deal out, then wait for one answer."""
        while schedule and len(self._actors()) < self._wanted:
            actor = ray.remote(Worker).options(**self._places.options).remote(self._job)
            self._starting[actor.begin.remote()] = actor
        while self._idle and (block := schedule.next() or self._straggler()):
            actor = self._idle.pop()
            self._busy[actor.run.remote(block.entries)] = _Turn(actor, block, time.monotonic())
        ready, _ = ray.wait([*self._starting, *self._busy], timeout=POLL_SECONDS)
        if not ready:
            return Tally()
        task = ready[0]
        return self._begun(task) if task in self._starting else self._done(task, schedule)

    def _begun(self, task: Any) -> Tally:
        """Take in an actor that has loaded the model, or has not."""
        actor = self._starting.pop(task)
        try:
            ready: Ready = _answer(task)
        except _Lost as lost:
            self._bury(actor, lost)
            return Tally()
        if self._wanted == 1:
            for words in ready.warnings:
                warnings.warn(words, stacklevel=2)
        self._job = replace(self._job, model={**self._job.model, "precision": ready.precision})
        self._wanted = self._places.actors
        self._idle.append(actor)
        return Tally()

    def _done(self, task: Any, schedule: Schedule) -> Tally:
        """Take what an actor made of its block, or its end."""
        actor, block, since = self._busy.pop(task)
        rivals = [other for other, turn in self._busy.items() if turn.block is block]
        try:
            tally: Tally = _answer(task)
        except _Lost as lost:
            self._bury(actor, lost)
            for other in rivals:  # it is at the block still, and what has happened counts
                turn = self._busy[other]
                self._busy[other] = turn._replace(block=replace(block, losses=block.losses + 1))
            return Tally() if rivals else self._again(block, lost, schedule)
        self._deaths = self._refusals = 0
        blocks, seconds = self._pace
        self._pace = blocks + 1, seconds + time.monotonic() - since
        for other in rivals:  # too late: the block is committed
            ray.kill(self._busy.pop(other).actor)
        self._idle.append(actor)
        return tally

    def _again(self, block: Block, lost: _Lost, schedule: Schedule) -> Tally:
        """Have a block done again, or a clip given up."""
        if lost.refused:
            schedule.back(block)
            return Tally()
        failure = schedule.lost(block, str(lost))
        if failure is None:
            return Tally()
        append_events(Path(self._job.store), [failed(failure)])
        self._deaths = 0
        return Tally(failed=1, failures=(failure,))

    def _bury(self, actor: Any, lost: _Lost) -> None:
        """Count an end; too many in a row end the run."""
        ray.kill(actor)
        self._refusals += lost.refused
        self._deaths += not lost.refused
        if self._refusals > 2 * self._places.actors:
            raise lost.reason
        if self._deaths >= MOST_DEATHS + 2 * self._places.actors:
            raise StoreError(
                f"{self._deaths} workers ended without a block done in between, the last: {lost}",
                remedy="Mend that and run the same command again: it goes on where it stopped",
            )

    def _straggler(self) -> Block | None:
        """Give the block that is longest under way, when it is late: whoever is first commits."""
        blocks, seconds = self._pace
        late = time.monotonic() - STRAGGLING * seconds / blocks if blocks else 0.0
        at = [turn.block for turn in self._busy.values()]
        for turn in self._busy.values():
            if turn.since < late and turn.block.losses == 0 and at.count(turn.block) == 1:
                return turn.block
        return None

    def _close(self) -> None:
        """Have the index written by who knows most shards; a reader can do it as well."""
        for actor in self._idle:
            with contextlib.suppress(RayError, StoreError, OSError):
                ray.get(actor.close.remote())
                return

    def _stop(self) -> None:
        """Have what is done so far committed."""
        tasks = [*self._busy]
        for turn in self._busy.values():
            turn.actor.stop.remote()
        if tasks:
            ray.wait(tasks, num_returns=len(tasks), timeout=STOP_SECONDS)


def _answer(task: Any) -> Any:
    """Give what an actor answers; what is wrong for all of them is raised."""
    try:
        return ray.get(task)
    except RayTaskError as error:
        cause = error.cause
        if isinstance(cause, _FATAL):
            raise cause from None
        raise _Lost(cause, refused=isinstance(cause, (OSError, StoreError))) from None
    except RayError as error:
        raise _Lost(error, refused=False) from None


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
