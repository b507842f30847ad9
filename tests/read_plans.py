"""Sources read to their end, clip by clip, without an encoder."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from exhubert_features.audio import memory_limit
from exhubert_features.extraction import Part, plan
from exhubert_features.extraction.decoding import Reader
from exhubert_features.records import ClipFailure, PlannedClip


@dataclass
class Found:
    """Clips and failures in the order of their source."""

    everything: list[PlannedClip | ClipFailure]
    waves: dict[str, np.ndarray]  # samples by id
    left_out: int

    @cached_property
    def clips(self) -> tuple[PlannedClip, ...]:
        return tuple(one for one in self.everything if isinstance(one, PlannedClip))

    @cached_property
    def failures(self) -> tuple[ClipFailure, ...]:
        return tuple(one for one in self.everything if isinstance(one, ClipFailure))


def read_plan(
    source: Any,
    *,
    channel: int | None = None,
    data_root: str | Path | None = None,
    part: Part | None = None,
) -> Found:
    work = plan(source, data_root=data_root)
    if part is not None:
        work = work.part(part.number, part.count)
    reader = Reader(channel, lambda name, audio: False, lambda clip: memory_limit())
    found = [reader(item, lambda samples: None) for item in work]
    return Found(
        [wave if isinstance(wave, ClipFailure) else clip for clip, wave in found],
        {clip.id: wave for clip, wave in found if isinstance(wave, np.ndarray)},
        work.left_out,
    )
