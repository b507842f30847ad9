"""Any rate to 16 kHz with a windowed sinc, in blocks of any size.

The sum is torchaudio's ``sinc_interp_hann`` (width 6, rolloff 0.99) to within rounding. An
output needs a few dozen inputs around it, weighted by where it falls between two of them, its
phase. The phases repeat, and outputs that lie close together need nearly the same inputs: so
the work is a product of a matrix of inputs, one row a period, with a small table of weights for
each group of neighbouring phases.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from ..spec import SAMPLE_RATE

FILTER_WIDTH = 6  # zero crossings each side: torchaudio's defaults, part of the fingerprint
ROLLOFF = 0.99
GROUP = 16  # phases in one table: fewer, and calls cost more than sums; more, and zeros do
PRODUCT = 1 << 18  # multiplications up to which OpenBLAS stays on one thread, in one order
CHUNK = 1 << 17  # inputs at a time, unless one period is longer
TABLES = 4  # rates remembered: 44,100 Hz takes 50 kB, 44,101 Hz 5 MB, 767,999 Hz 90 MB


def resampled_length(samples: int, rate: int) -> int:
    """Count the samples at 16 kHz that so many samples at ``rate`` become."""
    return -(-samples * SAMPLE_RATE // rate)


def resample_blocks(blocks: Iterable[np.ndarray], rate: int) -> Iterator[np.ndarray]:
    """Bring a waveform that comes in blocks from ``rate`` to 16 kHz.

    Parameters
    ----------
    blocks
        The waveform, cut anywhere: each (n,) float32.
    rate
        Samples a second of it.

    Returns
    -------
    Blocks of float32 at 16 kHz, at least one. Put together they are the same to the last bit
    however the waveform was cut, as the sums and their order are.
    """
    if rate == SAMPLE_RATE:
        yield from blocks
        return
    table = _phase_table(rate)
    given = made = 0
    waiting = np.zeros(table.reach, np.float32)  # silence before the first sample
    for block in blocks:
        given += len(block)
        waiting = np.concatenate([waiting, block])
        while len(waiting) >= table.chunk_inputs + table.margin:
            yield table.apply(waiting)
            waiting = waiting[table.chunk_inputs :]
            made += table.chunk_outputs
    for first in range(made, resampled_length(given, rate), table.chunk_outputs):
        silence = max(0, table.chunk_inputs + table.margin - len(waiting))
        waiting = np.pad(waiting, (0, silence))
        yield table.apply(waiting)[: resampled_length(given, rate) - first]
        waiting = waiting[table.chunk_inputs :]
    if not given:
        yield np.zeros(0, np.float32)


@dataclass(frozen=True)
class _PhaseTable:
    """The weights of a rate, and how many samples are resampled at once.

    Attributes
    ----------
    inputs, outputs
        Length of one period at the rate and at 16 kHz.
    reach
        Inputs that an output needs at most before its own time.
    periods
        Periods of one chunk: the same always, as a product of matrices may round its sums
        differently for another number of rows.
    groups
        For some neighbouring phases: the first of them, the first input they need (counted from
        ``reach`` before the period) and their weights (K, phases).
    """

    inputs: int
    outputs: int
    reach: int
    periods: int
    groups: tuple[tuple[int, int, np.ndarray], ...]

    @property
    def chunk_inputs(self) -> int:
        """Inputs from one chunk to the next."""
        return self.periods * self.inputs

    @property
    def chunk_outputs(self) -> int:
        """Samples at 16 kHz that a chunk becomes."""
        return self.periods * self.outputs

    @property
    def margin(self) -> int:
        """Inputs a chunk needs beyond its own, before and after it together."""
        return 2 * self.reach + 2

    def apply(self, inputs: np.ndarray) -> np.ndarray:
        """Resample the first chunk of (at least chunk_inputs + margin,): (chunk_outputs,)."""
        result = np.empty((self.periods, self.outputs), np.float32)
        for first, offset, weights in self.groups:
            windows = sliding_window_view(inputs[offset:], len(weights))[:: self.inputs]
            # Copied: BLAS takes no rows that overlap.
            needed = np.ascontiguousarray(windows[: self.periods])
            result[:, first : first + weights.shape[1]] = needed @ weights
        return result.reshape(-1)


@lru_cache(maxsize=TABLES)
def _phase_table(rate: int) -> _PhaseTable:
    """Compute the weights for a rate."""
    divisor = math.gcd(rate, SAMPLE_RATE)
    phases = SAMPLE_RATE // divisor
    repeats = -(-GROUP // phases)  # short periods are joined to fill a group
    inputs, outputs = rate // divisor * repeats, phases * repeats
    reach = math.ceil(FILTER_WIDTH * rate / (min(rate, SAMPLE_RATE) * ROLLOFF))
    bounds = np.linspace(0, outputs, -(-outputs // GROUP) + 1).astype(int).tolist()
    groups = []
    for first, stop in pairwise(bounds):
        offset, last = first * inputs // outputs, (stop - 1) * inputs // outputs
        needed = np.arange(offset - reach, last + reach + 2)
        weights = _weights(needed[:, None], np.arange(first, stop), rate // divisor, phases)
        groups.append((first, offset, weights))
    largest = max(weights.size for _, _, weights in groups)
    periods = max(1, min(CHUNK // inputs, PRODUCT // largest))
    return _PhaseTable(inputs, outputs, reach, periods, tuple(groups))


def _weights(needed: np.ndarray, output: np.ndarray, inputs: int, phases: int) -> np.ndarray:
    """Compute the windowed sinc around each output, at the inputs needed: (K, outputs)."""
    period, phase = np.divmod(output, phases)
    # Torchaudio rounds the phase to single precision, which shows in the fifth decimal.
    share = (phase.astype(np.float32) / np.float32(phases)).astype(np.float64)
    cutoff = min(inputs, phases) * ROLLOFF  # zero crossings in one period
    crossings = ((needed - period * inputs) / inputs - share) * cutoff
    window = np.cos(np.clip(crossings / FILTER_WIDTH, -1, 1) * (np.pi / 2)) ** 2
    return (np.sinc(crossings) * window * (cutoff / inputs)).astype(np.float32)
