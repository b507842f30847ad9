"""Windows: whole, covering, right-aligned, and every frame counted once."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exhubert_features.model import config
from exhubert_features.spec import SAMPLE_RATE, ExtractionSpec
from exhubert_features.windows import (
    Window,
    expected_size,
    frame_starts,
    plan_windows,
    window_bounds,
    window_count,
)

WINDOW = 48_000


def frame_count(samples: int) -> int:
    return config.frame_count(samples, config.ExHuBERTConfig())


def spec(window: int, hop: int, *, segments: bool = False) -> ExtractionSpec:
    """A spec with window and hop in samples."""
    return ExtractionSpec(window=window / SAMPLE_RATE, hop=hop / SAMPLE_RATE, segments=segments)


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
    assert plan_windows(96_000, spec(WINDOW, WINDOW), frame_count) == (
        Window(0, 48_000, 0, 149),
        Window(48_000, 96_000, 0, 149),
    )


def test_overlap_is_shared_at_its_middle() -> None:
    first, second = plan_windows(72_000, spec(WINDOW, 24_000), frame_count)
    # The overlap is 24,000 to 48,000; the frame with its centre at 36,000 is the first beyond.
    assert (first.frame_start, first.frame_stop) == (0, 112)
    assert 24_000 + second.frame_start * 320 + 200 >= 36_000
    assert second.frame_stop == 149


@given(
    samples=st.integers(400, 400_000),
    window=st.integers(400, 60_000),
    share=st.floats(0.02, 1.0),
)
def test_every_frame_counts_exactly_once(samples: int, window: int, share: float) -> None:
    hop = min(window, max(320, round(window * share)))
    windows = plan_windows(samples, spec(window, hop), frame_count)
    assert windows[0].start == 0
    assert windows[-1].stop == samples
    lengths = {part.stop - part.start for part in windows}
    assert lengths == {min(samples, window)}
    frames = frame_count(min(samples, window))
    assert all(0 <= part.frame_start <= part.frame_stop <= frames for part in windows)
    counted = [
        part.start + 320 * frame
        for part in windows
        for frame in range(part.frame_start, part.frame_stop)
    ]
    steps = [later - earlier for earlier, later in itertools.pairwise(counted)]
    assert counted[0] < 320  # nothing is lost at the start,
    assert all(step >= 320 for step in steps)  # nothing counts twice,
    # and nothing is lost in between: where windows meet without an overlap, no window holds
    # the frame that would lie across.
    assert all(step < 400 + 320 for step in steps)
    assert samples - counted[-1] < 400 + 640  # nor at the end


@given(
    samples=st.integers(400, 400_000),
    window=st.integers(400, 60_000),
    share=st.floats(0.02, 1.0),
)
def test_frames_without_gaps(samples: int, window: int, share: float) -> None:
    hop = min(window, max(320, round(window * share)))
    asked = replace(spec(window, hop), gapless=True)
    windows = plan_windows(samples, asked, frame_count)
    counted = [
        part.start + 320 * frame
        for part in windows
        for frame in range(part.frame_start, part.frame_stop)
    ]
    assert counted == [320 * frame for frame in range(frame_count(samples))]  # as in one piece
    assert frame_starts(samples, asked).tolist() == counted
    assert windows[0].start == 0
    for part in windows:
        assert part.frame_stop <= frame_count(part.stop - part.start)
        assert part.stop - part.start <= min(samples, window)
        assert part.stop - part.start > min(samples, window) - 320
    starts = [part.start for part in windows]
    assert starts == sorted(set(starts))  # no window twice
    assert all(later - earlier <= max(hop, 320) for earlier, later in itertools.pairwise(starts))
    assert expected_size(samples, asked, frame_count) == (1, len(counted))


@given(samples=st.integers(400, 300_000))
def test_without_overlap_only_the_last_window_shares(samples: int) -> None:
    windows = plan_windows(samples, spec(WINDOW, WINDOW), frame_count)
    assert all((part.frame_start, part.frame_stop) == (0, 149) for part in windows[:-2])


@given(samples=st.integers(400, 300_000), hop=st.integers(320, WINDOW), segments=st.booleans())
def test_sizes_are_told_without_planning(samples: int, hop: int, segments: bool) -> None:
    asked = spec(WINDOW, hop, segments=segments)
    windows = plan_windows(samples, asked, frame_count)
    assert len(windows) == window_count(samples, WINDOW, hop)
    rows, most = expected_size(samples, asked, frame_count)
    assert rows == (len(windows) if segments else 1)
    frames = sum(part.frame_stop - part.frame_start for part in windows)
    # Frames that would lie across two windows that only touch are in neither.
    assert frames <= most <= frames + (0 if segments else len(windows) - 1)
