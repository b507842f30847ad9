"""Made-up extractions for the store's tests; numpy only, so that killed processes start fast."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np

from exhubert_features import FeatureStore
from exhubert_features.fingerprint import Fingerprint, ModelIdentity
from exhubert_features.records import ClipFailure, ClipFeatures, Entry, PlannedClip
from exhubert_features.spec import CLASSES, ExtractionSpec
from exhubert_features.store import ShardLimits

WIDTH = 8
T = TypeVar("T")


def make_fingerprint(
    spec: ExtractionSpec | None = None, *, states: int = 5, **model: Any
) -> Fingerprint:
    """Fingerprint of an imaginary encoder of ``states`` hidden states."""
    identity = {
        "weights_sha256": "0" * 64,
        "config_sha256": "c" * 64,
        "num_states": states,
        "hidden_size": WIDTH,
        "classes": CLASSES,
        "precision": "float32",
        "architecture": "exhubert",
    }
    return Fingerprint(model=ModelIdentity(**identity | model), spec=spec or ExtractionSpec())


def make_clip(name: str, *, audio: str = "", **settings: object) -> PlannedClip:
    """A planned clip whose audio hash follows from its id, or from ``audio``."""
    digest = hashlib.sha256((audio or name).encode("utf-8", "surrogateescape")).hexdigest()
    values = {"file": f"audio/{name}.wav", "end": 3.0, "samples": 48_000} | settings
    return PlannedClip(id=name, audio_sha256=digest, **values)


def features_of(
    clip: PlannedClip, data: Fingerprint, *, name: str | None = None, start: float = 0.0
) -> ClipFeatures:
    """The features that this clip's audio always gives, in float32."""
    spec = data.spec
    seed = int(clip.audio_sha256[:8], 16) + int(start * 1000)
    random = np.random.default_rng(seed)
    width = data.model.hidden_size
    shape = (len(data.layers), len(spec.pools), width)
    frames = None
    if spec.frame_layers:
        frames = random.normal(size=(len(spec.frame_layers), 1 + seed % 5, width)).astype("f4")
    return ClipFeatures(
        id=name or clip.id,
        clip_id=clip.id,
        file=clip.file,
        start=start,
        end=start + 3.0,
        samples=clip.samples,
        audio_sha256=clip.audio_sha256,
        pooled=random.normal(size=shape).astype("f4"),
        logits=random.normal(size=len(CLASSES)).astype("f4") if spec.logits else None,
        frames=frames,
        meta=dict(clip.meta),
    )


@dataclass
class FakeExtraction:
    """Follows the protocol of an extraction and counts what it was asked to compute."""

    clips: Sequence[PlannedClip]  # what is found when their entries are read
    fingerprint: Fingerprint = field(default_factory=make_fingerprint)
    rejected: Sequence[ClipFailure] = ()
    failing: dict[str, str] = field(default_factory=dict)  # id -> reason
    segments: int = 0  # rows per clip, 0: one row named like the clip
    interrupt_at: int | None = None  # Ctrl-C after so many clips
    delay: float = 0.0  # seconds that a clip takes
    ahead: int = 0  # clips taken before the first is given back, as decoding ahead does
    computed: list[str] = field(default_factory=list)

    @property
    def plan(self) -> Iterator[Entry | ClipFailure]:
        yield from self.rejected
        for clip in self.clips:
            yield Entry(id=clip.id, file=clip.file, start=clip.start, end=clip.end, meta=clip.meta)

    def results(
        self,
        entries: Iterable[Entry | ClipFailure],
        has: Callable[[str, str], bool] | None = None,
    ) -> Iterator[tuple[PlannedClip, list[ClipFeatures] | ClipFailure | None]]:
        clips = {clip.id: clip for clip in self.clips}

        def read() -> Iterator[tuple[PlannedClip, ClipFailure | None, bool]]:
            for entry in entries:
                if isinstance(entry, ClipFailure):
                    yield PlannedClip(id=entry.id, file=entry.file), entry, False
                else:
                    clip = clips[entry.id]
                    yield clip, None, has is not None and has(clip.id, clip.audio_sha256)

        for clip, failure, there in look_ahead(read(), self.ahead):
            if failure is not None or there:
                yield clip, failure
                continue
            if self.interrupt_at is not None and len(self.computed) >= self.interrupt_at:
                raise KeyboardInterrupt
            self.computed.append(clip.id)
            time.sleep(self.delay)
            yield clip, self._result(clip)

    def _result(self, clip: PlannedClip) -> list[ClipFeatures] | ClipFailure:
        if clip.id in self.failing:
            return ClipFailure(
                id=clip.id, file=clip.file, kind="broken", reason=self.failing[clip.id]
            )
        if not self.segments:
            return [features_of(clip, self.fingerprint)]
        return [
            features_of(clip, self.fingerprint, name=f"{clip.id}#{part:04d}", start=3.0 * part)
            for part in range(self.segments)
        ]


def look_ahead(clips: Iterable[T], count: int) -> Iterator[T]:
    """The clips in order, each ``count`` clips late."""
    taken: deque[T] = deque()
    for clip in clips:
        taken.append(clip)
        if len(taken) > count:
            yield taken.popleft()
    yield from taken


def make_extraction(count: int, *, prefix: str = "clip", **settings: object) -> FakeExtraction:
    """An extraction of ``count`` clips."""
    clips = [make_clip(f"{prefix}_{number:03d}") for number in range(count)]
    return FakeExtraction(clips, **settings)


def racing_extraction() -> FakeExtraction:
    """What the writers that get killed all try to store: 120 clips, one of which fails."""
    return make_extraction(120, failing={"clip_013": "always"}, delay=0.0005, ahead=9)


def nurse_writers() -> None:
    """Fork a writer for each line on stdin (the store's path) and print its process id.

    Forking from a process that has imported everything starts a writer in milliseconds, so
    that kills meet writing and not importing.
    """
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    for line in sys.stdin:
        child = os.fork()
        if not child:
            # Some start like a second command would, some in the middle of another's shard.
            time.sleep(random.Random(os.getpid()).random() * 0.02)
            FeatureStore.write(line.rstrip("\n"), racing_extraction(), limits=ShardLimits(clips=2))
            os._exit(0)
        print(child, flush=True)


if __name__ == "__main__":
    nurse_writers()
