"""The actors of one run on Ray: hired, given blocks, replaced when they die."""

from __future__ import annotations

import contextlib
import time
import warnings
from dataclasses import replace
from functools import partial
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
from ..files import temporary_file
from ..store.journal import append_events, failed
from .places import Places
from .pulse import GO_ON, Pulse
from .schedule import Block, Schedule
from .watch import Watch
from .worker import Job, Ready, Report, Tally, Worker, comes_to_be_seen

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
    watch: Watch


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
    pulse
        Whether Ray lives.
    """

    def __init__(self, job: Job, places: Places, pulse: Pulse) -> None:
        self._job, self._places, self._pulse = job, places, pulse
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
        except RayError as error:
            raise StoreError(f"Ray failed ({_first_line(error)})", remedy=GO_ON) from error
        finally:
            with contextlib.suppress(StoreError):  # of a dead Ray, which has no actors
                self._pulse.call(lambda: [ray.kill(actor) for actor in self._actors()])
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
            self._hire()
        while self._idle and (block := schedule.next() or self._straggler()):
            self._begin(block)
        for task, turn in self._busy.items():
            if turn.watch.stuck():
                words = f"it came to no end within {self._places.stuck_seconds:g} s"
                lost = _Lost(TimeoutError(words), refused=False)
                return self._ended(self._busy.pop(task), lost, schedule)
        ready, _ = ray.wait([*self._starting, *self._busy], timeout=POLL_SECONDS)
        self._pulse.look()
        if not ready:
            return Tally()
        task = ready[0]
        return self._begun(task) if task in self._starting else self._done(task, schedule)

    def _hire(self) -> None:
        maker = ray.remote(Worker).options(**self._places.options)
        actor = self._pulse.call(partial(maker.remote, self._job))
        self._starting[actor.begin.remote()] = actor

    def _begin(self, block: Block) -> None:
        """Give a block to somebody."""
        actor = self._idle.pop()
        watch = Watch(actor, self._places.stuck_seconds)
        turn = _Turn(actor, block, time.monotonic(), watch)
        self._busy[actor.run.remote(block.entries)] = turn

    def _begun(self, task: Any) -> Tally:
        """Take in an actor that has loaded the model, or has not."""
        actor = self._starting.pop(task)
        try:
            ready: Ready = self._answer(task)
            self._require_shared(actor)
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

    def _require_shared(self, actor: Any) -> None:
        """Refuse a machine on which the store's path leads to another folder than here."""
        store = (self._job.folder / self._job.store).absolute()
        if not comes_to_be_seen(store):
            raise UsageError(
                f"{store} is not there on this machine, and on that of a worker it is",
                expected="one folder that all machines share",
                remedy="Mount it here",
            )
        with temporary_file(store / "shared") as (_, path):
            if elsewhere := self._answer(actor.misses.remote(path.name)):
                raise UsageError(
                    f"{store} is another folder on {elsewhere} than here",
                    expected="one folder that all machines share",
                    remedy="Mount it there, or have each machine write its own with --part",
                )

    def _done(self, task: Any, schedule: Schedule) -> Tally:
        """Take what an actor made of its block, or its end."""
        turn = self._busy.pop(task)
        try:
            tally: Tally = self._answer(task)
        except _Lost as lost:
            return self._ended(turn, lost, schedule)
        self._deaths = self._refusals = 0
        blocks, seconds = self._pace
        self._pace = blocks + 1, seconds + time.monotonic() - turn.since
        for other in self._rivals(turn):  # too late: the block is committed
            self._pulse.call(partial(ray.kill, self._busy.pop(other).actor))
        self._idle.append(turn.actor)
        return tally

    def _ended(self, turn: _Turn, lost: _Lost, schedule: Schedule) -> Tally:
        """Have a block done again whose worker died, or was of no use any more."""
        self._bury(turn.actor, lost)
        rivals = self._rivals(turn)
        for other in rivals:  # it is at the block still, and what has happened counts
            rival = self._busy[other]
            block = replace(rival.block, losses=rival.block.losses + 1)
            self._busy[other] = rival._replace(block=block)
        return Tally() if rivals else self._again(turn.block, lost, schedule)

    def _rivals(self, turn: _Turn) -> list[Any]:
        """Give the tasks of others who are at the same block."""
        return [task for task, other in self._busy.items() if other.block is turn.block]

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
        self._pulse.call(partial(ray.kill, actor))
        self._refusals += lost.refused
        self._deaths += not lost.refused
        if self._refusals > 2 * self._places.actors:
            raise lost.reason
        if self._deaths >= MOST_DEATHS + 2 * self._places.actors:
            raise StoreError(
                f"{self._deaths} workers ended without a block done in between, the last: {lost}",
                remedy=f"Mend that. {GO_ON}",
            )

    def _answer(self, task: Any) -> Any:
        """Give what an actor answers; what is wrong for all of them is raised."""
        try:
            return self._pulse.call(partial(ray.get, task))
        except RayTaskError as error:
            cause = error.cause
            if isinstance(cause, _FATAL):
                raise cause from None
            raise _Lost(cause, refused=isinstance(cause, (OSError, StoreError))) from None
        except RayError as error:
            self._pulse.check()  # with a dead raylet all of its workers are lost
            raise _Lost(error, refused=False) from None

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
            closed = actor.close.remote()
            with contextlib.suppress(RayError, StoreError, OSError):
                self._pulse.call(partial(ray.get, closed))
                return

    def _stop(self) -> None:
        """Have what is done so far committed."""
        tasks = [*self._busy]
        for turn in self._busy.values():
            turn.actor.stop.remote()
        if tasks:
            ray.wait(tasks, num_returns=len(tasks), timeout=STOP_SECONDS)


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
