"""Audio to features: plan, decode ahead, encode in batches of windows, pool, join."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from ..errors import AudioError, UsageError
from ..fingerprint import Fingerprint
from ..inference import Inference
from ..records import ClipFailure, ClipFeatures, PlannedClip
from ..spec import CARD_SAMPLES, SAMPLE_RATE, ExtractionSpec, resolve_layers
from .assembly import ClipAssembly
from .decoding import Decoded, decode_ahead, load_clip
from .pooling import parts_of, pool_frames
from .sources import Plan, Source, failure, plan_clips, worker_count
from .windows import Window, plan_windows

# Seconds of audio in a batch. On a CPU larger batches leave its cache and are slower a clip.
BATCH_SECONDS = {"cpu": 24.0, "cuda": 192.0}
LOOK_AHEAD = 4  # batches of windows to choose from, so that clips of like length meet

Result = list[ClipFeatures] | ClipFailure


def extract(
    source: Source,
    encoder: Inference,
    spec: ExtractionSpec | None = None,
    *,
    batch_size: int | None = None,
    workers: int | None = None,
    strict: bool = False,
    data_root: str | Path | None = None,
) -> Extraction:
    """Plan the extraction of features; iterate over the result, or write it to a store.

    Parameters
    ----------
    source
        An audio file, a folder, a CSV, TSV or SpeechBrain manifest, several of these, or
        arrays by id, each (N,) at 16 kHz or a pair (array, rate).
    encoder
        From :func:`exhubert_features.load_encoder`.
    spec
        What to keep; by default the mean of every layer, and the logits.
    batch_size
        Windows at a time; None suits the device. Features do not depend on it.
    workers
        Threads that hash and decode; None suits the machine.
    strict
        Raise at the first clip that fails instead of recording it.
    data_root
        Takes the place of ``{data_root}`` in SpeechBrain manifests.
    """
    spec = spec or ExtractionSpec()
    plan = plan_clips(source, channel=spec.channel, data_root=data_root, workers=workers)
    return Extraction(plan, encoder, spec, batch_size=batch_size, workers=workers, strict=strict)


class Extraction:
    """A planned extraction; made by :func:`extract`. Iterating gives features and failures.

    Attributes
    ----------
    fingerprint
        What decides the numbers.
    clips
        The clips to do; their ids are unique.
    rejected
        Clips that could not even be planned, and why.
    provenance
        Where the weights were found and what ran them; decides no numbers.
    """

    def __init__(
        self,
        plan: Plan,
        encoder: Inference,
        spec: ExtractionSpec,
        *,
        batch_size: int | None = None,
        workers: int | None = None,
        strict: bool = False,
    ) -> None:
        if batch_size is not None and batch_size < 1:
            raise UsageError(f"batch_size is {batch_size}", expected="at least 1")
        self.plan = plan
        self.encoder = encoder
        self.spec = spec
        self.fingerprint = Fingerprint(model=encoder.identity, spec=spec)
        self.provenance = {**encoder.provenance, "device": str(encoder.device)}
        self.clips = plan.clips
        self.rejected = plan.rejected
        seconds = BATCH_SECONDS.get(encoder.device.type, BATCH_SECONDS["cpu"])
        self.batch_size = batch_size or max(1, int(seconds / spec.window))
        self._workers = worker_count(workers)
        self._strict = strict
        self._parts = parts_of(spec.pools)
        self._layers = resolve_layers(spec.layers, encoder.num_states)
        self._frames = (
            resolve_layers(spec.frame_layers, encoder.num_states) if spec.frame_layers else ()
        )
        self._wanted = sorted({*self._layers, *self._frames})
        if strict and self.rejected:
            raise AudioError(self.rejected[0].reason, kind=self.rejected[0].kind)

    def __iter__(self) -> Iterator[ClipFeatures | ClipFailure]:
        yield from self.rejected
        for _, result in self.results(self.clips):
            if isinstance(result, ClipFailure):
                yield result
            else:
                yield from result

    def results(self, clips: Iterable[PlannedClip]) -> Iterator[tuple[PlannedClip, Result]]:
        """Each clip with its rows or its failure, lazily and in the order given."""
        unfinished: deque[ClipAssembly | ClipFailure] = deque()
        planned: deque[PlannedClip] = deque()
        waiting: list[_Task] = []
        load = partial(load_clip, plan=self.plan, channel=self.spec.channel)
        for clip, wave in decode_ahead(clips, load, self._workers):
            planned.append(clip)
            unfinished.append(self._begin(clip, wave, waiting))
            while len(waiting) >= self.batch_size * LOOK_AHEAD:
                self._encode(_take_batch(waiting, self.batch_size))
            yield from self._finished(planned, unfinished)
        while waiting:
            self._encode(_take_batch(waiting, self.batch_size))
            yield from self._finished(planned, unfinished)

    def count_rows(self, clips: Iterable[PlannedClip]) -> tuple[int, int]:
        """Rows and counted frames that clips will give, going by their headers."""
        windows = [self._plan_windows(clip.samples) for clip in clips]
        rows = sum(map(len, windows)) if self.spec.segments else len(windows)
        return rows, sum(part.last - part.first for parts in windows for part in parts)

    def _begin(
        self, clip: PlannedClip, wave: Decoded, waiting: list[_Task]
    ) -> ClipAssembly | ClipFailure:
        """Cut a decoded clip into windows and queue them."""
        if isinstance(wave, AudioError):
            return failure(clip.id, clip.file, wave)
        windows = self._plan_windows(len(wave))
        assembly = ClipAssembly(clip, wave, windows, self.spec, self._parts)
        shortest = CARD_SAMPLES if self.spec.preprocess == "card" else 0
        waiting.extend(
            _Task(assembly, part, max(part.stop - part.start, shortest)) for part in windows
        )
        return assembly

    def _plan_windows(self, samples: int) -> tuple[Window, ...]:
        window, hop = (round(value * SAMPLE_RATE) for value in (self.spec.window, self.spec.hop))
        windows = plan_windows(samples, window, hop, self.encoder.frame_count)
        if not self.spec.segments:
            return windows
        # Each window is a row of its own: all its frames count.
        frames = self.encoder.frame_count(windows[0].stop - windows[0].start)
        return tuple(Window(part.start, part.stop, 0, frames) for part in windows)

    def _finished(
        self, planned: deque[PlannedClip], unfinished: deque[ClipAssembly | ClipFailure]
    ) -> Iterator[tuple[PlannedClip, Result]]:
        """Hand out the clips at the head of the queue that are done."""
        while unfinished:
            head = unfinished[0]
            result = head if isinstance(head, ClipFailure) else head.result
            if result is None:
                return
            if self._strict and isinstance(result, ClipFailure):
                raise AudioError(result.reason, kind=result.kind)
            unfinished.popleft()
            yield planned.popleft(), result

    def _encode(self, batch: list[_Task]) -> None:
        """Encode a batch; one that does not fit the GPU goes in halves, as all after it do."""
        batch = [task for task in batch if task.assembly.result is None]
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
        self.batch_size = min(self.batch_size, len(batch) // 2)
        while batch:  # the size may shrink further on the way
            size = self.batch_size
            self._encode(batch[:size])
            batch = batch[size:]

    def _forward(self, batch: list[_Task]) -> None:
        windows = [task.window for task in batch]
        pooling = _BatchPooling(
            windows,
            self._wanted,
            self._frames,
            self._parts,
            device=self.encoder.device,
        )
        output = self.encoder(
            [task.assembly.wave[task.window.start : task.window.stop] for task in batch],
            layers=self._wanted,
            preprocess=self.spec.preprocess,
            logits=self.spec.logits,
            reduce=pooling,
        )
        pooled = output.layers[[self._wanted.index(layer) for layer in self._layers]].cpu()
        logits = None if output.logits is None else output.logits.cpu()
        for row, task in enumerate(batch):
            # Copies, because a view would keep the whole batch alive until the clip is done.
            task.assembly.add(
                pooled[:, row].clone(),
                None if logits is None else logits[row].clone(),
                pooling.frames_of(row),
            )


class _Task(NamedTuple):
    """One window to encode; ``samples`` is its length in the batch, padding of its own included."""

    assembly: ClipAssembly
    window: Window
    samples: int


def _take_batch(waiting: list[_Task], size: int) -> list[_Task]:
    """Remove the window that waits longest, and those nearest to it in length, in order."""
    samples = waiting[0].samples
    chosen = set(
        heapq.nsmallest(
            size, range(len(waiting)), key=lambda place: abs(waiting[place].samples - samples)
        )
    )
    batch = [waiting[place] for place in sorted(chosen)]
    waiting[:] = [task for place, task in enumerate(waiting) if place not in chosen]
    return batch


class _BatchPooling:
    """The encoder's ``reduce``: pools each state as it is produced, and keeps frames asked for."""

    def __init__(
        self,
        windows: Sequence[Window],
        layers: Sequence[int],
        frame_layers: Sequence[int],
        parts: Sequence[str],
        *,
        device: torch.device,
    ) -> None:
        self._windows = windows
        self._coming = iter(sorted(layers))  # states are produced from the bottom up
        self._frame_layers = frame_layers
        self._parts = parts
        self._kept: dict[int, Tensor] = {}
        # Frames that count in no row are cut off; only where rows differ a mask is needed.
        self._first = min(window.first for window in windows)
        self._last = max(window.last for window in windows)
        self._mask: Tensor | None = None
        if len({(window.first, window.last) for window in windows}) > 1:
            index = torch.arange(self._first, self._last)
            bounds = torch.tensor([(window.first, window.last) for window in windows])
            inside = (index >= bounds[:, :1]) & (index < bounds[:, 1:])
            self._mask = inside.to(device)

    def __call__(self, hidden: Tensor, _: Tensor) -> Tensor:
        """(B, T, D) to (B, P, D) float32."""
        layer = next(self._coming)
        hidden = hidden[:, self._first : self._last]
        if layer in self._frame_layers:
            self._kept[layer] = hidden.float().cpu()
        return pool_frames(hidden, self._mask, self._parts)

    def frames_of(self, row: int) -> Tensor | None:
        """The counted frames (F, T, D) of one row."""
        if not self._frame_layers:
            return None
        window = self._windows[row]
        span = slice(window.first - self._first, window.last - self._first)
        return torch.stack([self._kept[layer][row, span] for layer in self._frame_layers])
