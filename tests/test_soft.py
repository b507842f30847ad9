"""Soft labels: shares of classes from columns or from annotators, trained on and scored."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from emotional_store import BEST, EMOTIONS, write_emotional_store

from exhubert_features.cli import main
from exhubert_features.errors import LabelError, UsageError
from exhubert_features.evaluation import LabelOptions, Labels, join_labels
from exhubert_features.evaluation.metrics import fit_temperature, js_divergences, kl_divergences
from exhubert_features.evaluation.splits import SplitOptions, make_protocol
from exhubert_features.heads import HeadConfig, evaluate
from exhubert_features.heads.features import Kind
from exhubert_features.heads.fitting import fit, outputs_of
from exhubert_features.heads.labelled import LabelledFeatures
from exhubert_features.heads.options import FitOptions
from exhubert_features.heads.training import train_on
from exhubert_features.store import FeatureStore

SOFT = LabelOptions(soft=True)
QUICK = FitOptions(epochs=25, patience=4, hidden=16, batch_size=32, learning_rate=1e-2)


def clips(count: int = 4) -> list[dict[str, str]]:
    return [{"id": f"c{n}", "speaker": f"s{n % 4}"} for n in range(count)]


def votes(*rows: str) -> list[dict[str, str]]:
    """``"3 1 0"`` are the votes of a clip for joy, sad and calm."""
    names = ("joy", "sad", "calm")
    return [
        {"id": f"c{n}", **dict(zip(names, row.split(), strict=True))} for n, row in enumerate(rows)
    ]


def joined(*rows: str, **options: object) -> Labels:
    how = replace(SOFT, **options)  # type: ignore[arg-type]
    return join_labels(clips(len(rows)), votes(*rows), target="joy,sad,calm", options=how)


# Labels


def test_columns_of_votes_become_shares_and_ties_are_named() -> None:
    found = joined("3 1 0", "0 0.5 0.5", "0 4 1", "1 1 1")
    assert found.task == "classification" and found.classes == ("joy", "sad", "calm")
    assert found.shares is not None and found.tied is not None
    np.testing.assert_allclose(found.shares[:2], [[0.75, 0.25, 0], [0, 0.5, 0.5]])
    assert found.tied.tolist() == [False, True, False, True]
    assert found.values[[0, 2]].tolist() == [0, 1]
    assert any("No class is ahead for 2 clips (c1, c3)" in note for note in found.warnings)


def test_the_map_adds_columns_up_and_leaves_them_out() -> None:
    found = joined("3 1 0", "1 1 2", "0 4 1", "1 0 0", mapping={"calm": "joy"})
    assert found.classes == ("joy", "sad") and found.shares is not None
    np.testing.assert_allclose(found.shares[1], [0.75, 0.25])
    found = joined("3 1 0", "1 1 2", "0 4 1", "1 0 0", mapping={"calm": ""})
    assert found.shares is not None
    np.testing.assert_allclose(found.shares[2], [0, 1])


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (("3 1 0", "0 -1 0.5"), r"no share or count of votes in column 'sad' for 1 clip \(c1\)"),
        (("3 1 0", "0 x 0.5"), r"no share or count of votes in column 'sad' for 1 clip \(c1\)"),
        (("3 1 0", "0 0 0"), r"all shares of classes are 0 for 1 clip \(c1\)"),
        (("3 1 0", "0 NA 1"), r"no label, group or split for 1 clip \(c1\)"),
        (("1 1 0", "2 0 2"), "no clip has a class ahead"),
    ],
)
def test_what_is_no_share_is_refused(rows: tuple[str, ...], message: str) -> None:
    with pytest.raises(LabelError, match=message):
        joined(*rows)


def test_soft_needs_columns_or_annotators() -> None:
    rows = [{"id": f"c{n}", "mood": "joy"} for n in range(4)]
    with pytest.raises(UsageError, match="--soft with the one column 'mood'"):
        join_labels(clips(), rows, target="mood", options=SOFT)
    with pytest.raises(UsageError, match="soft labels of numbers"):
        join_labels(clips(), rows, target="mood", options=replace(SOFT, task="regression"))


def test_annotators_become_shares_under_mapped_names() -> None:
    said = {"c0": "joy joy sad", "c1": "sad sad", "c2": "joy sad", "c3": "glee NA sad joy"}
    table = [{"id": name, "mood": word} for name, words in said.items() for word in words.split()]
    how = replace(SOFT, annotators=True, mapping={"glee": "joy"})
    found = join_labels(clips(), table, target="mood", options=how)
    assert found.classes == ("joy", "sad") and found.target == "mood" and found.shares is not None
    np.testing.assert_allclose(found.shares[:, 0], [2 / 3, 0, 0.5, 2 / 3])
    assert found.tied is not None and found.tied.tolist() == [False, False, True, False]
    hard = replace(how, soft=False, drop_unlabelled=True)
    settled = join_labels(clips(), table, target="mood", options=hard)
    assert settled.ids.tolist() == ["c0", "c1", "c3"]  # mapped first: two of three said joy
    assert settled.values.tolist() == [0, 1, 0]
    alike = [*table, {"id": "c0", "mood": "Joy"}]
    with pytest.raises(LabelError, match="'Joy' and 'joy'"):
        join_labels(clips(), alike, target="mood", options=hard)


def test_of_a_head_the_classes_are_dictated() -> None:
    rows = votes("3 1 0", "0 1 2", "0 4 1", "1 0 0")
    order = ("calm", "joy", "sad")
    found = join_labels(clips(), rows, target="joy,sad,calm", classes=order)
    assert found.classes == order and found.shares is not None  # several columns: shares
    np.testing.assert_allclose(found.shares[0], [0, 0.75, 0.25])
    with pytest.raises(LabelError, match=r"1 label \(calm\) .*outside the head's classes"):
        join_labels(clips(), rows, target="joy,sad,calm", classes=("joy", "sad"))


# Figures


def test_divergences_by_hand() -> None:
    shares, told = np.array([[0.5, 0.5], [1.0, 0.0]]), np.array([[0.25, 0.75], [1.0, 0.0]])
    expected = 0.5 * np.log2(0.5 / 0.25) + 0.5 * np.log2(0.5 / 0.75)
    np.testing.assert_allclose(kl_divergences(shares, told), [expected, 0])
    apart = js_divergences(np.array([[1.0, 0.0]]), np.array([[0.0, 1.0]]))
    np.testing.assert_allclose(apart, [1.0])
    middle = np.array([0.375, 0.625])
    half = (shares[0] * np.log2(shares[0] / middle)).sum()
    other = (told[0] * np.log2(told[0] / middle)).sum()
    np.testing.assert_allclose(js_divergences(shares, told)[0], (half + other) / 2)


def test_a_temperature_for_shares() -> None:
    random = np.random.default_rng(0)
    logits = random.normal(size=(500, 3))
    shares = torch.from_numpy(logits).softmax(dim=1).numpy()
    assert fit_temperature(3 * logits, shares) == pytest.approx(3, rel=1e-3)


# Heads


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    return write_emotional_store(tmp_path_factory.mktemp("soft") / "store", clips=18)


def table_of(store: FeatureStore, *, certain: float = 0.7, seed: int = 0) -> list[dict[str, str]]:
    """Votes of five annotators, each right so often, else saying anything."""
    random = np.random.default_rng(seed)
    rows = []
    for name in store.ids:
        chances = np.full(3, (1 - certain) / 3)
        chances[EMOTIONS.index(store[name].meta["emotion"])] += certain
        counts = random.multinomial(5, chances)
        rows.append({"id": name, **dict(zip(EMOTIONS, map(str, counts), strict=True))})
    return rows


def soft_labels(store: FeatureStore) -> Labels:
    return Labels.from_store(store, target=EMOTIONS, labels=table_of(store), options=SOFT)


def config(kind: Kind) -> HeadConfig:
    return HeadConfig(kind=kind, target="angry,happy,sad", classes=EMOTIONS, layers=(BEST,),
                      pools=("mean",), width=16, hidden=16, dropout=0.0)  # fmt: skip


@pytest.mark.parametrize("kind", ["linear", "discriminant", "mlp"])
def test_certain_shares_are_hard_labels(store: FeatureStore, kind: Kind) -> None:
    hard = Labels.from_store(store, target="emotion")
    certain = replace(hard, shares=np.eye(3)[hard.values], tied=np.zeros(len(hard), dtype=bool))
    rows, setting = np.arange(100), {"C": 0.1, "shrinkage": 0.4, "epochs": 3}
    outputs = []
    for labels in (hard, certain):
        features = LabelledFeatures(store, labels, config(kind))
        outputs.append(outputs_of(fit(features, labels, rows, setting, QUICK), features, rows))
    np.testing.assert_array_equal(*outputs)


@pytest.mark.parametrize("kind", ["linear", "mlp"])
def test_the_fit_minimises_the_cross_entropy_to_the_shares(store: FeatureStore, kind: Kind) -> None:
    """Features that only tell two kinds of clips apart: each kind is told its mean shares."""
    labels = soft_labels(store)
    assert labels.shares is not None
    kinds = np.arange(len(labels)) % 2
    shares = np.where(kinds[:, None] == 0, [0.6, 0.3, 0.1], [0.1, 0.2, 0.7])
    labels = replace(labels, shares=shares, values=shares.argmax(axis=1))
    features = LabelledFeatures(store, labels, config(kind))
    features._pooled = torch.from_numpy(np.tile(kinds[:, None, None, None], (1, 1, 1, 16))).float()
    options = replace(QUICK, prior="corpus", weight_decay=0.0)
    head = fit(features, labels, np.arange(len(labels)), {"C": 1e3, "epochs": 150}, options)
    told = torch.from_numpy(outputs_of(head, features, np.arange(2))).softmax(dim=1).numpy()
    np.testing.assert_allclose(told, shares[:2], atol=0.02)


@pytest.mark.parametrize("kind", ["linear", "discriminant"])
def test_a_head_knows_the_shares_better_than_chance(store: FeatureStore, kind: Kind) -> None:
    labels = soft_labels(store)
    protocol = make_protocol(labels, SplitOptions(folds=3))
    found = train_on(store, labels, protocol, kind=kind, layers=[BEST]).evaluation
    assert {"uar", "kl", "js"} <= set(found.figures) and set(found.baselines) == {"kl", "js"}
    for name, chance in found.baselines.items():
        assert found.figures[name].high < chance
    assert found.main.value > 0.8
    assert "on the shares of the classes" in found.method


def test_chance_is_what_the_mean_shares_of_the_training_clips_score(store: FeatureStore) -> None:
    labels = soft_labels(store)
    protocol = make_protocol(labels, SplitOptions(folds=3))
    found = train_on(store, labels, protocol, layers=[BEST]).evaluation
    assert labels.shares is not None
    each = np.empty(len(labels))
    for fold in protocol.folds:
        told = np.tile(labels.shares[fold.train].mean(axis=0), (len(fold.test), 1))
        each[fold.test] = kl_divergences(labels.shares[fold.test], told)
    assert found.baselines["kl"] == pytest.approx(each.mean(), rel=1e-5)


def test_ties_count_for_the_shares_and_not_for_uar(store: FeatureStore) -> None:
    labels = soft_labels(store)
    assert labels.tied is not None and 3 < labels.tied.sum() < len(labels) / 4
    protocol = make_protocol(labels, SplitOptions(folds=3))
    found = train_on(store, labels, protocol, layers=[BEST]).evaluation
    assert len(found.tested) == (~labels.tied).sum() == found.content().confusion.sum()  # type: ignore[union-attr]
    assert len(found.predictions) == len(labels)
    assert (found.predictions["truth"] == "").sum() == labels.tied.sum()
    assert found.scaled_shares.shape == (len(labels), 3)
    wrong = labels.values.copy()
    wrong[labels.tied] = (wrong[labels.tied] + 1) % 3  # whoever is called the first of a tie
    assert replace(found, labels=replace(labels, values=wrong)).figures == found.figures


@pytest.mark.slow
def test_soft_labels_from_the_command_line(
    store: FeatureStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = table_of(store)
    lines = [",".join(cells) for cells in [list(rows[0]), *(list(row.values()) for row in rows)]]
    (tmp_path / "votes.csv").write_text("\n".join(lines))
    options = ["--labels", str(tmp_path / "votes.csv"), "--target", "angry,happy,sad", "--soft"]
    command = ["train", str(store.path), *options, "--layers", "3", "--folds", "3"]
    assert main([*command, "-o", str(tmp_path / "head")]) == 0
    printed = capsys.readouterr().out
    assert "KL divergence (bits) 0." in printed and ", chance 0." in printed
    assert "No class is ahead for" in printed
    report = json.loads((tmp_path / "head" / "report.json").read_text())
    assert report["metrics"]["kl"]["value"] < report["baselines"]["kl"]
    assert np.shape(report["clips"]["shares"])[1] == 3
    table = (tmp_path / "head" / "predictions.csv").read_text().splitlines()[0]
    assert table.endswith("angry,happy,sad,share_angry,share_happy,share_sad")
    page = (tmp_path / "head" / "report.html").read_text()
    assert "JS divergence (bits)" in page and "Chance is what the mean shares" in page
    other = write_emotional_store(tmp_path / "other", seed=1, speakers=5)
    told = evaluate(tmp_path / "head", other, labels=table_of(other))  # its columns are shares
    assert told.figures["kl"].value < told.baselines["kl"]
    assert evaluate(tmp_path / "head", other, target="emotion").baselines == {}
    spoken = [{"id": row["id"], "mood": name} for row in rows for name in EMOTIONS
              for _ in range(int(row[name]))]  # fmt: skip
    lines = ["id,mood", *(f"{row['id']},{row['mood']}" for row in spoken)]
    (tmp_path / "rows.csv").write_text("\n".join(lines))
    options = ["--labels", str(tmp_path / "rows.csv"), "--target", "mood", "--annotators", "--soft"]
    command = ["train", str(store.path), *options, "--layers", "3", "--folds", "3", "--json"]
    assert main([*command, "-o", str(tmp_path / "spoken")]) == 0
    again = json.loads(capsys.readouterr().out)
    assert again["metrics"]["kl"]["value"] == pytest.approx(report["metrics"]["kl"]["value"])
