"""Folds: nobody on both sides, every choice inside the training part, leaks caught."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from exhubert_features.errors import LabelError
from exhubert_features.evaluation import Labels
from exhubert_features.evaluation.leaks import raise_if_shared
from exhubert_features.evaluation.splits import (
    Protocol,
    SplitOptions,
    make_protocol,
)

RANDOM = SplitOptions(scheme="random")


def make_labels(
    groups: np.ndarray,
    values: np.ndarray,
    *,
    splits: np.ndarray | None = None,
    clips: np.ndarray | None = None,
    group: str | None = "speaker",
) -> Labels:
    ids = np.arange(len(groups)).astype(str)
    regression = values.dtype.kind == "f"
    return Labels(
        target="emotion",
        task="regression" if regression else "classification",
        classes=() if regression else tuple("abcdef"[: values.max() + 1]),
        rows=np.arange(len(groups)),
        ids=ids,
        clips=ids if clips is None else clips,
        values=values,
        groups=groups.astype(str),
        group=group,
        splits=splits,
    )


def speakers(count: int, clips: int = 12, seed: int = 0) -> Labels:
    random = np.random.default_rng(seed)
    return make_labels(np.arange(count).repeat(clips), random.integers(0, 3, count * clips))


def assert_sound(protocol: Protocol, labels: Labels) -> None:
    """Each clip tested once; no group crosses any border; inner folds stay inside train."""
    tested = np.concatenate([fold.test for fold in protocol.folds])
    assert sorted(tested) == list(range(len(labels)))
    for fold in protocol.folds:
        assert not set(labels.groups[fold.train]) & set(labels.groups[fold.test])
        held = np.concatenate([inner.held for inner in fold.inner])
        assert sorted(held) == sorted(fold.train)
        for inner in fold.inner:
            assert len(inner.train) and len(inner.held)
            assert not set(labels.groups[inner.train]) & set(labels.groups[inner.held])
            assert set(inner.train) | set(inner.held) == set(fold.train)


@pytest.mark.parametrize("count", [3, 5, 6, 7, 10, 40])
@pytest.mark.parametrize("inner", [None, 2, 3])
def test_groups_never_cross(count: int, inner: int | None) -> None:
    labels = speakers(count)
    protocol = make_protocol(labels, SplitOptions(inner=inner))
    assert_sound(protocol, labels)
    assert len(protocol.folds) == (count if count <= 6 else 5)
    others = len(protocol.folds) - 1
    assert all(len(fold.inner) == min(inner or others, others) for fold in protocol.folds)
    assert protocol.warnings == ()


def test_grouped_folds_are_stratified_and_repeatable() -> None:
    groups = np.arange(30).repeat(10)
    labels = make_labels(groups, (groups % 3 == 0).astype(int))  # 10 groups of the rare class
    protocol = make_protocol(labels, seed=7)
    shares = [labels.values[fold.test].mean() for fold in protocol.folds]
    assert np.ptp(shares) < 0.01
    tests = [
        [fold.test.tolist() for fold in make_protocol(labels, seed=seed).folds]
        for seed in (7, 7, 8)
    ]
    assert tests[0] == tests[1] != tests[2]


def test_regression_targets_are_spread_over_the_folds() -> None:
    random = np.random.default_rng(2)
    labels = make_labels(np.arange(40).repeat(5), random.normal(size=200))
    protocol = make_protocol(labels)
    assert_sound(protocol, labels)
    means = [labels.values[fold.test].mean() for fold in protocol.folds]
    assert np.ptp(means) < 0.6


def test_two_speakers_choose_on_random_folds_inside_one_and_say_so() -> None:
    labels = speakers(2, clips=20)
    protocol = make_protocol(labels)
    assert [set(labels.groups[fold.test]) for fold in protocol.folds] == [{"0"}, {"1"}]
    assert all(len(fold.inner) == 5 for fold in protocol.folds)
    assert "holds one group only" in protocol.warnings[0]


def test_given_split_uses_dev_for_choices_and_trains_on_both() -> None:
    groups = np.arange(6).repeat(5)
    splits = np.array(["train"] * 20 + ["dev"] * 5 + ["test"] * 5)
    labels = make_labels(groups, np.arange(30) % 2, splits=splits)
    (fold,) = make_protocol(labels).folds
    assert fold.test.tolist() == list(range(25, 30))
    assert fold.train.tolist() == list(range(25))
    (inner,) = fold.inner
    assert inner.held.tolist() == list(range(20, 25))
    assert inner.train.tolist() == list(range(20))


def test_given_split_without_dev_gets_grouped_inner_folds() -> None:
    groups = np.arange(6).repeat(5)
    splits = np.array(["Train"] * 25 + ["Test"] * 5)
    labels = make_labels(groups, np.arange(30) % 2, splits=splits)
    (fold,) = make_protocol(labels).folds
    assert len(fold.inner) == 5
    for inner in fold.inner:
        assert not set(labels.groups[inner.train]) & set(labels.groups[inner.held])


def test_official_folds_are_each_tested_once() -> None:
    groups = np.arange(6).repeat(5)
    labels = make_labels(groups, np.arange(30) % 2, splits=np.array(["x", "y", "z"]).repeat(10))
    protocol = make_protocol(labels)
    assert_sound(protocol, labels)
    assert [fold.name for fold in protocol.folds] == ["x", "y", "z"]


def test_a_given_split_that_shares_speakers_is_refused_or_reported() -> None:
    groups = np.arange(3).repeat(4)
    splits = np.array(["train", "train", "test", "test"] * 3)
    labels = make_labels(groups, np.arange(12) % 2, splits=splits)
    with pytest.raises(LabelError, match=r"3 groups stand on both sides of test \(0, 1, 2\)"):
        make_protocol(labels)
    protocol = make_protocol(labels, SplitOptions(shared_groups=True))
    assert any("not speaker-independent" in note for note in protocol.warnings)


@pytest.mark.parametrize("names", [("train", "dev"), ("train", "test", "fold7")])
def test_odd_split_columns_are_refused(names: tuple[str, ...]) -> None:
    splits = np.array(names * 4)
    labels = make_labels(np.arange(len(splits)), np.arange(len(splits)) % 2, splits=splits)
    with pytest.raises(LabelError, match="the split column holds"):
        make_protocol(labels)


def test_no_group_is_an_error_unless_random_is_asked_for() -> None:
    labels = make_labels(np.arange(30), np.arange(30) % 3, group=None)
    with pytest.raises(LabelError, match="no column says who speaks"):
        make_protocol(labels)
    protocol = make_protocol(labels, RANDOM)
    assert "Random split" in protocol.warnings[0]
    one = make_labels(np.zeros(30), np.arange(30) % 3)
    with pytest.raises(LabelError, match=r"holds one group, '0.0'"):
        make_protocol(one)


def test_random_folds_keep_the_windows_of_a_clip_together() -> None:
    clips = np.arange(30).repeat(4).astype(str)
    labels = make_labels(np.zeros(120), (np.arange(120) // 4) % 3, clips=clips)
    for fold in make_protocol(labels, RANDOM).folds:
        assert not set(clips[fold.train]) & set(clips[fold.test])


def test_the_guard_raises_when_a_speaker_stands_on_both_sides() -> None:
    groups = np.array(["a", "a", "b", "c"])
    raise_if_shared(groups, np.array([0, 1]), np.array([2, 3]))
    with pytest.raises(LabelError, match=r"1 groups stand on both sides of fold 3 \(a\)"):
        raise_if_shared(groups, np.array([0, 2]), np.array([1, 3]), where="fold 3")


def leaky_features() -> tuple[Labels, np.ndarray]:
    """Features that know only who speaks, of speakers who each have a favourite emotion."""
    random = np.random.default_rng(0)
    groups = np.arange(12).repeat(30)
    favourite = random.permutation(np.arange(12) % 3)[groups]
    values = np.where(random.random(360) < 0.9, favourite, random.integers(0, 3, 360))
    return make_labels(groups, values), np.eye(12)[groups]


def score(labels: Labels, features: np.ndarray, protocol: Protocol) -> float:
    hits = [
        LogisticRegression()
        .fit(features[fold.train], labels.values[fold.train])
        .predict(features[fold.test])
        == labels.values[fold.test]
        for fold in protocol.folds
    ]
    return float(np.concatenate(hits).mean())


def test_speaker_identity_scores_under_random_folds_and_fails_under_ours() -> None:
    labels, features = leaky_features()
    assert score(labels, features, make_protocol(labels, RANDOM)) > 0.85
    assert score(labels, features, make_protocol(labels)) < 0.5


def test_all_pairs_of_outer_folds_are_shared_fits() -> None:
    """What makes the layer probe fast: (outer j, inner k) and (outer k, inner j) train alike."""
    protocol = make_protocol(speakers(5))
    fits = {tuple(sorted(inner.train.tolist())) for fold in protocol.folds for inner in fold.inner}
    assert len(fits) == len(list(combinations(range(5), 2)))
