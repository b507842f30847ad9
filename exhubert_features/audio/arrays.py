"""Arrays in memory to mono float32 at 16 kHz."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import numpy as np

from ..errors import AudioError
from ..spec import SAMPLE_RATE
from .checks import check_blocks, check_length, check_rate
from .memory import collect, memory_limit
from .recording import BLOCK_VALUES
from .resampling import resample_blocks, resampled_length


def read_array(
    name: str, array: np.ndarray, rate: int = SAMPLE_RATE, *, limit: int | None = None
) -> np.ndarray:
    """Check an array and bring it to 16 kHz.

    Parameters
    ----------
    name
        What errors call it.
    array
        (N,) floating-point samples; they are not changed.
    rate
        Samples a second.
    limit
        Bytes the result may take; None for half of the memory that is free now.

    Returns
    -------
    (ceil(N * 16000 / rate),) float32, finite, at least one frame long.
    """
    samples = array_samples(name, array, rate)
    blocks = resample_blocks(check_blocks(name, _blocks(array), rate), rate)
    return collect(name, blocks, samples, memory_limit() if limit is None else limit)


def array_samples(name: str, array: np.ndarray, rate: int = SAMPLE_RATE) -> int:
    """Count the samples at 16 kHz that an array will have; refuse an unusable kind."""
    wave = np.asarray(array)
    if wave.ndim != 1:
        raise AudioError(
            f"{name} has shape {wave.shape}",
            expected="one channel, shape (samples,)",
            remedy="Average or choose a channel",
            kind="channel",
        )
    if not np.issubdtype(wave.dtype, np.floating):
        raise AudioError(
            f"{name} holds {wave.dtype}",
            expected="floating point in -1 .. 1",
            remedy="Divide 16-bit integers by 32768",
            kind="dtype",
        )
    check_rate(name, rate)
    samples = resampled_length(len(wave), rate)
    check_length(name, samples)
    return samples


def hash_array(array: np.ndarray, rate: int = SAMPLE_RATE) -> str:
    """SHA-256 of the samples as float32, and of their rate where it is not 16 kHz."""
    with np.errstate(over="ignore"):
        digest = hashlib.sha256(np.asarray(array, dtype="<f4").tobytes())
    if rate != SAMPLE_RATE:
        digest.update(f" at {rate} Hz".encode())
    return digest.hexdigest()


def _blocks(array: np.ndarray) -> Iterator[np.ndarray]:
    wave = np.asarray(array)
    for start in range(0, len(wave), BLOCK_VALUES):
        with np.errstate(over="ignore"):  # becomes infinite, which is refused by name
            block = wave[start : start + BLOCK_VALUES].astype(np.float32)
        yield block
