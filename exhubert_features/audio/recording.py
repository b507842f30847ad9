"""An opened file of any format: what its header says, and its samples block by block."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from ..errors import AudioError

BLOCK_VALUES = 1 << 20  # decoded at a time; a header that lies about its length allocates nothing
TO_THE_END = 1 << 62  # samples; as the stop of a recording whose length only decoding tells


@dataclass(frozen=True, kw_only=True)
class Recording:
    """One opened file.

    Attributes
    ----------
    path
        The file.
    rate, channels
        Samples a second and channels, its own.
    frames
        Samples of each channel; None where only decoding to the end tells.
    decode
        Takes start and stop, gives the samples between them as (n, channels) float32 blocks:
        fewer where the recording ends before, and an AudioError where it is damaged.
    """

    path: str
    rate: int
    channels: int
    frames: int | None
    decode: Callable[[int, int], Iterator[np.ndarray]]


def truncated(path: str, detail: str) -> AudioError:
    """Make the error of a file that ends before its own header says, or that cannot be decoded."""
    return AudioError(
        f"{path} is cut off or damaged: {detail}",
        expected="as much audio as its header promises",
        remedy="Copy or download it again",
        kind="truncated",
    )


def after(start: int, blocks: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    """Leave out the first ``start`` samples of a decoder that cannot seek."""
    for block in blocks:
        kept = block[start:] if start else block
        start -= len(block) - len(kept)
        if len(kept):
            yield kept
