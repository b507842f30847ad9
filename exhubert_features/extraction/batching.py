"""Windows of many clips through the encoder in batches of like length, each back to its clip."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

import torch

from ..errors import AudioError
from ..inference import Inference
from ..spec import CARD_SAMPLES, SAMPLE_RATE, ExtractionSpec
from ..windows import Window
from .assembly import ClipAssembly
from .pooling import BatchPooling, parts_of

# Seconds of audio in a batch. On a CPU larger batches leave its cache and are slower a clip.
BATCH_SECONDS = {"cpu": 24.0, "cuda": 192.0}
LOOK_AHEAD = 8  # batches of windows to choose from, so that clips of like length meet


class Task(NamedTuple):
    """One window to encode; ``samples`` is the length of its clip's windows, the card's padding
    included."""

    assembly: ClipAssembly
    window: Window
    samples: int


class Batches:
    """Windows that wait for the encoder.

    Parameters
    ----------
    encoder
        The model.
    spec
        What to keep, with layers and frame layers as ids.
    batch_size
        Windows at a time; None is as many as suit the device, more of short ones. It shrinks
        when the device has no room.
    """

    def __init__(self, encoder: Inference, spec: ExtractionSpec, batch_size: int | None) -> None:
        self.encoder = encoder
        self.spec = spec
        self.parts = parts_of(spec.pools)
        self.size = batch_size
        self._waiting: list[Task] = []

    def put(self, assembly: ClipAssembly) -> None:
        """Queue the windows of a clip."""
        shortest = CARD_SAMPLES if self.spec.preprocess == "card" else 0
        # A gapless clip's last window is up to a frame shorter: under one length all come in order.
        longest = assembly.windows[0].stop - assembly.windows[0].start
        self._waiting.extend(
            Task(assembly, window, max(longest, shortest)) for window in assembly.windows
        )

    @property
    def plenty(self) -> bool:
        """Whether so many wait that clips of like length will have met."""
        if not self._waiting:
            return False
        return len(self._waiting) >= LOOK_AHEAD * self._most(self._waiting[0])

    def __len__(self) -> int:
        return len(self._waiting)

    def clear(self) -> None:
        """Forget what waits."""
        self._waiting.clear()

    def encode_next(self) -> float:
        """Encode one batch; return how many seconds of its clips it stood for."""
        batch = _take_batch(self._waiting, self._most)
        self._encode([task for task in batch if task.assembly.result is None])
        return sum(task.assembly.seconds / len(task.assembly.windows) for task in batch)

    def _most(self, task: Task) -> int:
        """Windows at a time when they are as long as this one."""
        return self.size or usual_size(self.encoder.device, task.samples / SAMPLE_RATE)

    def _encode(self, batch: list[Task]) -> None:
        """Encode a batch; one that does not fit the GPU goes in halves, as all after it do."""
        if not batch:
            return
        try:
            self._forward(batch)
            return
        except torch.OutOfMemoryError as error:
            reason = str(error).splitlines()[0]
        # Outside the handler: the exception's traceback holds on to the failed pass's memory.
        torch.cuda.empty_cache()
        if len(batch) == 1:
            clip = batch[0].assembly.clip
            batch[0].assembly.fail(
                AudioError(
                    f"{clip.file or clip.id}: one window does not fit the device ({reason})",
                    remedy="Use a shorter --window or --precision bfloat16",
                    kind="out_of_memory",
                )
            )
            return
        self.size = min(self.size or len(batch), len(batch) // 2)
        while batch:  # the size may shrink further on the way
            size = self.size
            self._encode([task for task in batch[:size] if task.assembly.result is None])
            batch = batch[size:]

    def _forward(self, batch: list[Task]) -> None:
        """Encode a batch and hand each window's numbers to its clip."""
        layers, frame_layers = self.spec.layers or (), self.spec.frame_layers
        pooling = BatchPooling(
            [task.window for task in batch],
            layers=layers,
            frame_layers=frame_layers,
            pools=self.parts,
            device=self.encoder.device,
        )
        logits = self.encoder.visit(
            [task.assembly.wave[task.window.start : task.window.stop] for task in batch],
            pooling,
            layers=sorted({*layers, *frame_layers}),
            preprocess=self.spec.preprocess,
            logits=self.spec.logits,
        )
        pooled = pooling.pooled()
        logits = None if logits is None else logits.cpu()
        for row, task in enumerate(batch):
            # Copies, because a view would keep the whole batch alive until the clip is done.
            task.assembly.add(
                pooled[:, row].clone(),
                None if logits is None else logits[row].clone(),
                pooling.frames_of(row),
            )


def usual_size(device: torch.device, window: float) -> int:
    """Windows of so many seconds that suit a device."""
    seconds = BATCH_SECONDS.get(device.type, BATCH_SECONDS["cpu"])
    return max(1, int(seconds / window))


def _take_batch(waiting: list[Task], most: Callable[[Task], int]) -> list[Task]:
    """Remove one batch: of all, sorted by length and cut up, that in which the oldest window is.

    Cut from the longest on, so that what remains is still dense, and the last batches too.
    """
    order = sorted(waiting, key=lambda task: -task.samples)
    part: list[Task] = []
    while not any(task is waiting[0] for task in part):
        size = most(order[0])
        part, order = order[:size], order[size:]
    # The earliest of each length: a clip's windows must come in order.
    wanted = Counter(task.samples for task in part)
    batch: list[Task] = []
    rest: list[Task] = []
    for task in waiting:
        (batch if wanted[task.samples] else rest).append(task)
        wanted[task.samples] -= bool(wanted[task.samples])
    waiting[:] = rest
    return batch
