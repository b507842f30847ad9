"""lhotse: a registered extractor of frames, as many as lhotse counts: round(samples / 320)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from lhotse.features.base import FeatureExtractor, register_extractor
from torch import Tensor

from ..frames import fit_frames, host_frame_count
from ..spec import (
    DEFAULT_PREPROCESS,
    DEFAULT_REVISION,
    DEFAULT_SOURCE,
    FRAME_STRIDE,
    SAMPLE_RATE,
    Preprocess,
)
from .picklable import PicklableEncoder, as_source, stride_at


@dataclass
class ExHuBERTExtractorConfig:
    """What lhotse writes beside features, to make the extractor again."""

    source: str = DEFAULT_SOURCE
    revision: str | None = DEFAULT_REVISION
    layer: int = -1
    preprocess: Preprocess = DEFAULT_PREPROCESS
    device: str = "cpu"  # lhotse's jobs are processes that would share a GPU

    def to_dict(self) -> dict[str, Any]:
        """Turn it into what YAML holds."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> ExHuBERTExtractorConfig:
        """Read what :meth:`to_dict` gave."""
        return cls(**data)


@register_extractor
class ExHuBERTExtractor(FeatureExtractor):
    """Frames (T, D) of one layer; the last is repeated where lhotse counts one more."""

    name = "exhubert"
    config_type = ExHuBERTExtractorConfig

    def __init__(self, config: ExHuBERTExtractorConfig | None = None) -> None:
        super().__init__(config)
        self._encoder = PicklableEncoder(**self.config.to_dict())

    @property
    def frame_shift(self) -> float:
        """Seconds between frames."""
        return FRAME_STRIDE / SAMPLE_RATE

    def feature_dim(self, sampling_rate: int) -> int:
        """Width of the features."""
        return self._encoder.encoder.hidden_size

    def extract(self, samples: np.ndarray | Tensor, sampling_rate: int) -> np.ndarray:
        """Extract from one recording (N,) or (channels, N), of which the mean is heard."""
        return self._extract([samples], sampling_rate)[0]

    def extract_batch(
        self,
        samples: np.ndarray | Tensor | Sequence[np.ndarray] | Sequence[Tensor],
        sampling_rate: int,
        lengths: np.ndarray | Tensor | None = None,
    ) -> np.ndarray | list[np.ndarray]:
        """Extract from several recordings, of any lengths, together.

        Parameters
        ----------
        samples
            A list, or (B, N) padded.
        sampling_rate
            Of all.
        lengths
            (B,) samples of each, where they are padded.

        Returns
        -------
        A list of (T, D), or (B, T, D) when all have as many frames.
        """
        clips = (
            list(samples)
            if lengths is None
            else [clip[..., : int(length)] for clip, length in zip(samples, lengths, strict=True)]
        )
        frames = self._extract(clips, sampling_rate)
        return np.stack(frames) if len({len(clip) for clip in frames}) == 1 else frames

    def _extract(self, clips: Sequence[Any], rate: int) -> list[np.ndarray]:
        waves = [as_source(clip, rate) for clip in clips]
        found = self._encoder.frames({str(number): wave for number, wave in enumerate(waves)})
        counts = [
            host_frame_count(wave.shape[-1], "round", stride=stride_at(rate)) for wave, _ in waves
        ]
        return [fit_frames(frames, count) for frames, count in zip(found, counts, strict=True)]
