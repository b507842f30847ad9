"""Long clips to windows, and which frames of each window count, so that none counts twice."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ..spec import FRAME_STRIDE, MINIMUM_SAMPLES, SAMPLE_RATE, ExtractionSpec


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
    lie further inside it and have heard more of their surroundings. The last window's frames
    need not fall on the grid of the others: then a frame counts when it starts at least one
    stride after the last that counted. So the counted frames are one stride apart, and at
    most two (2.25 with windows of odd lengths) where windows meet.

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
