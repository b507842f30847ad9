"""The layer probe: finds the layer that knows, on new speakers, without touching the test."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from emotional_store import BEST, LAYERS, labels_of, write_emotional_store

from exhubert_features.evaluation.outputs import best_of, loss, main_score
from exhubert_features.evaluation.splits import SplitOptions, make_protocol
from exhubert_features.heads.layerwise import Probe, _Plan, layer_curve, probe_outcome, run_probe
from exhubert_features.heads.linear import SHRINKAGES
from exhubert_features.store import FeatureStore


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    return write_emotional_store(tmp_path_factory.mktemp("probe") / "store")


def test_finds_the_layer_that_knows(store: FeatureStore) -> None:
    labels = labels_of(store)
    protocol = make_protocol(labels)
    seen: list[tuple[int, int]] = []
    probe = run_probe(store, labels, protocol, on_progress=lambda *step: seen.append(step))
    curve = layer_curve(probe, labels, protocol)
    assert seen == [(done, LAYERS) for done in range(1, LAYERS + 1)]
    assert probe.best == curve.best == BEST
    assert curve.layers == tuple(range(LAYERS))
    assert curve.mean[BEST] > 0.9 and abs(curve.mean[0] - 1 / 3) < 0.15
    assert np.all((curve.low <= curve.mean) & (curve.mean <= curve.high))
    assert curve.weighted is not None and curve.weighted.value > 0.9
    np.testing.assert_allclose(probe.weights.sum(axis=1), 1, atol=1e-5)
    assert (probe.weights.argmax(axis=1) == BEST).all()
    outcome = probe_outcome(probe, labels, protocol)
    assert outcome.main.value > 0.9
    assert {choice["layer"] for choice in outcome.chosen} == {BEST}
    assert not np.isnan(outcome.outputs).any()


def test_a_regression_target(store: FeatureStore) -> None:
    labels = labels_of(store, "arousal")
    protocol = make_protocol(labels)
    probe = run_probe(store, labels, protocol)
    curve = layer_curve(probe, labels, protocol)
    assert probe.best == BEST
    assert curve.mean[BEST] > 0.9 > 0.3 > abs(curve.mean[0])
    assert probe.outputs.shape == (LAYERS, len(labels), 1)


def test_shared_fits_equal_separate_ones(store: FeatureStore) -> None:
    """The outputs of every fold, recomputed one training set at a time."""
    import torch

    from exhubert_features.heads.linear import BlockSums

    labels = labels_of(store)
    protocol = make_protocol(labels)
    probe = run_probe(store, labels, protocol, layers=[BEST])
    matrix = store.matrix(layer=BEST)[labels.rows].astype(np.float32)
    one_hot = torch.eye(3)[torch.from_numpy(labels.values)]

    def fit_apart(train: np.ndarray, shrinkage: float, rows: np.ndarray) -> np.ndarray:
        features = torch.from_numpy(matrix)
        sums = BlockSums(features[train], one_hot[train], [len(train)], classification=True)
        fitted = sums.for_raw_features(sums.fit([0], [shrinkage])[0])
        return fitted(features[rows]).numpy()

    for number, fold in enumerate(protocol.folds):
        scores, losses = [], []
        for shrinkage in SHRINKAGES:
            held = [fit_apart(part.train, shrinkage, part.held) for part in fold.inner]
            rows = np.concatenate([part.held for part in fold.inner])
            scores.append(main_score(labels, rows, np.concatenate(held)))
            losses.append(loss(labels, rows, np.concatenate(held)))
        chosen = SHRINKAGES[best_of(scores, losses)]
        assert probe.shrinkages[0, number] == pytest.approx(chosen)
        assert probe.inner_scores[0, number] == pytest.approx(max(scores))
        np.testing.assert_allclose(
            probe.outputs[0, fold.test], fit_apart(fold.train, chosen, fold.test), atol=1e-3
        )


def test_fits_that_train_on_the_same_clips_happen_once(store: FeatureStore) -> None:
    labels = labels_of(store)
    plan = _Plan(labels, make_protocol(labels, SplitOptions(folds=5)))
    assert len(plan.inner) == len(list(combinations(range(5), 2)))
    assert sum(len(uses) for uses in plan.inner.values()) == 5 * 4
    assert sorted(plan.order) == list(range(len(labels)))


def test_no_choice_sees_the_test_fold(store: FeatureStore) -> None:
    """Wrong labels in a fold's test part change nothing that is chosen or fitted for it."""
    labels = labels_of(store)
    protocol = make_protocol(labels)
    fold = protocol.folds[0]
    values = labels.values.copy()
    values[fold.test] = (values[fold.test] + 1) % 3
    spoilt = replace(labels, values=values)

    def first_fold(probe: Probe) -> tuple[np.ndarray, ...]:
        return (
            probe.inner_scores[:, 0],
            probe.shrinkages[:, 0],
            probe.outputs[:, fold.test],
            probe.weighted[fold.test],
            probe.weights[0],
        )

    clean, dirty = (run_probe(store, which, protocol) for which in (labels, spoilt))
    for before, after in zip(first_fold(clean), first_fold(dirty), strict=True):
        np.testing.assert_allclose(before, after, atol=1e-3)
    other = protocol.folds[1].test
    assert not np.allclose(clean.outputs[:, other], dirty.outputs[:, other], atol=1e-3)


def test_two_speakers_and_given_splits(tmp_path: Path) -> None:
    store = write_emotional_store(tmp_path / "two", speakers=2, clips=30)
    labels = labels_of(store)
    protocol = make_protocol(labels)
    probe = run_probe(store, labels, protocol)
    assert not np.isnan(probe.outputs).any()
    splits = np.where(labels.groups == "s0", "train", "test")
    given = replace(labels, splits=splits)
    single = make_protocol(given)
    outcome = probe_outcome(run_probe(store, given, single), given, single)
    rows = single.tested
    assert set(labels.groups[rows]) == {"s1"}
    assert np.isnan(outcome.outputs[labels.groups == "s0"]).all()
    assert outcome.main.value > 0.6
