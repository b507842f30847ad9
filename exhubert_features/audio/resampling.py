"""Any rate to 16 kHz with torchaudio's windowed sinc."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache

import numpy as np

from ..errors import MissingDependency
from ..spec import SAMPLE_RATE

FILTER_WIDTH = 6  # zero crossings each side: torchaudio's defaults, part of the fingerprint
ROLLOFF = 0.99
KERNEL_LIMIT = 1 << 22  # 44.1 kHz has 80,000 values; 44,101 Hz would have 700 million
CHUNK = 4096  # outputs at a time in the direct sum, to bound its memory


def resample(wave: np.ndarray, rate: int) -> np.ndarray:
    """Bring a (N,) float32 waveform from ``rate`` to 16 kHz: (ceil(N * 16000 / rate),)."""
    if rate == SAMPLE_RATE:
        return wave
    if _kernel_values(rate) > KERNEL_LIMIT:
        return resample_directly(wave, rate)
    import torch

    return _resampler(rate)(torch.from_numpy(wave)).numpy()


def resampled_length(samples: int, rate: int) -> int:
    """Samples at 16 kHz that so many samples at ``rate`` become."""
    return -(-samples * SAMPLE_RATE // rate)


def resample_directly(wave: np.ndarray, rate: int) -> np.ndarray:
    """The same sum as torchaudio's, without its table of every phase.

    The table grows with ``rate / gcd(rate, 16000)`` squared and would take gigabytes for a
    rate such as 44,101 Hz; here each output's few taps are computed where they are needed.
    """
    cutoff = min(rate, SAMPLE_RATE) * ROLLOFF
    reach = math.ceil(FILTER_WIDTH * rate / cutoff)
    taps = np.arange(-reach, reach + 2)
    padded = np.pad(wave, (reach, reach + 2))
    result = np.empty(resampled_length(len(wave), rate), dtype=np.float32)
    for first in range(0, len(result), CHUNK):
        output = np.arange(first, min(first + CHUNK, len(result)), dtype=np.int64)
        centre, phase = np.divmod(output * rate, SAMPLE_RATE)
        time = (taps - phase[:, None] / SAMPLE_RATE) * (cutoff / rate)
        window = np.cos(np.clip(time / FILTER_WIDTH, -1, 1) * np.pi / 2) ** 2
        kernel = np.sinc(time) * window * (cutoff / rate)
        result[output] = (padded[centre[:, None] + taps + reach] * kernel).sum(axis=1)
    return result


def _kernel_values(rate: int) -> int:
    """Size of torchaudio's table: phases times taps."""
    divisor = math.gcd(rate, SAMPLE_RATE)
    reach = math.ceil(FILTER_WIDTH * rate / (min(rate, SAMPLE_RATE) * ROLLOFF))
    return SAMPLE_RATE // divisor * (rate // divisor + 2 * reach)


@lru_cache(maxsize=32)
def _resampler(rate: int) -> Callable:
    try:
        from torchaudio.transforms import Resample
    except (ImportError, OSError) as error:  # OSError: built for another torch
        raise MissingDependency(
            f"audio at {rate} Hz needs torchaudio, which cannot be imported ({error})",
            remedy=f"Install the torchaudio of your torch, or resample to {SAMPLE_RATE} Hz first",
        ) from error
    return Resample(rate, SAMPLE_RATE, lowpass_filter_width=FILTER_WIDTH, rolloff=ROLLOFF)
