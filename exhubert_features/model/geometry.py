"""How samples become frames in a model of some config."""

from __future__ import annotations

import math
from abc import abstractmethod

import numpy as np

from ..frames import frame_centres
from ..spec import SAMPLE_RATE
from .config import ExHuBERTConfig, frame_count


class FrameGeometry:
    """What has a config tells when its frames are."""

    sample_rate = SAMPLE_RATE

    @property
    @abstractmethod
    def config(self) -> ExHuBERTConfig:
        """The model's sizes and switches."""

    @property
    def frame_shift(self) -> float:
        """Seconds between frames: 0.02 for all public HuBERTs."""
        return math.prod(self.config.conv_stride) / SAMPLE_RATE

    @property
    def receptive_field(self) -> float:
        """Seconds that a frame hears before the layers mix them: 0.025 for all public HuBERTs."""
        return self._field / SAMPLE_RATE

    @property
    def _field(self) -> int:
        field = 1
        steps = zip(self.config.conv_kernel, self.config.conv_stride, strict=True)
        for kernel, stride in reversed(list(steps)):
            field = (field - 1) * stride + kernel
        return field

    def frame_count(self, samples: int) -> int:
        """Frames that a clip of so many samples has."""
        return frame_count(samples, self.config)

    def frame_times(self, samples: int) -> np.ndarray:
        """When the frames of a clip of so many samples are: seconds of their centres, (T,)."""
        starts = math.prod(self.config.conv_stride) * np.arange(self.frame_count(samples))
        return frame_centres(starts, field=self._field)
