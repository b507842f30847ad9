"""Closed-form fits against scikit-learn, on any union of blocks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import Ridge

from exhubert_features.heads.linear import NEVER, BlockSums, LinearMap

SIZES = (40, 50, 60, 30)


def draw(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """180 clips of 3 classes, 12 correlated features of very different size and offset."""
    random = np.random.default_rng(seed)
    truth = np.arange(180) % 3
    mixed = random.normal(size=(180, 12)) @ random.normal(size=(12, 12))
    features = mixed + random.normal(size=(3, 12))[truth]
    return features * 10.0 ** random.integers(-2, 3, 12) + 100 * random.normal(size=12), truth


def sums_of(features: np.ndarray, targets: np.ndarray, *, classification: bool) -> BlockSums:
    return BlockSums(
        torch.from_numpy(features).float(),
        torch.from_numpy(targets).float(),
        SIZES,
        classification=classification,
    )


def rows_of(blocks: tuple[int, ...]) -> np.ndarray:
    return np.flatnonzero(np.isin(np.arange(4).repeat(SIZES), blocks))


@pytest.mark.parametrize("blocks", [(0, 1, 2, 3), (0, 2, 3), (1,)])
@pytest.mark.parametrize("shrinkage", [0.05, 0.5])
def test_classification_is_shrunken_lda(blocks: tuple[int, ...], shrinkage: float) -> None:
    features, truth = draw()
    rows = rows_of(blocks)
    x, y = features[rows], truth[rows]
    # scikit-learn shrinks towards a multiple of the identity: the same once every feature has
    # unit variance within the classes. It pools classes by the priors given.
    shares = np.bincount(y) / len(y)
    within = np.sqrt(sum(shares[c] * x[y == c].var(axis=0) for c in range(3)))
    reference = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=shrinkage, priors=shares)
    reference.fit(x / within, y)
    sums = sums_of(features, np.eye(3)[truth], classification=True)
    (fitted,) = sums.fit(blocks, [shrinkage])
    raw = sums.for_raw_features(fitted)
    expected = reference.decision_function(features / within) - np.log(shares)  # equal priors
    found = raw(torch.from_numpy(features).float()).numpy()
    # what is added to all classes alike does not matter
    np.testing.assert_allclose(
        found - found.mean(axis=1, keepdims=True),
        expected - expected.mean(axis=1, keepdims=True),
        atol=2e-2 * np.abs(expected).max() / 10,
    )
    np.testing.assert_allclose(fitted(sums.features).numpy(), found, atol=2e-2)


@pytest.mark.parametrize("blocks", [(0, 1, 2, 3), (1, 3)])
def test_regression_is_ridge_on_standardised_features(blocks: tuple[int, ...]) -> None:
    features, _ = draw()
    values = (features / features.std(axis=0)).sum(axis=1) + 7
    rows = rows_of(blocks)
    deviation = features[rows].std(axis=0)
    shrinkage = 0.2
    reference = Ridge(alpha=len(rows) * shrinkage / (1 - shrinkage))
    reference.fit(features[rows] / deviation, values[rows])
    sums = sums_of(features, values[:, None], classification=False)
    (fitted,) = sums.fit(blocks, [shrinkage])
    expected = reference.predict(features / deviation)
    np.testing.assert_allclose(fitted(sums.features)[:, 0].numpy(), expected, atol=1e-2)


def test_other_clips_do_not_touch_a_fit() -> None:
    """Shift and scale come from all clips, but the fit must follow its own blocks only."""
    features, truth = draw()
    features = (features - features.mean(axis=0)) / features.std(axis=0)
    spoilt = features.copy()
    spoilt[rows_of((1,))] = spoilt[rows_of((1,))] * 3 + 5
    maps = []
    for data in (features, spoilt):
        sums = sums_of(data, np.eye(3)[truth], classification=True)
        maps.append(sums.for_raw_features(sums.fit((0, 2, 3), [0.1])[0]))
    seen = torch.from_numpy(features).float()
    torch.testing.assert_close(maps[0](seen), maps[1](seen), rtol=1e-3, atol=1e-3)


def test_a_rare_class_counts_as_much_as_the_others() -> None:
    random = np.random.default_rng(1)
    truth = (np.arange(180) % 12 == 0).astype(int)
    features = random.normal(size=(180, 2)) + 1.0 * truth[:, None]
    sums = sums_of(features, np.eye(2)[truth], classification=True)
    guess = sums.fit((0, 1, 2, 3), [0.01])[0](sums.features).argmax(dim=1).numpy()
    recalls = [(guess[truth == label] == label).mean() for label in (0, 1)]
    assert min(recalls) > 0.6


def test_an_absent_class_is_never_predicted() -> None:
    features, truth = draw()
    missing = np.where(truth == 2, 0, truth)
    sums = sums_of(features, np.eye(3)[missing], classification=True)
    (fitted,) = sums.fit((0, 1), [0.1])
    assert fitted.bias[2] == NEVER and not fitted.weight[2].any()
    assert 2 not in fitted(sums.features).argmax(dim=1)


def test_constant_features_and_fewer_clips_than_features() -> None:
    random = np.random.default_rng(2)
    features = random.normal(size=(180, 300))
    features[:, 7] = 4.0
    truth = np.arange(180) % 3
    features[:, 0] += 3 * truth
    sums = sums_of(features, np.eye(3)[truth], classification=True)
    for fitted in sums.fit((0, 1), [0.01, 0.6]):
        assert isinstance(fitted, LinearMap) and torch.isfinite(fitted.weight).all()
    held = rows_of((2, 3))
    guess = fitted(sums.features)[held].argmax(dim=1).numpy()
    assert (guess == truth[held]).mean() > 0.6
