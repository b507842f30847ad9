"""Intervals and tests: hand-computed cases, honest ends, and what simulations say of coverage."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
import simulation

from exhubert_features.errors import UsageError
from exhubert_features.evaluation.comparison import compare
from exhubert_features.evaluation.intervals import (
    Basis,
    basis_of,
    classification_figures,
    group_warnings,
    interval_words,
    regression_figures,
    retraining_share,
)
from exhubert_features.evaluation.jackknife import Units, jackknife
from exhubert_features.evaluation.metrics import CLASSIFICATION, Interval, Statistic

CLASSES = ("a", "b")


def ends(interval: Interval) -> tuple[float, float]:
    return interval.low, interval.high


def wilson(share: float, clips: float, quantile: float) -> tuple[float, float]:
    """The two shares p whose distance from ``share`` is quantile * sqrt(p (1 - p) / clips)."""
    square = quantile**2 / clips
    roots = np.roots([1 + square, -2 * share - square, share**2])
    return float(roots.min()), float(roots.max())


def spoken(hits: list[int], *, of: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Clips of one class, of each speaker so many right."""
    guess = np.concatenate([np.arange(of) >= hit for hit in hits]).astype(int)
    return np.zeros(len(guess), int), guess, np.arange(len(hits)).repeat(of)


def mixed(seed: int = 0, speakers: int = 6) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    world = simulation.World(uneven=0.5)
    drawn = simulation.confusions(np.random.default_rng(seed), world, speakers)
    return simulation.clips_of(drawn)


# What the intervals are


def test_four_speakers_by_hand() -> None:
    truth, guess, groups = spoken([10, 15, 15, 20], of=20)
    found = classification_figures(truth, guess, groups=groups, classes=CLASSES)
    assert list(found) == ["uar", "accuracy", "macro_f1", "recall a"]  # no clip is of class b
    variance = np.var([0.5, 0.75, 0.75, 1.0], ddof=1) / 4  # 1/96
    expected = wilson(0.75, 0.75 * 0.25 / variance, 3.18244630528)  # 18 clips, t of 3 degrees
    for name in ("uar", "accuracy", "recall a"):
        assert found[name].value == 0.75
        assert ends(found[name]) == pytest.approx(expected)


def test_without_groups_a_share_has_the_interval_of_wilson() -> None:
    truth, guess, _ = spoken([70], of=100)
    found = classification_figures(truth, guess, groups=None, classes=CLASSES)["accuracy"]
    assert ends(found) == pytest.approx(wilson(0.7, 99, 1.98421695151), abs=1e-9)


def test_leaving_out_is_scoring_without_the_clips() -> None:
    truth, guess, groups = mixed()
    for name, statistic in CLASSIFICATION.items():
        sums = np.stack([_confusion(truth[groups == g], guess[groups == g]) for g in range(6)])
        sizes = sums.sum(axis=-1)
        seen: list[float] = []
        jackknife(Units(sums, np.ones(6), sizes), _recorded(statistic, seen))
        rows = [groups != speaker for speaker in range(6)]
        expected = [float(statistic(_confusion(truth[row], guess[row]))) for row in rows]
        assert seen[1:] == pytest.approx(expected), name


def _recorded(statistic: Statistic, seen: list[float]) -> Statistic:
    def record(sums: np.ndarray) -> np.ndarray:
        seen.extend(np.atleast_1d(statistic(sums)).tolist())
        return statistic(sums)

    return record


def _confusion(truth: np.ndarray, guess: np.ndarray) -> np.ndarray:
    return np.bincount(truth * 4 + guess, minlength=16).reshape(4, 4)


def test_degrees_of_freedom_count_the_speakers_that_matter() -> None:
    def freedom(sizes: list[list[int]]) -> float:
        counts = np.array(sizes, float)
        sums = np.stack([counts, counts], axis=-1)
        units = Units(sums, np.ones(len(sums)), counts)
        return jackknife(units, lambda s: s[..., 0].sum(-1) / s.sum((-1, -2))).freedom

    assert freedom([[9, 9]] * 10) == pytest.approx(9)
    assert freedom([[9]] * 3 + [[0]] * 7) == pytest.approx(2)  # only three have the class
    assert freedom([[900]] * 3 + [[1]] * 7) == pytest.approx(2, abs=0.1)
    assert 2 < freedom([[9, 9]] * 3 + [[0, 9]] * 7) < 9


def test_a_class_that_few_have_is_measured_on_those_who_have_it() -> None:
    truth, guess, groups = mixed(speakers=8)
    few = (truth != 0) | (groups < 3)
    truth, guess, groups = truth[few], guess[few], groups[few]
    names = simulation.CLASSES
    everybody = classification_figures(truth, guess, groups=groups, classes=names)
    of_class = truth == 0
    holders = classification_figures(
        truth[of_class], guess[of_class], groups=groups[of_class], classes=names
    )
    found, expected = everybody["recall angry"], holders["recall angry"]
    assert found.value == np.mean(guess[of_class] == 0)
    assert ends(found) == pytest.approx(ends(expected))
    assert everybody["uar"].low < everybody["uar"].value < everybody["uar"].high


def test_a_class_of_one_speaker_has_its_recall_over_clips_and_counts_in_uar() -> None:
    truth, guess, groups = mixed(speakers=8)
    kept = (truth != 0) | (groups == 2)
    truth, guess, groups = truth[kept], guess[kept], groups[kept]
    names = simulation.CLASSES
    lone = classification_figures(truth, guess, groups=groups, classes=names)
    of_class = truth == 0
    clips = classification_figures(truth[of_class], guess[of_class], groups=None, classes=names)
    assert lone["recall angry"] == clips["recall angry"]
    assert lone["uar"].low < lone["uar"].value < lone["uar"].high
    single = np.flatnonzero(of_class)[0]  # and a class of one clip is hardly known at all
    kept = ~of_class | (np.arange(len(truth)) == single)
    rare = classification_figures(truth[kept], guess[kept], groups=groups[kept], classes=names)
    assert rare["recall angry"].high - rare["recall angry"].low > 0.7
    assert rare["uar"].high - rare["uar"].low > lone["uar"].high - lone["uar"].low


@pytest.mark.parametrize("names", [None, np.zeros(60), np.arange(60)])
def test_no_second_group_means_over_clips_and_says_so(names: np.ndarray | None) -> None:
    truth, guess, speakers = spoken([12, 14, 18], of=20)
    assert basis_of(names, 60) == Basis(unit="clip", count=60)
    assert basis_of(speakers, 60) == Basis(unit="group", count=3)
    found = classification_figures(truth, guess, groups=names, classes=CLASSES)
    assert found == classification_figures(truth, guess, groups=None, classes=CLASSES)
    values = regression_figures(truth + guess * 0.5, guess * 1.0, groups=names)
    assert values["mae"].low < values["mae"].value < values["mae"].high


# The ends


def test_intervals_stay_inside_the_range_and_hold_the_value() -> None:
    random = np.random.default_rng(0)
    for _ in range(300):
        clips, speakers, classes = random.integers(1, 30), random.integers(1, 6), 3
        truth = random.integers(0, random.integers(1, classes + 1), clips)
        guess = np.where(random.random(clips) < random.random(), truth, random.integers(0, 3))
        groups = random.integers(0, speakers, clips)
        found = classification_figures(truth, guess, groups=groups, classes=tuple("xyz"))
        for interval in found.values():
            assert 0 <= interval.low <= interval.value <= interval.high <= 1
            assert interval.high > interval.low
        values = regression_figures(truth * 1.0, guess + 0.5, groups=groups)
        for name in ("ccc", "pearson"):
            assert -1 <= values[name].low <= values[name].value <= values[name].high <= 1
        assert 0 <= values["mae"].low <= values["mae"].value <= values["mae"].high < np.inf


def test_a_perfect_score_is_not_certain() -> None:
    truth = np.tile([0, 1], 40)
    groups = np.arange(4).repeat(20)
    found = classification_figures(truth, truth, groups=groups, classes=CLASSES)
    assert ends(found["uar"]) == pytest.approx((80 / (80 + 3.18244630528**2), 1))
    assert ends(found["recall a"]) == pytest.approx((40 / (40 + 3.18244630528**2), 1))
    clips = classification_figures(truth, truth, groups=None, classes=CLASSES)
    assert 0.94 < clips["uar"].low < 0.96
    nearly = truth.copy()
    nearly[0] = 1  # one clip of eighty is wrong
    one_wrong = classification_figures(truth, nearly, groups=groups, classes=CLASSES)
    assert one_wrong["accuracy"].low == pytest.approx(found["accuracy"].low, abs=0.03)
    values = regression_figures(truth * 1.0, truth * 1.0, groups=groups)
    assert values["ccc"].value == 1 and values["ccc"].low < 0.9
    assert ends(values["mae"]) == pytest.approx((0, 1 - found["uar"].low))


def test_all_wrong_and_constant_predictions() -> None:
    truth, groups = np.tile([0, 1], 40), np.arange(4).repeat(20)
    wrong = classification_figures(truth, 1 - truth, groups=groups, classes=CLASSES)
    assert wrong["uar"].low == 0 and 0.02 < wrong["uar"].high < 0.2
    always = classification_figures(truth, np.ones(80, int), groups=groups, classes=CLASSES)
    assert always["uar"].value == 0.5
    assert always["recall b"].high == 1 and always["recall b"].low < 0.9
    flat = regression_figures(truth * 1.0, np.ones(80), groups=groups)
    assert flat["ccc"].value == 0 and flat["ccc"].low < 0 < flat["ccc"].high
    shifted = regression_figures(truth * 1.0, truth + 0.5, groups=groups)["mae"]
    assert shifted.low < shifted.value == 0.5 < shifted.high


def test_never_much_narrower_than_independent_clips() -> None:
    """Speakers of equal recall by chance do not make it sure."""
    truth, guess, groups = spoken([30, 30, 30, 31], of=40)
    found = classification_figures(truth, guess, groups=groups, classes=CLASSES)["accuracy"]
    low, high = wilson(found.value, 160, 1.645)
    assert found.high - found.low > 0.95 * (high - low)


def test_the_order_of_clips_does_not_matter() -> None:
    truth, guess, groups = mixed(speakers=40)
    rival = np.where(np.random.default_rng(1).random(len(truth)) < 0.9, guess, truth)
    order = np.random.default_rng(2).permutation(len(truth))
    for names in (groups, None):
        mixed_names = None if names is None else names[order]
        found = compare(truth, guess, rival, groups=names, class_count=4)
        again = compare(truth[order], guess[order], rival[order], groups=mixed_names, class_count=4)
        assert again.p_value == found.p_value
        assert ends(again.difference) == pytest.approx(ends(found.difference))
        figures, figures_again = (
            classification_figures(*clips, groups=kept, classes=simulation.CLASSES)
            for clips, kept in (
                ((truth, guess), names),
                ((truth[order], guess[order]), mixed_names),
            )
        )
        for name, interval in figures.items():
            assert ends(figures_again[name]) == pytest.approx(ends(interval))


def test_intervals_that_cover_training_anew_are_wider_and_stay_inside() -> None:
    truth, guess, groups = mixed()
    share = retraining_share([80] * 5, [20] * 5)
    assert share == 1.25
    names = simulation.CLASSES
    given = classification_figures(truth, guess, groups=groups, classes=names)
    anew = classification_figures(truth, guess, groups=groups, classes=names, retraining=share)
    for name, interval in given.items():
        assert 0 <= anew[name].low < interval.low <= interval.high < anew[name].high <= 1
        assert anew[name].value == interval.value
    values = truth + np.linspace(0, 0.1, len(truth))
    given = regression_figures(values, guess * 1.0, groups=groups)
    anew = regression_figures(values, guess * 1.0, groups=groups, retraining=share)
    for name, interval in given.items():
        assert anew[name].low < interval.low < interval.high < anew[name].high


@pytest.mark.parametrize("names", ["none", "each", "pairs"])
def test_a_hundred_thousand_clips_cost_little_memory_and_few_scores(
    names: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    clips, scored = 100_000, []
    uar = CLASSIFICATION["uar"]

    def counted(confusion: np.ndarray) -> np.ndarray:
        scored.append(confusion.shape[0] if confusion.ndim > 2 else 1)
        return uar(confusion)

    monkeypatch.setitem(CLASSIFICATION, "uar", counted)
    random = np.random.default_rng(0)
    truth, guess = random.integers(0, 6, (2, clips))
    groups = {"none": None, "each": np.arange(clips).astype(str), "pairs": np.arange(clips) // 2}
    tracemalloc.start()
    classification_figures(truth, guess, groups=groups[names], classes=tuple("abcdef"))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.reset_peak()
    regression_figures(truth * 1.0, guess * 1.0, groups=groups[names])
    peak = max(peak, tracemalloc.get_traced_memory()[1])
    tracemalloc.stop()
    assert peak < 100e6
    assert sum(scored) <= (50_001 if names == "pairs" else 37)  # equal clips are scored once
    assert max(scored) <= 4096


def test_groups_of_another_length_are_refused() -> None:
    with pytest.raises(UsageError, match="groups have shape"):
        classification_figures(
            np.zeros(3, int), np.zeros(3, int), classes=CLASSES, groups=np.zeros(2)
        )


# Words


def test_words_say_what_intervals_are_conditional_on() -> None:
    speakers = Basis(unit="group", count=24)
    given = interval_words(speakers)
    assert "24 speaker groups" in given and "conditional on these trained models" in given
    anew = interval_words(speakers, retraining=1.25)
    assert "2.25" in anew and "Nadeau and Bengio" in anew and "conditional" not in anew
    assert "as if these were independent" in interval_words(Basis(unit="clip", count=90))


def test_warnings_name_classes_that_few_groups_have() -> None:
    truth = np.array([0] * 12 + [1, 1, 2])
    groups = np.array([*range(6), *range(6), 0, 1, 5])
    notes = group_warnings(groups, truth, classes=("joy", "fear", "awe"), group="session")
    assert len(notes) == 2
    assert "class fear come from 2 of 6 session groups" in notes[0]
    assert "class awe come from 1 of 6" in notes[1] and "independent" in notes[1]
    assert group_warnings(np.arange(12) % 5, np.zeros(12, int), classes=("joy",)) == []
    (few,) = group_warnings(np.arange(12) % 4, np.zeros(12))
    assert "Only 4 speaker groups" in few and "no p-value" in few
    (one,) = group_warnings(np.zeros(12), np.zeros(12))
    assert "Only one speaker was tested" in one
    (none,) = group_warnings(None, np.zeros(12))
    assert "No speakers were given" in none


# Coverage: what the old bootstrap gave at four speakers (.80) must fail here


def assert_share(share: float, low: float, high: float, repeats: int) -> None:
    """Between low and high, allowing three standard errors of so many repeats."""
    slack = 3 * np.sqrt(0.05 * 0.95 / repeats)
    assert low - slack <= share <= high + slack


def test_coverage_at_four_speakers() -> None:
    for before, after in simulation.class_coverage(simulation.World(), 4, 200).values():
        assert_share(after, 0.93, 0.97, 200)
        assert before < 0.89
    for before, after in simulation.value_coverage(4, 200).values():
        assert_share(after, 0.93, 0.97, 200)
        assert before < 0.88


def test_intervals_that_cover_training_anew_do() -> None:
    before, _, anew = simulation.pipeline_coverage(simulation.PIPELINES["usual"], 4, 150)
    assert before < 0.8
    assert anew >= 0.9


@pytest.mark.slow
@pytest.mark.parametrize("groups", simulation.GROUPS)
def test_coverage(groups: int) -> None:
    for world in ("speakers differ", "uneven sizes"):
        for _, after in simulation.class_coverage(simulation.WORLDS[world], groups, 300).values():
            assert_share(after, 0.93, 0.97, 300)
    for _, after in simulation.value_coverage(groups, 300).values():
        assert_share(after, 0.93, 0.97, 300)
    assert_share(simulation.several_coverage(groups, 300)[1], 0.93, 0.97, 300)
    _, _, anew = simulation.pipeline_coverage(simulation.PIPELINES["no signal"], groups, 200)
    assert anew >= 0.9


@pytest.mark.slow
def test_coverage_of_a_rare_class() -> None:
    for holders in (1, 2, 4):
        found = simulation.class_coverage(simulation.World(holders=holders), 24, 300)
        assert_share(found["uar"][1], 0.93, 1, 300)
        before, after = found["recall angry"]
        assert before < 0.88
        if holders > 1:  # of one speaker nothing can be said of others, and a warning says so
            assert_share(after, 0.93, 1, 300)
