"""Clustered intervals: right centre, right width, fast; paired comparisons."""

from __future__ import annotations

import time

import numpy as np
import pytest

from exhubert_features.bootstrap import classification_metrics, compare, regression_metrics
from exhubert_features.errors import UsageError

CLASSES = ("a", "b")


def simulate(random: np.random.Generator, speakers: int) -> tuple[np.ndarray, ...]:
    """20 clips a speaker; each speaker has its own hit rate around 0.7."""
    rate = np.clip(random.normal(0.7, 0.15, speakers), 0, 1).repeat(20)
    groups = np.arange(speakers).repeat(20).astype(str)
    truth = np.tile([0, 1], speakers * 10)
    hits = random.random(len(truth)) < rate
    return truth, np.where(hits, truth, 1 - truth), groups


def test_the_draws_equal_a_plain_loop_over_resampled_clips() -> None:
    truth, guess, groups = simulate(np.random.default_rng(0), 5)
    found = classification_metrics(
        truth, guess, classes=CLASSES, groups=groups, resamples=50, seed=3
    )
    counts = np.random.default_rng(3).multinomial(5, np.full(5, 0.2), size=50)
    scores = []
    for draw in counts:
        rows = np.concatenate(
            [
                np.tile(np.flatnonzero(groups == str(group)), times)
                for group, times in enumerate(draw)
            ]
        )
        hits = truth[rows] == guess[rows]
        scores.append((hits[truth[rows] == 0].mean() + hits[truth[rows] == 1].mean()) / 2)
    low, high = np.percentile(scores, [2.5, 97.5])
    assert next(iter(found)) == "uar"
    assert (found["uar"].low, found["uar"].high) == pytest.approx((low, high))
    assert set(found) == {"uar", "accuracy", "macro_f1", "recall a", "recall b"}


def test_intervals_cover_the_truth_about_as_often_as_they_say() -> None:
    random = np.random.default_rng(1)
    covered = clip_covered = 0
    for _ in range(150):
        truth, guess, groups = simulate(random, 30)
        clips = np.arange(len(truth)).astype(str)
        for names, add in ((groups, True), (clips, False)):
            interval = classification_metrics(
                truth, guess, classes=CLASSES, groups=names, resamples=300
            )["uar"]
            hit = interval.low <= 0.697 <= interval.high  # mean of the clipped normal
            covered += hit and add
            clip_covered += hit and not add
    assert 0.88 <= covered / 150 <= 0.99
    assert clip_covered < covered  # drawing clips instead of speakers would be overconfident


def test_regression_intervals_hold_the_value() -> None:
    random = np.random.default_rng(2)
    truth = random.normal(size=400)
    guess = truth + random.normal(size=400)
    groups = np.arange(20).repeat(20).astype(str)
    found = regression_metrics(truth, guess, groups=groups)
    assert list(found) == ["ccc", "pearson", "mae"]
    assert all(figure.low < figure.value < figure.high for figure in found.values())
    assert found["pearson"].value == pytest.approx(np.corrcoef(truth, guess)[0, 1])


def test_comparison_sees_a_real_difference_and_none_between_equals() -> None:
    random = np.random.default_rng(4)
    truth, weak, groups = simulate(random, 20)
    strong = np.where(random.random(len(truth)) < 0.5, truth, weak)
    better = compare(truth, strong, weak, groups=groups, classes=2)
    assert better.difference.low > 0 and better.p_value < 0.01
    same = compare(truth, weak, weak, groups=groups, classes=2)
    assert same.difference.value == 0 and same.p_value == 1
    worse = compare(truth, weak, strong, groups=groups, classes=2)
    assert worse.difference.value == pytest.approx(-better.difference.value)
    with pytest.raises(UsageError, match="metric is 'ccc'"):
        compare(truth, weak, strong, groups=groups, classes=2, metric="ccc")


def test_fast_at_iemocap_size() -> None:
    random = np.random.default_rng(5)
    truth, guess = random.integers(0, 4, (2, 5531))
    groups = random.integers(0, 10, 5531).astype(str)
    start = time.perf_counter()
    classification_metrics(truth, guess, classes=tuple("abcd"), groups=groups)
    assert time.perf_counter() - start < 0.5


def test_groups_of_another_length_are_refused() -> None:
    with pytest.raises(UsageError, match="groups have shape"):
        classification_metrics(
            np.zeros(3, int), np.zeros(3, int), classes=CLASSES, groups=np.zeros(2)
        )


def test_one_speaker_gives_an_interval_over_clips_instead_of_one_without_width() -> None:
    truth, guess, _ = simulate(np.random.default_rng(6), 5)
    one, each = np.zeros(len(truth)), np.arange(len(truth))
    found, expected = (
        classification_metrics(truth, guess, classes=CLASSES, groups=groups)["uar"]
        for groups in (one, each)
    )
    assert found == expected and found.low < found.value < found.high
