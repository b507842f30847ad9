"""``exhubert extract ... --engine ray``: the same store, by the workers of a Ray cluster."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from .extract import read_settings, stopped, summarise
from .interrupt import Interrupt
from .options import model_settings
from .wording import count, duration

if TYPE_CHECKING:
    from ..cluster import Outcome


def run_on_ray(options: argparse.Namespace) -> int:
    """Deal the clips out, show how far they are, and list what failed."""
    from ..cluster import Job
    from ..cluster.ray_engine import Cluster, extract_on_ray
    from ..extraction import parse_part, read_source
    from ..store import FeatureStore

    settings = read_settings(options)
    named = read_source(options.input, options.data_root)
    part = parse_part(options.part) if options.part else None
    entries = [entry for entry in named.entries if part is None or part.holds(entry.id)]
    print(f"Plan: {count(len(entries), 'clip')} -> {options.output}, on Ray.")
    if named.left_out:
        print(f"Left out, as their names are not those of audio: {named.left_out:,}.")
    sys.stdout.flush()
    if options.dry_run:
        return 0
    job = Job(
        store=options.output.absolute(),
        model=model_settings(options),
        settings=settings,
        batch_size=options.batch_size,
        threads=options.workers,
    )
    cluster = Cluster(
        address=options.address, actors=options.actors, gpus_per_actor=options.gpus_per_actor
    )
    with Interrupt() as interrupt, _Display(len(entries)) as display:

        def report(outcome: Outcome) -> None:
            display.update(outcome)
            interrupt.check()

        try:
            extract_on_ray(entries, job, cluster, block_clips=options.shard_clips, report=report)
        except KeyboardInterrupt:
            return stopped(options.output)
    return summarise(FeatureStore(options.output), {entry.id for entry in entries})


class _Display:
    """Clips done, failures and hours of audio, on stderr."""

    def __init__(self, clips: int) -> None:
        from tqdm import tqdm

        self._bar = tqdm(total=clips, unit="clip", mininterval=1.0)
        self._failed, self._seconds = 0, 0.0

    def __enter__(self) -> _Display:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def update(self, outcome: Outcome) -> None:
        """Count one block."""
        self._failed += outcome.failed
        self._seconds += outcome.seconds
        self._bar.set_postfix_str(
            f"{duration(self._seconds)} of audio, failed: {self._failed:,}", refresh=False
        )
        self._bar.update(outcome.stored + outcome.present + outcome.failed)
