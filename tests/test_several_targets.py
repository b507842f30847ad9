"""Several numbers at once, such as arousal, valence and dominance, from labels to predictions."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from emotional_store import BEST, EMOTIONS, write_emotional_store

from exhubert_features.cli import main
from exhubert_features.errors import LabelError, UsageError
from exhubert_features.evaluation import LabelOptions, Labels
from exhubert_features.evaluation.comparison import compare
from exhubert_features.evaluation.intervals import regression_figures, several_figures
from exhubert_features.evaluation.metrics import concordance, mean_concordance
from exhubert_features.evaluation.splits import SplitOptions, make_protocol
from exhubert_features.heads import HeadConfig, evaluate, load_head, probe, train
from exhubert_features.heads.features import Kind
from exhubert_features.heads.fitting import choose, fit, outputs_of
from exhubert_features.heads.labelled import LabelledFeatures
from exhubert_features.heads.options import FitOptions
from exhubert_features.heads.training import train_on
from exhubert_features.store import FeatureStore

TARGETS = ("arousal", "valence", "dominance")
PLEASURE = dict(zip(EMOTIONS, (-1.0, 1.0, 0.0), strict=True))
QUICK = FitOptions(epochs=25, patience=4, hidden=16, batch_size=32, learning_rate=1e-2)
TWO_FOLDS = SplitOptions(folds=2)


def table(store: FeatureStore, *, without: dict[int, str] | None = None) -> list[dict[str, str]]:
    """Ratings of each clip; ``without`` some, by the clip's place."""
    random = np.random.default_rng(1)
    rows = []
    for place, name in enumerate(store.ids):
        meta = store[name].meta
        arousal, noise = float(meta["arousal"]), random.normal(size=2) * 0.3
        row = {
            "id": name,
            "arousal": meta["arousal"],
            "valence": f"{10 * (PLEASURE[meta['emotion']] + noise[0]):.3f}",  # on another scale
            "dominance": f"{3 + 0.5 * arousal + noise[1]:.3f}",
        }
        if without and place in without:
            row[without[place]] = "NA"
        rows.append(row)
    return rows


def write_table(path: Path, rows: list[dict[str, str]]) -> str:
    path.write_text(
        "\n".join(",".join(cells) for cells in [list(rows[0]), *(r.values() for r in rows)])
    )
    return str(path)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    return write_emotional_store(tmp_path_factory.mktemp("several") / "store", frame_layers=(3,))


def labels_of(
    store: FeatureStore, target: str = ",".join(TARGETS), **missing: dict[int, str]
) -> Labels:
    return Labels.from_store(store, target=target, labels=table(store, **missing))


# Labels


def test_a_clip_that_lacks_one_target_serves_the_others_and_is_named(store: FeatureStore) -> None:
    labels = labels_of(store, without={3: "valence"})
    assert labels.values.shape == (len(store.ids), 3) and labels.targets == TARGETS
    assert np.isnan(labels.values[3]).tolist() == [False, True, False]
    expected = f"No valence is known of 1 clip ({store.ids[3]}): they serve the other targets only"
    assert expected in labels.warnings


def test_a_clip_without_any_target_has_no_label(store: FeatureStore) -> None:
    rows = table(store)
    rows[0] |= dict.fromkeys(TARGETS, "")
    with pytest.raises(LabelError, match=r"no label, group or split for 1 clip"):
        Labels.from_store(store, target=TARGETS, labels=rows)
    rows = [{**row, "dominance": ""} for row in table(store)]
    with pytest.raises(LabelError, match="no clip has a number in column 'dominance'"):
        Labels.from_store(store, target=TARGETS, labels=rows)
    rows[5]["valence"] = "high"
    with pytest.raises(LabelError, match="no finite number in column 'valence' for 1 clip"):
        Labels.from_store(store, target=("arousal", "valence"), labels=rows)


@pytest.mark.parametrize("target", ["arousal,", "arousal,arousal"])
def test_targets_that_are_none(store: FeatureStore, target: str) -> None:
    with pytest.raises(UsageError, match="several different ones"):
        labels_of(store, target)


def test_several_classes_are_refused(
    store: FeatureStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["probe", str(store.path), "--target", "emotion,speaker", "--task", "classification"]
    assert main([*command, "-o", str(tmp_path)]) == 2
    assert "--soft says that each column holds the share of a class" in capsys.readouterr().err


# Figures


def drawn(seed: int = 0, groups: int = 6) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    truth = random.normal(size=(groups * 10, 3)) + random.normal(size=(groups, 3)).repeat(
        10, axis=0
    )
    guess = truth * (0.9, 0.5, 0.2) + random.normal(size=truth.shape)
    return truth, guess, np.arange(groups).repeat(10)


def test_mean_ccc_is_the_mean_and_its_interval_a_jackknife_of_the_mean() -> None:
    truth, guess, groups = drawn()
    truth[::7, 1] = np.nan
    found = several_figures(truth, guess, groups=groups, targets=TARGETS)
    assert list(found)[:4] == ["mean_ccc", "ccc arousal", "pearson arousal", "mae arousal"]
    means = [np.mean([_ccc(truth[k], guess[k], t) for t in range(3)])
             for k in (groups >= 0, *(groups != speaker for speaker in range(6)))]  # fmt: skip
    assert found["mean_ccc"].value == pytest.approx(means[0])
    assert means[0] == pytest.approx(mean_concordance(truth, guess))
    variance = 5 / 6 * np.sum((np.array(means[1:]) - means[0]) ** 2)
    width = found["mean_ccc"].high - found["mean_ccc"].low
    assert width == pytest.approx(2 * 2.57058 * np.sqrt(variance), rel=0.1)  # Wilson's is narrower
    known = np.isfinite(truth[:, 1])
    alone = regression_figures(truth[known, 1], guess[known, 1], groups=groups[known])
    assert found["ccc valence"] == alone["ccc"]


def _ccc(truth: np.ndarray, guess: np.ndarray, target: int) -> float:
    known = np.isfinite(truth[:, target])
    return concordance(truth[known, target], guess[known, target])


def test_the_mean_of_one_target_three_times_is_that_target() -> None:
    truth, guess, groups = drawn()
    truth, guess = (values[:, :1].repeat(3, axis=1) for values in (truth, guess))
    found = several_figures(truth, guess, groups=groups, targets=TARGETS)
    assert found["mean_ccc"].low == pytest.approx(found["ccc arousal"].low)
    assert found["mean_ccc"].high == pytest.approx(found["ccc arousal"].high)


def test_a_target_that_one_speaker_has_does_not_break_the_mean() -> None:
    truth, guess, groups = drawn()
    truth[10:, 2] = np.nan
    found = several_figures(truth, guess, groups=groups, targets=TARGETS)["mean_ccc"]
    assert np.isfinite([found.low, found.high]).all() and found.low < found.value < found.high


def test_a_target_that_no_clip_of_a_part_has_is_in_no_figure_of_it() -> None:
    truth, guess, groups = drawn()
    truth[:, 1] = np.nan
    found = several_figures(truth, guess, groups=groups, targets=TARGETS)
    assert "ccc valence" not in found
    assert found["mean_ccc"].value == pytest.approx(mean_concordance(truth, guess))
    left = several_figures(truth[:, ::2], guess[:, ::2], groups=groups, targets=TARGETS[::2])
    assert found["mean_ccc"] == left["mean_ccc"]


def test_two_predictions_of_several_targets_are_compared() -> None:
    truth, guess, groups = drawn(groups=8)
    truth[::9, 0] = np.nan
    worse = guess + 2 * np.random.default_rng(5).normal(size=guess.shape)
    found = compare(truth, guess, worse, groups=groups, metric="mean_ccc")
    gap = mean_concordance(truth, guess) - mean_concordance(truth, worse)
    assert found.difference.value == pytest.approx(gap) and found.difference.low > 0
    assert found.p_value == pytest.approx(2 / 2**8)  # all eight speakers say so
    truth, guess, _ = drawn(groups=30)
    worse = guess + 0.5 * np.random.default_rng(5).normal(size=guess.shape)
    order = np.random.default_rng(0).permutation(len(truth))
    mixed = compare(truth[order], guess[order], worse[order], groups=None, metric="mean_ccc")
    assert mixed.p_value == compare(truth, guess, worse, groups=None, metric="mean_ccc").p_value


# Heads


@pytest.mark.parametrize("kind", ["linear", "discriminant"])
def test_each_target_is_fitted_as_if_it_were_alone(store: FeatureStore, kind: Kind) -> None:
    """On the clips that have it, stretched by itself, and not one number of another matters."""
    several = labels_of(store, without=dict.fromkeys(range(0, 60, 4), "valence"))
    rows = np.arange(len(several))[:90]
    setting = {"C": 1e4, "shrinkage": 0.4, "stretch valence": 1.5, "stretch": 1.5}
    config = HeadConfig(kind=kind, target=several.target, classes=(), layers=(BEST,),
                        pools=("mean",), width=16)  # fmt: skip
    features = LabelledFeatures(store, several, config)
    together = outputs_of(fit(features, several, rows, setting, QUICK), features, rows)
    known = rows[np.isfinite(several.values[rows, 1])]
    alone = replace(several, target="valence", values=several.values[:, 1])
    features = LabelledFeatures(store, alone, replace(config, target="valence"))
    apart = outputs_of(fit(features, alone, known, setting, QUICK), features, known)
    np.testing.assert_allclose(together[known, 1], apart[:, 0], atol=0.02)  # of about 8


@pytest.mark.parametrize("kind", ["linear", "discriminant", "mlp"])
def test_no_choice_sees_the_test_fold(store: FeatureStore, kind: Kind) -> None:
    labels = labels_of(store)
    fold = make_protocol(labels, SplitOptions(folds=3)).folds[0]
    values = labels.values.copy()
    values[fold.test] = -7.0
    config = HeadConfig(kind=kind, target=labels.target, classes=(), layers=(BEST,),
                        pools=("mean",), width=16, hidden=8)  # fmt: skip
    options = replace(QUICK, epochs=4)
    found = []
    for which in (labels, replace(labels, values=values)):
        features = LabelledFeatures(store, which, config)
        choice = choose(features, which, fold, options)
        head = fit(features, which, fold.train, choice.setting, options)
        found.append((choice.setting, outputs_of(head, features, fold.test)))
    assert found[0][0] == found[1][0]
    np.testing.assert_array_equal(found[0][1], found[1][1])


@pytest.mark.parametrize("kind", ["linear", "discriminant", "mlp", "weighted", "attention"])
@pytest.mark.slow
def test_every_head_tells_all_targets_in_their_own_units(store: FeatureStore, kind: Kind) -> None:
    labels = labels_of(store, without=dict.fromkeys(range(0, 120, 5), "dominance"))
    found = train_on(store, labels, make_protocol(labels, TWO_FOLDS), kind=kind, options=QUICK)
    figures = found.evaluation.figures
    assert found.evaluation.metric == "mean_ccc" and found.evaluation.main.value > 0.6
    assert min(figures[f"ccc {name}"].value for name in TARGETS) > 0.5
    assert found.head.target_scale.shape == (3,) and found.head.target_scale[1] > 5
    assert found.evaluation.outputs.shape == (120, 3)


def test_values_are_stretched_each_by_itself(store: FeatureStore) -> None:
    labels = labels_of(store)
    noisy = labels.values.copy()
    noisy[:, 0] += 2 * np.random.default_rng(0).normal(size=len(labels))
    labels = replace(labels, values=noisy)
    found = train_on(store, labels, make_protocol(labels, TWO_FOLDS), layers=[BEST])
    setting = found.head.notes["setting"]
    assert set(setting) == {"C", "stretch arousal", "stretch valence", "stretch dominance"}
    assert setting["stretch arousal"] > setting["stretch valence"] + 0.2
    page = found.evaluation.content().folds[0]["chosen"]
    assert "stretch arousal" in page


def test_a_loss_that_does_nothing_is_refused(store: FeatureStore) -> None:
    for head, target in (("linear", "arousal"), ("mlp", "emotion")):
        with pytest.raises(UsageError, match="loss is 'ccc' for"):
            train(store, target=target, head=head, fitting=FitOptions(loss="ccc"))  # type: ignore[arg-type]


@pytest.mark.slow
def test_a_saved_head_is_evaluated_on_all_some_or_renamed_targets(
    store: FeatureStore, tmp_path: Path
) -> None:
    rows = table(store, without={0: "valence"})
    trained = train(store, target=TARGETS, labels=rows, layers=[BEST], splitting=TWO_FOLDS)
    trained.save(tmp_path / "head")
    head = load_head(tmp_path / "head")
    assert head.config.targets == TARGETS and head.notes["mean_ccc"]["value"] > 0.7
    other = write_emotional_store(tmp_path / "other", seed=1, speakers=5, frame_layers=(3,))
    told = evaluate(head, other, labels=table(other))
    assert told.main.value > 0.6 and told.metric == "mean_ccc"
    one = evaluate(head, other, labels=table(other), target="valence")
    assert one.metric == "ccc"
    assert one.main.value == pytest.approx(told.figures["ccc valence"].value)
    renamed = [{"id": row["id"], "act": row["arousal"], "val": row["valence"],
                "dom": row["dominance"]} for row in table(other)]  # fmt: skip
    again = evaluate(head, other, labels=renamed, target="act,val,dom")
    assert again.main.value == pytest.approx(told.main.value)
    with pytest.raises(LabelError, match=r"columns for arousal, valence, dominance, in this order"):
        evaluate(head, other, labels=renamed, target="act,val")
    predicted = head.predict_features([other[other.ids[0]]], fingerprint=other.fingerprint)
    np.testing.assert_allclose(predicted.scores[0], told.outputs[0], rtol=1e-4)


@pytest.mark.slow
def test_probe_and_report_and_table_and_comparison(
    store: FeatureStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    joined = write_table(tmp_path / "labels.csv", table(store, without={2: "valence"}))
    command = ["probe", str(store.path), "--labels", joined, "--target", ",".join(TARGETS)]
    for layer in ("3", "0"):
        out = str(tmp_path / layer)
        assert main([*command, "--layers", layer, "--folds", "2", "-o", out]) == 0
    printed = capsys.readouterr().out
    assert "Mean CCC 0." in printed and "CCC dominance 0." in printed
    assert "No valence is known of 1 clip" in printed
    report = json.loads((tmp_path / "3" / "report.json").read_text())
    assert report["mean_ccc"] > 0.6 and report["targets"] == list(TARGETS)
    assert {"ccc arousal", "mae valence"} < set(report["metrics"])
    assert report["clips"]["truth"][2][1] is None and len(report["clips"]["prediction"][2]) == 3
    head = (tmp_path / "3" / "predictions.csv").read_text()
    assert head.startswith("id,group,fold,truth_arousal,prediction_arousal,truth_valence")
    page = (tmp_path / "3" / "report.html").read_text()
    assert "Mean CCC" in page and "CCC valence" in page and "true dominance" in page
    runs = [str(tmp_path / layer) for layer in "03"]
    assert main(["compare", *runs, "-o", str(tmp_path / "both")]) == 0
    rows = json.loads((tmp_path / "both" / "comparison.json").read_text())
    assert rows["metric"] == "mean_ccc" and rows["runs"][1]["difference"]["low"] > 0
    assert "| Mean CCC |" in capsys.readouterr().out


def test_rows_per_annotator_are_averaged_for_each_target(store: FeatureStore) -> None:
    rows = table(store)
    shifted = [{**row, "arousal": repr(float(row["arousal"]) + 2), "valence": "NA"} for row in rows]
    labels = Labels.from_store(store, target=TARGETS, labels=[*rows, *shifted],
                               options=LabelOptions(annotators=True))  # fmt: skip
    plain = labels_of(store)
    np.testing.assert_allclose(labels.values[:, 0], plain.values[:, 0] + 1)
    np.testing.assert_allclose(labels.values[:, 1], plain.values[:, 1])


def test_a_probe_of_several_targets_is_each_targets_own_probe(store: FeatureStore) -> None:
    """With one shrinkage to choose from they share nothing but the folds."""
    from exhubert_features.heads import layerwise

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layerwise, "SHRINKAGES", (0.4,))
        rows = table(store)
        each = SplitOptions(scheme="leave-one-group-out")
        both, one = (
            probe(store, target=target, labels=rows, layers=[3], splitting=each)
            for target in (TARGETS, "arousal")
        )
    np.testing.assert_allclose(both.outputs[:, 0], one.outputs[:, 0], atol=1e-3)
    assert both.curve is not None and both.curve.best == BEST
