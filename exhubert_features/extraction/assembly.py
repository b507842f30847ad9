"""The windows of one clip, as they come back from the encoder, to its rows of features."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ..audio import audio_warnings
from ..errors import AudioError
from ..frames import frame_centres
from ..records import ClipFailure, ClipFeatures, PlannedClip
from ..spec import FRAME_STRIDE, SAMPLE_RATE, ExtractionSpec
from ..windows import Window
from .pooling import join

FOLD = 64  # windows kept apart before they are joined: 13 MB at 49 layers of 1024


class ClipAssembly:
    """Collects the windows of one clip.

    Parameters
    ----------
    clip
        The plan's record.
    wave
        (N,) samples at 16 kHz.
    windows
        From :func:`exhubert_features.windows.plan_windows`, in order.
    spec
        What is asked for.
    parts
        Names of the statistics that windows come with: ``parts_of(spec.pools)``.
    """

    def __init__(
        self,
        clip: PlannedClip,
        wave: np.ndarray,
        windows: tuple[Window, ...],
        spec: ExtractionSpec,
        parts: tuple[str, ...],
    ) -> None:
        self.clip = clip
        self.wave = wave
        self.windows = windows
        self.result: list[ClipFeatures] | ClipFailure | None = None
        self._spec = spec
        self._parts = parts
        self._warnings = audio_warnings(wave)
        self._rows: list[ClipFeatures] = []
        self._pooled: list[Tensor] = []
        self._counts: list[int] = []
        self._logits: list[np.ndarray] = []
        self._frames: list[np.ndarray] = []
        self._starts: list[np.ndarray] = []
        self._seen = 0

    @property
    def seconds(self) -> float:
        """Length of the clip."""
        return len(self.wave) / SAMPLE_RATE

    def add(self, pooled: Tensor, logits: Tensor | None, frames: Tensor | None) -> None:
        """Take what the next window gave.

        Parameters
        ----------
        pooled
            (L, P, D) statistics, named by ``parts``.
        logits
            (C,), or None.
        frames
            (F, T, D) counted frames, or None.
        """
        window = self.windows[self._seen]
        self._seen += 1
        if logits is not None:
            self._logits.append(logits.numpy())
        if frames is not None:
            self._frames.append(frames.numpy())
            counted = np.arange(window.frame_start, window.frame_stop)
            self._starts.append(window.start + FRAME_STRIDE * counted)
        self._pooled.append(pooled)
        self._counts.append(window.frame_stop - window.frame_start)
        if self._spec.segments:
            name = f"{self.clip.id}#{self._seen - 1:04d}"
            self._finish_row(name, window.start, window.stop)
        elif len(self._pooled) == FOLD:
            self._pooled, self._counts = [self._join()], [sum(self._counts)]
        if self._seen == len(self.windows) and self.result is None:
            if not self._spec.segments:
                self._finish_row(self.clip.id, 0, len(self.wave))
            self.result = self.result or self._rows

    def fail(self, error: AudioError) -> None:
        """Give the clip up."""
        self.result = self.clip.failure(error.kind, str(error))

    def _join(self) -> Tensor:
        if len(self._pooled) == 1:
            return self._pooled[0]
        return join(torch.stack(self._pooled), torch.tensor(self._counts), self._parts)

    def _finish_row(self, name: str, start: int, stop: int) -> None:
        """Make a row of what was collected, unless its numbers cannot be used."""
        pooled = self._join()[:, : len(self._spec.pools)].numpy()
        logits = np.stack(self._logits).mean(axis=0) if self._logits else None
        frames = np.concatenate(self._frames, axis=1) if self._frames else None
        times = frame_centres(np.concatenate(self._starts)) if self._starts else None
        self._pooled, self._counts, self._logits = [], [], []
        self._frames, self._starts = [], []
        if not all(_finite(array) for array in (pooled, logits, frames)):
            self.fail(
                AudioError(
                    f"{name} gives features that are not finite",
                    remedy="Use --precision float32",
                    kind="not_finite",
                )
            )
            return
        self._rows.append(
            ClipFeatures(
                id=name,
                clip_id=self.clip.id,
                file=self.clip.file,
                start=self.clip.start + start / SAMPLE_RATE,
                end=self.clip.start + stop / SAMPLE_RATE,
                samples=stop - start,
                audio_sha256=self.clip.audio_sha256,
                pooled=pooled,
                logits=logits,
                frames=frames,
                frame_times=None if times is None else self.clip.start + times,
                warnings=self._warnings,
                meta=self.clip.meta,
            )
        )


def _finite(array: np.ndarray | None) -> bool:
    # The extremes find NaN and infinity too, and copy nothing.
    return array is None or bool(np.isfinite([array.min(), array.max()]).all())
