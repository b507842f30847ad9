"""Long clips to windows, and which frames of each window count, so that none counts twice."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from .spec import FRAME_STRIDE, MINIMUM_SAMPLES, SAMPLE_RATE, ExtractionSpec


@dataclass(frozen=True)
class Window:
    """Samples ``start`` to ``stop`` of a clip; of the window's frames, those from
    ``frame_start`` to ``frame_stop`` count. Both ranges are half-open.
    """

    start: int
    stop: int
    frame_start: int
    frame_stop: int


def window_count(samples: int, window: int, hop: int) -> int:
    """Count the windows that a clip is cut into; all arguments in samples.

    Examples
    --------
    >>> window_count(100_000, 48_000, 48_000)
    3
    """
    return 1 if samples <= window else 1 - (window - samples) // hop


def window_bounds(samples: int, window: int, hop: int) -> list[tuple[int, int]]:
    """Tell where windows start and stop in a clip; all arguments in samples.

    A clip no longer than a window is one window. In a longer one all are whole: they start
    every ``hop`` samples, and the last is aligned to the clip's end.
    """
    last = max(0, samples - window)
    starts = (min(number * hop, last) for number in range(window_count(samples, window, hop)))
    return [(start, min(start + window, samples)) for start in starts]


def plan_windows(
    samples: int, spec: ExtractionSpec, frame_count: Callable[[int], int]
) -> tuple[Window, ...]:
    """Cut a clip into windows and share out its frames.

    With ``spec.segments`` every window is a row of its own and all its frames count. Otherwise,
    where windows overlap, each counts the frames on its side of the overlap's middle, which
    lie further inside it and have heard more of their surroundings.

    With ``spec.gapless`` windows start where frames do, soon enough for the next frame to be
    there when one window has no more of them, and the frames of a clip are those it has in one
    piece, one stride apart from its start to its end. Without, windows start every hop and the
    last one ends with the clip: its frames need not fall on the grid of the others, and one
    counts when it starts at least one stride after the last that counted. Then frames are up to
    two strides apart (2.25 with windows of odd lengths) where windows meet.

    Parameters
    ----------
    samples
        Length of the clip at 16 kHz.
    spec
        Its window, hop and segments.
    frame_count
        Frames that so many samples have.

    Returns
    -------
    The windows in order; at least one.
    """
    bounds = window_bounds(samples, *_window_samples(spec))
    frames = frame_count(bounds[0][1] - bounds[0][0])
    if spec.segments:
        return tuple(Window(start, stop, 0, frames) for start, stop in bounds)
    if spec.gapless:
        return _plan_gapless(samples, spec, frames, frame_count(samples))
    planned: list[Window] = []
    free = 0  # the earliest sample at which the next counted frame may start
    for index, (start, stop) in enumerate(bounds):
        frame_start = max(0, _divide_up(free - start, FRAME_STRIDE))
        frame_stop = frames
        if index + 1 < len(bounds):
            middle = (bounds[index + 1][0] + stop) // 2 - MINIMUM_SAMPLES // 2
            frame_stop = min(frames, max(frame_start, _divide_up(middle - start, FRAME_STRIDE)))
        planned.append(Window(start, stop, frame_start, frame_stop))
        if frame_stop > frame_start:
            free = start + frame_stop * FRAME_STRIDE
    return tuple(planned)


def _plan_gapless(
    samples: int, spec: ExtractionSpec, frames: int, total: int
) -> tuple[Window, ...]:
    """Windows of so many frames that hold all frames of the clip, each counted once."""
    window, hop = _window_samples(spec)
    step = max(1, min(hop // FRAME_STRIDE, frames))
    firsts = [*range(0, total - frames, step), total - frames]  # of each window, its first frame
    middles = [(after + before + frames) // 2 for before, after in pairwise(firsts)]
    return tuple(
        Window(first * FRAME_STRIDE, min(first * FRAME_STRIDE + window, samples), *counted)
        for first, begin, end in zip(firsts, [0, *middles], [*middles, total], strict=True)
        for counted in [(begin - first, end - first)]
    )


def frame_starts(samples: int, spec: ExtractionSpec) -> np.ndarray:
    """Tell where the counted frames of a clip that is one row begin.

    Parameters
    ----------
    samples
        Length of the clip at 16 kHz.
    spec
        What it was extracted with.

    Returns
    -------
    np.ndarray
        (T,) samples since the clip's start.
    """
    planned = plan_windows(
        samples, spec, lambda count: (count - MINIMUM_SAMPLES) // FRAME_STRIDE + 1
    )
    return np.concatenate(
        [
            part.start + FRAME_STRIDE * np.arange(part.frame_start, part.frame_stop)
            for part in planned
        ]
    )


def expected_size(
    samples: int, spec: ExtractionSpec, frame_count: Callable[[int], int]
) -> tuple[int, int]:
    """Rows that a clip will become, and the most frames these will have, without planning it."""
    if not spec.segments:
        return 1, frame_count(samples)
    window, hop = _window_samples(spec)
    rows = window_count(samples, window, hop)
    return rows, rows * frame_count(min(samples, window))


def _window_samples(spec: ExtractionSpec) -> tuple[int, int]:
    """Window and hop in samples."""
    return round(spec.window * SAMPLE_RATE), round(spec.hop * SAMPLE_RATE)


def _divide_up(value: int, divisor: int) -> int:
    return -(-value // divisor)
