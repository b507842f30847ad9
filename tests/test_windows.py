"""Windows: whole, covering, right-aligned, and every frame counted once."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exhubert_features.extraction.windows import Window, plan_windows, window_bounds
from exhubert_features.model import config

WINDOW = 48_000


def frame_count(samples: int) -> int:
    return config.frame_count(samples, config.ExHuBERTConfig())


@pytest.mark.parametrize(
    ("samples", "expected"),
    [
        (400, [(0, 400)]),
        (48_000, [(0, 48_000)]),
        (48_001, [(0, 48_000), (1, 48_001)]),
        (96_000, [(0, 48_000), (48_000, 96_000)]),
        (100_000, [(0, 48_000), (48_000, 96_000), (52_000, 100_000)]),
    ],
)
def test_bounds(samples: int, expected: list[tuple[int, int]]) -> None:
    assert window_bounds(samples, WINDOW, WINDOW) == expected


def test_frames_of_adjoining_windows_all_count() -> None:
    assert plan_windows(96_000, WINDOW, WINDOW, frame_count) == (
        Window(0, 48_000, 0, 149),
        Window(48_000, 96_000, 0, 149),
    )


def test_overlap_is_shared_at_its_middle() -> None:
    first, second = plan_windows(72_000, WINDOW, 24_000, frame_count)
    # The overlap is 24,000 to 48,000; the frame with its centre at 36,000 is the first beyond.
    assert (first.first, first.last) == (0, 112)
    assert 24_000 + second.first * 320 + 200 >= 36_000
    assert second.last == 149


@given(
    samples=st.integers(400, 400_000),
    window=st.integers(400, 60_000),
    share=st.floats(0.02, 1.0),
)
def test_every_frame_counts_exactly_once(samples: int, window: int, share: float) -> None:
    hop = max(50, round(window * share))
    windows = plan_windows(samples, window, hop, frame_count)
    assert windows[0].start == 0
    assert windows[-1].stop == samples
    lengths = {part.stop - part.start for part in windows}
    assert lengths == {min(samples, window)}
    frames = frame_count(min(samples, window))
    assert all(0 <= part.first <= part.last <= frames for part in windows)
    counted = [
        part.start + 320 * frame for part in windows for frame in range(part.first, part.last)
    ]
    steps = [later - earlier for earlier, later in itertools.pairwise(counted)]
    assert counted[0] < 320  # nothing is lost at the start,
    assert all(step >= 320 for step in steps)  # nothing counts twice,
    # and nothing is lost in between: where windows meet without an overlap, no window holds
    # the frame that would lie across.
    assert all(step < 400 + 320 for step in steps)
    assert samples - counted[-1] < 400 + 640  # nor at the end


@given(samples=st.integers(400, 300_000))
def test_without_overlap_only_the_last_window_shares(samples: int) -> None:
    windows = plan_windows(samples, WINDOW, WINDOW, frame_count)
    assert all((part.first, part.last) == (0, 149) for part in windows[:-2])
