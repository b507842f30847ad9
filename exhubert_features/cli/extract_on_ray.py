"""``exhubert extract ... --engine ray``: the same store, by the actors of a Ray cluster."""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from typing import TYPE_CHECKING

from .extracting import FailureCounts, begun_precision, read_settings, stopped, summarise
from .interrupt import Interrupt
from .options import model_settings, positive
from .wording import count, duration

if TYPE_CHECKING:
    from ..cluster import Tally

LINE_SECONDS = 30.0  # between lines where there is no terminal


def add_ray_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare who does the work."""
    group = parser.add_argument_group("several machines")
    group.add_argument(
        "--engine",
        choices=("here", "ray"),
        default="here",
        help="who does the work: this process, or the actors of a Ray cluster (default: "
        "%(default)s)",
    )
    group.add_argument(
        "--address", help="of a Ray cluster: auto, host:6379 (default: one is started here)"
    )
    group.add_argument(
        "--actors", type=positive, help="on Ray (default: one a GPU, without GPUs one a machine)"
    )
    group.add_argument(
        "--gpus-per-actor",
        type=float,
        metavar="SHARE",
        help="on Ray, may be a fraction (default: 1 where there are GPUs)",
    )


def run_on_ray(options: argparse.Namespace) -> int:
    """Deal the clips out, show how far they are, and list what failed."""
    from ..cluster import Cluster, Job, Tally, extract_on_ray
    from ..extraction import parse_part, plan
    from ..store import FeatureStore

    settings = read_settings(options)
    part = None if options.part is None else parse_part(options.part)
    cluster = Cluster(
        address=options.address, actors=options.actors, gpus_per_actor=options.gpus_per_actor
    )
    work = plan(options.input, data_root=options.data_root)
    if part is not None:
        work = work.part(part.number, part.count)
    clips = work.about()
    print(f"Plan: about {count(clips or 0, 'clip')} -> {options.output}, on Ray.")
    sys.stdout.flush()
    if options.precision == "auto":
        options.precision = begun_precision(options.output) or "auto"
    job = Job(
        store=options.output,
        model=model_settings(options),
        settings=settings,
        batch_size=options.batch_size,
        threads=options.workers,
        shard_clips=options.shard_clips,
    )
    failures = FailureCounts()
    total = Tally()
    with Interrupt() as interrupt:
        display = _Display(clips)

        def report(tally: Tally, workers: int) -> None:
            failures.add(tally.failures)
            display.update(tally, workers)
            interrupt.check()

        try:
            total = extract_on_ray(
                work,
                job,
                cluster,
                strict=options.strict,
                report=report,
            )
        except KeyboardInterrupt:
            return stopped(options.output)
        finally:
            display.close()
    return summarise(FeatureStore(options.output), failures, total.clips)


class _Display:
    """Clips done, failures, hours of audio and the time left: redrawn on a terminal, else lines."""

    def __init__(self, clips: int | None) -> None:
        self._clips, self._done, self._failed = clips or 0, 0, 0
        self._new, self._seconds, self._workers = 0, 0.0, 0
        self._begun = self._shown = time.monotonic()
        self._terminal = sys.stderr.isatty()

    def update(self, tally: Tally, workers: int) -> None:
        """Count one block."""
        now = time.monotonic()
        if workers and not self._workers and not self._done:
            self._begun = now  # loading the model is none of the pace
        self._workers = workers
        self._done += tally.clips
        self._new += tally.stored
        self._failed += tally.failed
        self._seconds += tally.seconds
        if now - self._shown >= (1.0 if self._terminal else LINE_SECONDS):
            self._shown = now
            self._show()

    def close(self) -> None:
        """Leave the last state standing."""
        self._show()
        if self._terminal:
            print(file=sys.stderr, flush=True)

    def _show(self) -> None:
        if self._terminal:
            columns = shutil.get_terminal_size().columns
            print(f"\r{self.state()[: columns - 1]}\x1b[K", end="", file=sys.stderr, flush=True)
        else:
            print(self.state(), file=sys.stderr, flush=True)

    def state(self) -> str:
        """Say it in a line."""
        elapsed = time.monotonic() - self._begun
        clips = max(self._clips, self._done)  # it was about so many
        parts = [f"{self._done:,} of {count(clips, 'clip')}"]
        if self._failed:
            parts.append(f"{self._failed:,} failed")
        parts += [f"{duration(self._seconds)} of audio", count(self._workers, "worker")]
        if self._new and elapsed:
            parts.append(f"{self._new / elapsed:.1f} clips/s")
            left = (clips - self._done) * elapsed / self._done
            parts += [f"about {duration(left)} left"] if left else []
        return ", ".join(parts)
