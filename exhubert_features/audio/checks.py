"""What audio must be to become features: each check an :class:`AudioError` that says so."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

import numpy as np

from ..errors import AudioError
from ..spec import MINIMUM_SAMPLES, SAMPLE_RATE
from .recording import TO_THE_END
from .resampling import resampled_length

RATES = range(1_000, 768_001)  # outside, a header is broken: telephone tape to studio converters
LOUDEST = 1e12  # squares of more overflow the float32 variance of a clip
SILENCE = 1e-4  # peak around the mean, -80 dB: under the last bits of a 16-bit recording
SEGMENT_SLACK = 0.01  # seconds; annotations are rounded


def check_rate(name: str, rate: float) -> None:
    """Refuse a rate that no recording has."""
    if rate not in RATES:
        raise AudioError(
            f"{name} says it has {rate} samples a second",
            expected=f"a whole number between {RATES[0]} and {RATES[-1]}",
            kind="rate",
        )


def check_channel(path: str, channels: int, channel: int | None) -> None:
    """Refuse a channel that is not there."""
    if channel is not None and not 0 <= channel < channels:
        raise AudioError(
            f"{path} has no channel {channel}",
            expected=f"0 to {channels - 1}, as it has {channels}",
            kind="channel",
        )


def check_length(name: str, samples: int) -> None:
    """Refuse fewer 16 kHz samples than the first frame needs."""
    if samples < MINIMUM_SAMPLES:
        raise AudioError(
            f"{name} has {samples} samples at {SAMPLE_RATE} Hz",
            expected=f"at least {MINIMUM_SAMPLES} (one frame, 25 ms)",
            remedy="Leave the clip out or join it with its neighbour",
            kind="empty" if samples == 0 else "too_short",
        )


def segment_bounds(
    path: str, frames: int, rate: int, start: float, end: float | None
) -> tuple[int, int]:
    """Seconds to a range of samples at the file's own rate.

    Parameters
    ----------
    path
        The file, for the error.
    frames, rate
        Its length in samples and how many there are a second.
    start, end
        Seconds; ``end`` is None for the end of the file.

    Returns
    -------
    start and stop, half-open.
    """
    if frames == 0:
        raise AudioError(f"{path} holds no samples", expected="audio", kind="empty")
    length = frames / rate
    wanted = (start * rate, frames if end is None else end * rate)
    sound = all(math.isfinite(place) for place in wanted)
    first, stop = (round(place) for place in wanted) if sound else (-1, frames)
    if not 0 <= first < min(stop, frames) or stop > frames + SEGMENT_SLACK * rate:
        raise AudioError(
            f"{path} has no part from {start:g} to {'its end' if end is None else f'{end:g}'} s",
            expected="0 <= start < end" + (f" <= {length:.3f} s" if frames < TO_THE_END else ""),
            kind="segment",
        )
    return first, min(stop, frames)


def check_blocks(name: str, blocks: Iterable[np.ndarray], rate: int) -> Iterator[np.ndarray]:
    """Pass (n,) blocks of mono samples on, and refuse what no feature can be made of.

    The length is known, and refused, after the last block.
    """
    place = 0
    for block in blocks:
        if not np.isfinite(block).all():
            where = int(np.flatnonzero(~np.isfinite(block))[0])
            raise AudioError(
                f"{name} has {block[where]} at sample {place + where}",
                expected="finite samples",
                remedy="Repair or leave out the clip",
                kind="nan",
            )
        if len(block) and max(float(block.max()), -float(block.min())) > LOUDEST:
            raise AudioError(
                f"{name} has a sample of {float(np.abs(block).max()):.3g}",
                expected="samples around -1 .. 1",
                kind="range",
            )
        place += len(block)
        yield block
    check_length(name, resampled_length(place, rate))


def audio_warnings(wave: np.ndarray) -> tuple[str, ...]:
    """Name what is odd about usable audio: ("silent",) or nothing."""
    return ("silent",) if float(np.ptp(wave)) < 2 * SILENCE else ()
