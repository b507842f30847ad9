"""Paired comparisons: hand-computed cases, exactness, and no more false findings than said."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import simulation
from scipy.special import ndtr

from exhubert_features.errors import UsageError
from exhubert_features.evaluation import comparison
from exhubert_features.evaluation.comparison import compare, holm
from exhubert_features.evaluation.metrics import REGRESSION, Interval, concordance


def mixed() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    drawn = simulation.confusions(np.random.default_rng(0), simulation.World(uneven=0.5), 6)
    return simulation.clips_of(drawn)


def ends(interval: Interval) -> tuple[float, float]:
    return interval.low, interval.high


def by_speaker(gains: list[int]) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Twenty clips of each speaker: the second is right in ten, the first in so many more."""
    place = np.tile(np.arange(20), len(gains))
    first = (place >= np.repeat(10 + np.array(gains), 20)).astype(int)
    second = (place >= 10).astype(int)
    return np.zeros(len(place), int), first, second, np.arange(len(gains)).repeat(20)


def test_six_speakers_that_agree_by_hand() -> None:
    truth, first, second, groups = by_speaker([1, 2, 3, 4, 5, 6])
    found = compare(truth, first, second, groups=groups, metric="accuracy", class_count=2)
    assert found.p_value == 2 / 2**6
    assert "all 64 ways" in found.note and "cannot fall below 0.03125" in found.note
    gains = np.arange(1, 7) / 20
    reach = 2.57058183564 * gains.std(ddof=1) / np.sqrt(6)
    expected = (gains.mean() - reach, gains.mean() + reach)
    assert found.difference.value == pytest.approx(gains.mean())
    assert ends(found.difference) == pytest.approx(expected)
    turned = compare(truth, second, first, groups=groups, metric="accuracy", class_count=2)
    assert turned.p_value == found.p_value
    assert ends(turned.difference) == pytest.approx((-expected[1], -expected[0]))
    mixed_signs = by_speaker([5, 5, 5, 5, 5, -5])  # 1 + 6 of 32 signs part as much or more
    found = compare(*mixed_signs[:3], groups=groups, metric="accuracy", class_count=2)
    assert found.p_value == 7 / 32


@pytest.mark.parametrize(("count", "chance"), [(2, "0.5"), (3, "0.25"), (4, "0.125")])
def test_below_five_groups_a_sentence_instead_of_a_p_value(count: int, chance: str) -> None:
    truth, first, second, groups = by_speaker([5] * count)
    for retraining in (0.0, 1.25):
        found = compare(truth, first, second, groups=groups, class_count=2, retraining=retraining)
        assert found.p_value is None
        assert f"{count} groups" in found.note and chance in found.note
    alone = compare(truth, first, second, groups=np.zeros(len(truth)), class_count=2)
    assert alone.p_value is None and "one group" in alone.note
    assert alone.basis.unit == "clip"
    assert alone.difference.low > 0


def test_swapping_is_exact_for_a_figure_that_is_no_sum() -> None:
    random = np.random.default_rng(3)
    truth, first, groups = simulation.values_of(random, 6, clips=8)
    second = 0.8 * truth + random.normal(0, 0.7, truth.shape)
    gaps = []
    for signs in itertools.product((True, False), repeat=6):
        swapped = np.array(signs)[groups]
        pair = np.where(swapped, first, second), np.where(swapped, second, first)
        gaps.append(abs(concordance(truth, pair[0]) - concordance(truth, pair[1])))
    expected = np.mean(np.array(gaps) >= gaps[0] - 1e-12)
    found = compare(truth, first, second, groups=groups, metric="ccc")
    assert found.p_value == pytest.approx(expected)
    assert set(REGRESSION) == {"ccc", "pearson", "mae"}
    for metric in REGRESSION:
        assert compare(truth, first, first, groups=groups, metric=metric).p_value == 1


def test_random_ways_agree_with_all_ways_and_are_the_same_each_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    random = np.random.default_rng(4)
    (truth, first, names), (_, second, _) = simulation.rivals(random, 12, edge=0.2)
    exact = compare(truth, first, second, groups=names, class_count=4)
    monkeypatch.setattr(comparison, "EXACT", 3)
    drawn = [compare(truth, first, second, groups=names, class_count=4) for _ in range(2)]
    assert drawn[0] == drawn[1] and "9999 random" in drawn[0].note
    assert drawn[0].p_value == pytest.approx(exact.p_value, abs=0.02)
    monkeypatch.setattr(comparison, "BLOCKS", 100)
    clips = compare(truth, first, second, groups=None, class_count=4)
    assert "100 random blocks" in clips.note
    discordant = (first == truth) != (second == truth)
    ahead = np.sum(discordant & (first == truth))
    z = (2 * ahead - discordant.sum()) / np.sqrt(discordant.sum())  # McNemar
    assert clips.p_value == pytest.approx(2 * ndtr(-abs(z)), abs=0.03)


def test_predictions_that_agree_on_every_clip() -> None:
    truth, guess, groups = mixed()
    same = compare(truth, guess, guess, groups=groups, class_count=4)
    assert same.p_value == 1 and same.difference == Interval(value=0, low=0, high=0)
    anew = compare(truth, guess, guess, groups=groups, class_count=4, retraining=1.25)
    assert anew.p_value == 1
    equal = by_speaker([2] * 6)  # all gain the same: as likely as six equal signs, not certain
    found = compare(*equal[:3], groups=equal[3], class_count=2, retraining=1.25)
    assert found.p_value == 2 / 2**6


def test_an_unknown_metric_is_refused() -> None:
    truth, guess, groups = mixed()
    with pytest.raises(UsageError, match="metric is 'ccc'"):
        compare(truth, guess, guess, groups=groups, class_count=4, metric="ccc")


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, None, 0.03]) == pytest.approx([0.03, 0.06, None, 0.06])
    assert holm([0.6, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


def test_no_false_findings_in_few_groups() -> None:
    before, after, interval = simulation.paired_errors(5, 150)
    assert before > 0.1
    assert after <= 0.06
    assert interval <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 150)


@pytest.mark.slow
@pytest.mark.parametrize("groups", [3, *simulation.GROUPS, 6])
def test_false_findings(groups: int) -> None:
    repeats = 150 if groups > comparison.EXACT else 400
    slack = 3 * np.sqrt(0.05 * 0.95 / repeats)
    _, after, interval = simulation.paired_errors(groups, repeats)
    assert after <= 0.06 + slack
    assert interval <= 0.05 + slack
    if groups < 5:
        assert after == 0


@pytest.mark.slow
@pytest.mark.parametrize("groups", [5, 10])
def test_false_findings_between_ways_of_training(groups: int) -> None:
    before, _, anew = simulation.pipeline_errors(simulation.PIPELINES["no signal"], groups, 150)
    assert before > 0.08
    assert anew <= 0.06 + 3 * np.sqrt(0.05 * 0.95 / 150)
