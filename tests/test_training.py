"""Training and evaluation: nested, leak-proof, repeatable; the final head is what it says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import simulation
import torch
from emotional_store import BEST, EMOTIONS, LAYERS, labels_of, write_emotional_store
from sklearn.linear_model import LogisticRegression

from exhubert_features.errors import FingerprintMismatch, LabelError, UsageError
from exhubert_features.evaluation import LabelOptions, Labels, SplitOptions
from exhubert_features.evaluation.metrics import concordance, softmax
from exhubert_features.evaluation.origin import origin_of
from exhubert_features.evaluation.splits import Protocol, make_protocol
from exhubert_features.heads import (
    HeadConfig,
    LinearHead,
    evaluate,
    load_head,
    probe,
    save_head,
    train,
)
from exhubert_features.heads.features import Kind
from exhubert_features.heads.fitting import choose, fit, outputs_of
from exhubert_features.heads.labelled import LabelledFeatures
from exhubert_features.heads.options import FitOptions, agree, edge_warnings
from exhubert_features.heads.testing import evaluate_on
from exhubert_features.heads.training import Trained, train_on
from exhubert_features.store import FeatureStore

QUICK = FitOptions(epochs=25, patience=4, hidden=16, batch_size=32, learning_rate=1e-2)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    return write_emotional_store(tmp_path_factory.mktemp("train") / "store", frame_layers=(3, 4))


@pytest.fixture(scope="module")
def labels(store: FeatureStore) -> Labels:
    return labels_of(store)


@pytest.fixture(scope="module")
def protocol(labels: Labels) -> Protocol:
    return make_protocol(labels, SplitOptions(folds=4))


@pytest.fixture(scope="module")
def linear(store: FeatureStore, labels: Labels, protocol: Protocol) -> Trained:
    return train_on(store, labels, protocol, options=QUICK)


def config(kind: Kind = "linear", **changes: object) -> HeadConfig:
    plain = HeadConfig(
        kind=kind,
        target="emotion",
        classes=EMOTIONS,
        layers=(BEST,),
        pools=() if kind == "attention" else ("mean",),
        width=16,
        hidden=16,
    )
    return replace(plain, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["mlp", "weighted", "attention"])
@pytest.mark.parametrize("target", ["emotion", "arousal"])
def test_every_head_learns_on_unseen_speakers(store: FeatureStore, kind: Kind, target: str) -> None:
    labels = labels_of(store, target)
    protocol = make_protocol(labels, SplitOptions(folds=3))
    trained = train_on(store, labels, protocol, kind=kind, options=QUICK)
    assert trained.evaluation.main.value > 0.75
    assert trained.head.notes["setting"]["epochs"] >= 1
    assert trained.evaluation.features.shape == (len(labels), 16)


def test_linear_head_takes_the_best_layer(linear: Trained, labels: Labels) -> None:
    assert linear.head.config.layers == (BEST,)
    assert linear.evaluation.curve is not None and linear.evaluation.curve.best == BEST
    assert all(setting["layer"] == BEST for setting in linear.evaluation.chosen)
    assert linear.head.notes["uar"]["value"] > 0.9
    assert linear.head.notes["clips"] == len(labels)


def test_linear_regression(store: FeatureStore) -> None:
    labels = labels_of(store, "arousal")
    protocol = make_protocol(labels, SplitOptions(folds=3))
    trained = train_on(store, labels, protocol, layers=[BEST])
    assert trained.evaluation.main.value > 0.9
    assert trained.evaluation.curve is None
    assert trained.evaluation.calibration == {}


@pytest.mark.parametrize("classes", [2, 3])
def test_linear_head_is_scikit_learns_logistic_regression(
    store: FeatureStore, labels: Labels, classes: int
) -> None:
    rows = np.flatnonzero(labels.values < classes)
    features = LabelledFeatures(store, labels, config())
    head = fit(features, labels, rows, {"C": 0.01}, QUICK)
    x = store.matrix(layer=BEST)[labels.rows].astype(np.float64)
    x = (x - x[rows].mean(axis=0)) / x[rows].std(axis=0)
    reference = LogisticRegression(C=0.01, class_weight="balanced", tol=1e-6)
    reference.fit(x[rows], labels.values[rows])
    found = softmax(outputs_of(head, features, rows))
    np.testing.assert_allclose(found[:, :classes], reference.predict_proba(x[rows]), atol=5e-3)
    assert (found[:, classes:] < 1e-6).all()  # a class without clips is never predicted


@pytest.mark.parametrize("kind", ["linear", "attention"])
def test_standardisation_comes_from_the_training_clips(
    store: FeatureStore, labels: Labels, kind: Kind
) -> None:
    rows = np.arange(0, len(labels), 2)
    head = fit(
        LabelledFeatures(store, labels, config(kind)), labels, rows, {"C": 1.0, "epochs": 1}, QUICK
    )
    if kind == "linear":
        seen = store.matrix(layer=BEST)[labels.rows][rows]
    else:
        seen = np.concatenate([store.frames(name, layer=BEST) for name in labels.ids[rows]])
    seen = seen.astype(np.float64)
    np.testing.assert_allclose(head.mean.flatten(), seen.mean(axis=0), atol=1e-4)
    np.testing.assert_allclose(head.deviation.flatten(), seen.std(axis=0), rtol=1e-4)


@pytest.mark.parametrize(
    ("kind", "target"), [("linear", "emotion"), ("mlp", "emotion"), ("mlp", "arousal")]
)
def test_no_choice_sees_the_test_fold(
    store: FeatureStore, protocol: Protocol, kind: Kind, target: str
) -> None:
    labels, fold = labels_of(store, target), protocol.folds[0]
    values = labels.values.copy()
    values[fold.test] = 0  # other labels, other class counts, another mean and spread
    settings, outputs = [], []
    for which in (labels, replace(labels, values=values)):
        features = LabelledFeatures(
            store, which, config(kind, target=target, classes=labels.classes)
        )
        choice = choose(features, which, fold, QUICK)
        head = fit(features, which, fold.train, choice.setting, QUICK)
        settings.append(choice.setting)
        outputs.append(outputs_of(head, features, fold.test))
        assert np.isnan(choice.inner_outputs[fold.test]).all()
        assert not np.isnan(choice.inner_outputs[fold.train]).any()
    assert settings[0] == settings[1]
    np.testing.assert_array_equal(outputs[0], outputs[1])


def test_the_same_seed_gives_the_same_head_and_leaves_the_callers_alone(
    store: FeatureStore, labels: Labels
) -> None:
    features = LabelledFeatures(store, labels, config("mlp"))
    rows = np.arange(len(labels))
    weights = []
    for state, seed in enumerate((1, 1, 2)):
        torch.manual_seed(state)  # what the caller drew before must not matter
        expected = torch.rand(1)
        torch.manual_seed(state)
        head = fit(features, labels, rows, {"epochs": 2}, replace(QUICK, seed=seed))
        assert torch.equal(torch.rand(1), expected)
        weights.append(next(head.parameters()).detach())
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_early_stopping_ends_before_the_limit(
    store: FeatureStore, labels: Labels, protocol: Protocol
) -> None:
    noise = config("mlp", layers=(0,), dropout=0.0)  # nothing to learn there but the clips
    setting = choose(
        LabelledFeatures(store, labels, noise), labels, protocol.folds[0], QUICK
    ).setting
    assert 1 <= setting["epochs"] < QUICK.epochs / 2


def test_agreeing_on_a_setting() -> None:
    settings = [{"layer": 3, "epochs": 4}, {"layer": 7, "epochs": 9}, {"layer": 7, "epochs": 20}]
    assert agree(settings) == {"layer": 7, "epochs": 9}


def test_a_diverging_loss_is_an_error(store: FeatureStore, labels: Labels) -> None:
    wild = replace(QUICK, learning_rate=1e30)
    with pytest.raises(LabelError, match="did not converge"):
        choose(
            LabelledFeatures(store, labels, config("mlp")),
            labels,
            make_protocol(labels).folds[0],
            wild,
        )


def test_temperature_scaling_is_learned_inside_and_calms_a_head_that_is_too_sure(
    store: FeatureStore, labels: Labels, protocol: Protocol
) -> None:
    weak, unpenalised = [1], replace(QUICK, penalties=(100.0,))
    trained = train_on(store, labels, protocol, layers=weak, options=unpenalised)
    found = trained.evaluation.calibration
    assert min(trained.evaluation.temperatures) > 2
    assert found["ece"] > 0.2 and found["ece_scaled"] < found["ece"] / 1.5
    assert found["brier_scaled"] < found["brier"]
    assert found["temperature"] == pytest.approx(float(trained.head.temperature), rel=1e-5)


def test_a_saved_head_predicts_as_it_was_trained(
    linear: Trained, store: FeatureStore, labels: Labels, tmp_path: Path
) -> None:
    save_head(linear.head, tmp_path)
    head = load_head(tmp_path)
    assert isinstance(head, LinearHead)
    rows = [store[name] for name in labels.ids]
    found = head.predict_features(rows, fingerprint=store.fingerprint)
    truth = [EMOTIONS[value] for value in labels.values]
    assert np.mean([a == b for a, b in zip(found.labels, truth, strict=True)]) > 0.95
    assert found.scores.sum(axis=1) == pytest.approx(np.ones(len(labels)), abs=1e-5)


def test_evaluation_on_another_store_fits_nothing(linear: Trained, tmp_path: Path) -> None:
    other = write_emotional_store(tmp_path / "other", seed=1, speakers=3)
    labels = Labels.from_store(other, target="emotion", classes=EMOTIONS)
    before = {name: value.clone() for name, value in linear.head.state_dict().items()}
    found = evaluate_on(linear.head, other, labels)
    assert found.main.value > 0.8
    assert found.calibration["temperature"] == float(linear.head.temperature)
    assert all(torch.equal(before[k], v) for k, v in linear.head.state_dict().items())


def test_evaluation_on_the_training_clips_is_called_out(
    linear: Trained, store: FeatureStore, labels: Labels
) -> None:
    notes = evaluate_on(linear.head, store, labels).notes
    assert "120 of 120 clips were among the head's training clips" in notes[0]
    assert "8 of 8 groups (speaker) have the names of groups" in notes[1]


def test_evaluation_refuses_other_features_and_other_classes(
    linear: Trained, tmp_path: Path
) -> None:
    masked = write_emotional_store(tmp_path / "masked", preprocess="masked")
    with pytest.raises(FingerprintMismatch, match=r"spec.preprocess is 'masked', not 'card'"):
        evaluate_on(linear.head, masked, labels_of(masked))
    two = Labels.from_store(masked, target="emotion", options=LabelOptions(mapping={"sad": ""}))
    with pytest.raises(LabelError, match="the labels' classes are angry, happy"):
        evaluate_on(linear.head, masked, two)


def test_attention_needs_frames(tmp_path: Path) -> None:
    pooled = write_emotional_store(tmp_path / "pooled")
    labels = labels_of(pooled)
    with pytest.raises(UsageError, match="holds no frames"):
        train_on(pooled, labels, make_protocol(labels), kind="attention")


def test_the_report_says_what_to_beware_of(
    linear: Trained, store: FeatureStore, labels: Labels
) -> None:
    evaluation = replace(linear.evaluation, origin=origin_of(store, labels, "EMO-DB"))
    report = evaluation.content()
    assert report.metric == "uar" and report.main == evaluation.main
    assert "includes EMO-DB" in report.warnings[0]
    assert [failure["id"] for failure in report.failures] == ["broken"]
    assert report.reproduce["fingerprint"] == store.fingerprint.to_dict()
    assert report.map_points is not None and report.map_points.shape == (120, 2)
    assert sorted(report.ids) == sorted(labels.ids)
    assert len(report.folds) == 4
    assert {"name", "test_groups", "train_clips", "test_clips", "chosen", "uar"} == set(
        report.folds[0]
    )
    assert report.probabilities is not None
    np.testing.assert_allclose(report.probabilities.sum(axis=1), 1, atol=1e-5)


def test_a_random_split_is_called_out_in_the_report(store: FeatureStore, labels: Labels) -> None:
    protocol = make_protocol(labels, SplitOptions(scheme="random", folds=3))
    trained = train_on(store, labels, protocol, layers=[BEST])
    assert any(note.startswith("Random split") for note in trained.evaluation.warnings)


def test_all_layers_are_used_together_when_asked(store: FeatureStore, labels: Labels) -> None:
    protocol = make_protocol(labels, SplitOptions(folds=3))
    trained = train_on(store, labels, protocol, layers=range(LAYERS))
    assert trained.head.config.layers == tuple(range(LAYERS))
    assert trained.head.notes["setting"].keys() == {"C"}


def test_features_standardised_speaker_by_speaker(tmp_path: Path) -> None:
    """Speakers whose voices drown the emotion: it shows when each is seen by itself."""
    store = write_emotional_store(tmp_path / "store", speakers=6, clips=12)
    plain, own = (probe(store, target="emotion", per_group=flag) for flag in (False, True))
    assert own.main.value > plain.main.value
    assert "standardised speaker by speaker" in own.method and "speaker by" not in plain.method
    trained = train(store, target="emotion", layers=[2], per_group=True)
    save_head(trained.head, tmp_path / "head")
    head = load_head(tmp_path / "head")
    assert head.config.per_group
    assert evaluate(head, store).main.value > 0.7
    with pytest.raises(UsageError, match="cannot tell who speaks"):
        head.predict_features([store[store.ids[0]]], fingerprint=store.fingerprint)
    with pytest.raises(UsageError, match="needs a column that says who speaks"):
        evaluate(head, store, group="nobody")


def test_the_penalty_grid_reaches_far_and_says_when_it_ends() -> None:
    assert max(FitOptions().penalties) == 100
    notes = edge_warnings([{"C": 100.0}, {"C": 0.1}, {"C": 1e-5}], FitOptions())
    assert notes[0].startswith("In 1 of 3 folds the penalty chosen was an end") and len(notes) == 2
    assert edge_warnings([{"C": 0.1}, {"shrinkage": 0.9}, {"epochs": 3}], FitOptions()) == []


def test_against_another_head_says_of_both_what_it_says_of_one(
    linear: Trained, store: FeatureStore, tmp_path: Path
) -> None:
    other = write_emotional_store(tmp_path / "other", seed=1, speakers=6)
    elsewhere = train(other, target="emotion", layers=[BEST]).head
    found = evaluate(elsewhere, store, against=linear.head)
    assert any(note.startswith("the other head: 120 of 120 clips") for note in found.notes)
    assert any("6 of 8 groups (speaker) have the names" in note for note in found.notes)


def test_a_score_says_who_is_chosen_by_what_for_each_kind(
    store: FeatureStore, labels: Labels, protocol: Protocol
) -> None:
    discriminant = train_on(store, labels, protocol, kind="discriminant")
    found = probe(store, target="emotion", splitting=SplitOptions(folds=4))
    np.testing.assert_allclose(discriminant.evaluation.outputs, found.outputs, atol=2e-2, rtol=2e-2)
    assert "differ on the same layer" not in discriminant.evaluation.method
    assert "differ on the same layer" in train_on(store, labels, protocol).evaluation.method


def test_timid_values_are_stretched_to_the_truths_spread(tmp_path: Path) -> None:
    """Least squares give CCC 2r^2 / (1 + r^2); spread as wide as the truth they give r."""
    store = write_emotional_store(tmp_path / "store", speakers=10, clips=20)
    labels = labels_of(store, "arousal")
    noisy = np.random.default_rng(0).normal(size=len(labels)) * 1.7 + labels.values
    labels = replace(labels, values=noisy)  # half of what is to be told is noise
    found = train_on(store, labels, make_protocol(labels), layers=[BEST]).evaluation
    pearson = found.figures["pearson"].value
    assert 0.3 < pearson < 0.7
    assert found.main.value == pytest.approx(pearson, abs=0.05)
    assert found.main.value > 2 * pearson**2 / (1 + pearson**2) + 0.03
    assert "stretched about their mean" in found.method
    assert all(setting["stretch"] > 1.2 for setting in found.chosen)


@pytest.mark.slow
@pytest.mark.parametrize("groups", [5, 10])
def test_stretching_helps_where_there_is_something_and_harms_little_where_not(groups: int) -> None:
    """Over data sets drawn anew, in nested folds; ``simulation.py`` prints the whole table."""
    plain, stretched, gain, error = simulation.stretching(0.5, groups, 20)
    assert gain > 0.04 and gain > 3 * error
    assert plain < stretched < 0.5  # what is there to be found
    _, stretched, gain, error = simulation.stretching(0.0, groups, 20)
    assert gain > -0.01 - 3 * error
    assert stretched < 0.02 + 3 * error  # and nothing is found where there is nothing


@pytest.mark.parametrize("kind", ["linear", "discriminant", "mlp"])
def test_classes_may_count_as_often_as_they_occur(
    store: FeatureStore, labels: Labels, kind: Kind
) -> None:
    rare = np.flatnonzero((labels.values != 2) | (np.arange(len(labels)) % 7 == 0))
    few = labels.take(rare)
    features = LabelledFeatures(store, few, config(kind, layers=(1,)))
    said = {}
    for prior in ("balanced", "corpus"):
        options = replace(QUICK, prior=prior)  # type: ignore[arg-type]
        setting = {"C": 0.01, "shrinkage": 0.4, "epochs": 10}
        head = fit(features, few, np.arange(len(few)), setting, options)
        outputs = outputs_of(head, features, np.arange(len(few)))
        said[prior] = np.mean(outputs.argmax(axis=1) == 2)
    assert said["balanced"] > said["corpus"]


@pytest.mark.slow
def test_the_loss_of_ccc_finds_more_of_it_than_the_squared_error() -> None:
    """Where half of what is to be told is noise; averaged over data sets drawn anew."""
    random, gains = np.random.default_rng(0), []
    for _ in range(3):
        features, labels = simulation.ratings(random, 0.5, 6)
        features = replace(features, config=replace(features.config, kind="mlp", hidden=16))
        protocol, scores = make_protocol(labels, SplitOptions(scheme="grouped", folds=2)), []
        for loss in ("mse", "ccc"):
            outputs = np.empty((len(labels), 1))
            options = FitOptions(loss=loss, learning_rate=1e-2, epochs=25)  # type: ignore[arg-type]
            for fold in protocol.folds:
                setting = choose(features, labels, fold, options).setting  # type: ignore[arg-type]
                head = fit(features, labels, fold.train, setting, options)  # type: ignore[arg-type]
                outputs[fold.test] = outputs_of(head, features, fold.test)  # type: ignore[arg-type]
            scores.append(concordance(labels.values, outputs[:, 0]))
        gains.append(scores[1] - scores[0])
    assert np.mean(gains) > 0.05 and min(gains) > -0.02
