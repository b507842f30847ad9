"""Figures against scikit-learn and against cases worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics as reference

from exhubert_features.errors import UsageError
from exhubert_features.evaluation import metrics


@pytest.fixture
def drawn() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """300 clips of 4 of 5 classes (class 4 never true, but predicted): truth, guess, (N, 5)."""
    random = np.random.default_rng(0)
    truth = random.integers(0, 4, 300)
    probabilities = random.dirichlet(np.ones(5), 300) + 0.6 * np.eye(5)[truth]
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    return truth, probabilities.argmax(axis=1), probabilities


def test_classification_agrees_with_scikit_learn(drawn: tuple) -> None:
    truth, guess, _ = drawn
    confusion = metrics.confusion_matrix(truth, guess, 5)
    present = [0, 1, 2, 3]
    np.testing.assert_array_equal(
        confusion, reference.confusion_matrix(truth, guess, labels=range(5))
    )
    assert metrics.unweighted_average_recall(confusion) == pytest.approx(
        reference.recall_score(truth, guess, labels=present, average="macro")
    )
    assert metrics.accuracy(confusion) == pytest.approx(reference.accuracy_score(truth, guess))
    assert metrics.macro_f1(confusion) == pytest.approx(
        reference.f1_score(truth, guess, labels=present, average="macro")
    )
    np.testing.assert_allclose(
        metrics.class_recalls(confusion)[:4],
        reference.recall_score(truth, guess, labels=present, average=None),
    )


def test_uar_by_hand_leaves_absent_classes_out_and_names_them() -> None:
    truth = np.array([0, 0, 0, 0, 1, 1])
    guess = np.array([0, 0, 0, 2, 1, 2])
    confusion = metrics.confusion_matrix(truth, guess, 3)
    assert metrics.unweighted_average_recall(confusion) == pytest.approx((3 / 4 + 1 / 2) / 2)
    assert np.isnan(metrics.class_recalls(confusion)[2])
    assert metrics.absent_classes(truth, ("sad", "happy", "calm")) == ("calm",)


def test_regression_agrees_with_numpy_and_with_a_hand_computed_ccc() -> None:
    random = np.random.default_rng(1)
    truth = 1e4 + random.normal(size=200)  # a large offset must not cost digits
    guess = truth * 0.5 + 5e3 + random.normal(size=200)
    assert metrics.pearson(truth, guess) == pytest.approx(np.corrcoef(truth, guess)[0, 1])
    assert metrics.mean_absolute_error(truth, guess) == pytest.approx(
        reference.mean_absolute_error(truth, guess)
    )
    # means 2 and 3, both variances 2/3, covariance 2/3: 2*(2/3) / (2/3 + 2/3 + 1) = 4/7
    assert metrics.concordance(np.array([1, 2, 3]), np.array([2, 3, 4])) == pytest.approx(4 / 7)
    assert metrics.concordance(np.array([1.0, 2.0]), np.array([3.0, 3.0])) == 0


def test_brier_and_ece_by_hand() -> None:
    truth = np.array([0, 1])
    probabilities = np.array([[0.8, 0.2], [0.7, 0.3]])
    # (0.2² + 0.2²) and (0.7² + 0.7²), halved
    assert metrics.brier_score(truth, probabilities) == pytest.approx((0.08 + 0.98) / 2)
    # each clip alone in its bin: |0.8 - 1| and |0.7 - 0|, halved
    assert metrics.expected_calibration_error(truth, probabilities) == pytest.approx(0.45)
    certain = np.eye(2)
    assert metrics.expected_calibration_error(truth, certain) == 0


def test_brier_agrees_with_scikit_learn_in_the_binary_case(drawn: tuple) -> None:
    random = np.random.default_rng(2)
    truth = random.integers(0, 2, 100)
    positive = random.random(100)
    both = np.stack([1 - positive, positive], axis=1)
    # scikit-learn counts the binary case once where the sum over classes counts it twice
    assert metrics.brier_score(truth, both) == pytest.approx(
        2 * reference.brier_score_loss(truth, positive)
    )


def test_temperature_recovers_the_factor_that_spoilt_calibrated_logits() -> None:
    random = np.random.default_rng(3)
    logits = random.normal(size=(20_000, 4)) * 2
    honest = metrics.softmax(logits)
    truth = (random.random((20_000, 1)) > honest.cumsum(axis=1)).sum(axis=1).clip(max=3)
    assert metrics.fit_temperature(logits * 3, truth) == pytest.approx(3, rel=0.05)
    assert metrics.fit_temperature(logits * 0.5, truth) == pytest.approx(0.5, rel=0.05)
    before = metrics.expected_calibration_error(truth, metrics.softmax(logits * 3))
    after = metrics.expected_calibration_error(truth, honest)
    assert after < 0.02 < before


@pytest.mark.parametrize(
    ("truth", "guess", "message"),
    [
        ([0, 1], [0], "one shape"),
        ([], [], "no clips"),
        ([0.0, 1.0], [0, 1], "integer class indices"),
        ([0, 5], [0, 1], "indices from 0 to 5"),
    ],
)
def test_bad_classification_input_is_refused(truth: list, guess: list, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        metrics.confusion_matrix(np.array(truth), np.array(guess), 2)


def test_bad_regression_and_probability_input_is_refused() -> None:
    with pytest.raises(UsageError, match="1 NaN"):
        metrics.concordance(np.array([0.0, np.nan]), np.array([0.0, 1.0]))
    with pytest.raises(UsageError, match="sum to 1"):
        metrics.brier_score(np.array([0]), np.array([[0.5, 0.1]]))
    with pytest.raises(UsageError, match="shape"):
        metrics.brier_score(np.array([0, 1]), np.array([[0.5, 0.5]]))
