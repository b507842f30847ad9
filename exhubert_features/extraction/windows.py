"""Long clips to windows, and which frames of each window count, so that none counts twice."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ..spec import FRAME_STRIDE, MINIMUM_SAMPLES


@dataclass(frozen=True)
class Window:
    """Samples [start, stop) of a clip; of the window's frames, [first, last) count."""

    start: int
    stop: int
    first: int
    last: int


def window_bounds(samples: int, window: int, hop: int) -> list[tuple[int, int]]:
    """Where windows start and stop in a clip.

    A clip no longer than a window is one window. In a longer one all are whole: they start
    every ``hop`` samples, and the last is aligned to the clip's end.
    """
    if samples <= window:
        return [(0, samples)]
    starts = list(range(0, samples - window + 1, hop))
    if starts[-1] + window < samples:
        starts.append(samples - window)
    return [(start, start + window) for start in starts]


def plan_windows(
    samples: int, window: int, hop: int, frame_count: Callable[[int], int]
) -> tuple[Window, ...]:
    """Cut a clip into windows and share out its frames.

    Where windows overlap, each counts the frames on its side of the overlap's middle, which
    lie further inside it and have heard more of their surroundings. The last window's frames
    need not fall on the grid of the others: then a frame counts when it starts at least one
    stride after the last that counted. So the counted frames are one stride apart, and at
    most two (2.25 with windows of odd lengths) where windows meet.

    Parameters
    ----------
    samples
        Length of the clip at 16 kHz.
    window, hop
        In samples.
    frame_count
        Frames that so many samples have.
    """
    bounds = window_bounds(samples, window, hop)
    frames = frame_count(bounds[0][1] - bounds[0][0])
    planned: list[Window] = []
    free = 0  # the earliest sample at which the next counted frame may start
    for index, (start, stop) in enumerate(bounds):
        first = max(0, _divide_up(free - start, FRAME_STRIDE))
        last = frames
        if index + 1 < len(bounds):
            middle = (bounds[index + 1][0] + stop) // 2 - MINIMUM_SAMPLES // 2
            last = min(frames, max(first, _divide_up(middle - start, FRAME_STRIDE)))
        planned.append(Window(start, stop, first, last))
        if last > first:
            free = start + last * FRAME_STRIDE
    return tuple(planned)


def _divide_up(value: int, divisor: int) -> int:
    return -(-value // divisor)
