"""Waveforms for tests."""

from __future__ import annotations

import numpy as np


def noise(samples: int, seed: int = 0) -> np.ndarray:
    """White noise as loud as speech, float32."""
    return np.random.default_rng(seed).normal(0, 0.1, samples).astype(np.float32)
