"""Traps that would score too high or mislead in silence: each is refused, mended or named."""

from __future__ import annotations

import json
import unicodedata
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from test_report import evaluation
from test_splits import make_labels, speakers

from exhubert_features.cli import main
from exhubert_features.errors import LabelError
from exhubert_features.evaluation import LabelOptions, SplitOptions, join_labels
from exhubert_features.evaluation.caveats import temperature_warnings
from exhubert_features.evaluation.outputs import best_of
from exhubert_features.evaluation.splits import Fold, Protocol, make_protocol
from exhubert_features.report import as_json
from exhubert_features.report.writing import _summary
from exhubert_features.stamps import stamped

EMOTIONS = ("joy", "sad")


def clips(count: int = 8, **columns: list[str]) -> list[dict[str, str]]:
    rows = [
        {"id": f"c{n}", "audio_sha256": f"hash{n}", "speaker": f"s{n % 4}", "mood": EMOTIONS[n % 2]}
        for n in range(count)
    ]
    for name, values in columns.items():
        for row, value in zip(rows, values, strict=True):
            row[name] = value
    return rows


def test_one_speaker_under_two_spellings_is_one_group_and_named() -> None:
    accents = ["é", unicodedata.normalize("NFD", "é")]
    found = join_labels(
        clips(8, speaker=["s1", "S1", "a", "b", "1", "1.0", "s 1", "d"]), target="mood"
    )
    assert found.groups[0] == found.groups[1] == found.groups[6]
    assert found.groups[4] == found.groups[5]
    assert "'S1' and 's 1' and 's1'" in found.warnings[0] and "'1' and '1.0'" in found.warnings[0]
    rows = [{"id": f"c{n}", "who": accents[n % 2] + " " * (n % 3), "mood": EMOTIONS[n % 2]}
            for n in range(8)]  # fmt: skip
    from exhubert_features.evaluation.labels import table_rows

    joined = join_labels(clips(), table_rows(rows), target="mood", group="who")
    assert set(joined.groups) == {"é"}


def test_classes_that_only_look_different_are_refused_with_a_way_out() -> None:
    rows = clips(8, mood=["Angry", "angry"] + ["sad"] * 6)
    with pytest.raises(LabelError, match=r"'Angry' and 'angry'.*--map 'Angry=angry'"):
        join_labels(rows, target="mood")
    one = LabelOptions(mapping={"Angry": "angry"})
    assert join_labels(rows, target="mood", options=one).classes == ("angry", "sad")
    both = LabelOptions(mapping={"Angry": "Angry", "angry": "angry"})
    assert len(join_labels(rows, target="mood", options=both).classes) == 3


@pytest.mark.parametrize("word", ["NA", "n/a", "None", "null", "-", "?", "NaN"])
def test_words_for_nothing_are_missing_unless_they_are_meant(word: str) -> None:
    rows = clips(8, mood=[word, "sad", "joy", "sad", "joy", "sad", "joy", "sad"])
    with pytest.raises(
        LabelError, match=rf"{word!r} in column 'mood' counts as no label".replace("?", r"\?")
    ):
        join_labels(rows, target="mood")
    kept = LabelOptions(mapping={word: word})
    assert word in join_labels(rows, target="mood", options=kept).classes


def test_a_map_of_labels_that_nobody_has_is_named() -> None:
    slip = LabelOptions(mapping={"yoy": "sad", "NA": "NA"})
    found = join_labels(clips(8), target="mood", options=slip)
    assert found.warnings == ("The label map speaks of 'yoy', which no clip has",)
    swapped = LabelOptions(mapping={"joy": "sad", "sad": "joy"}, annotators=True)
    table = [{"id": f"c{n}", "mood": EMOTIONS[n % 2]} for n in range(8)]
    settled = join_labels(clips(8), table, target="mood", options=swapped)
    assert settled.values.tolist() == [1, 0] * 4  # renamed once, and not back again


def test_ratings_ask_what_they_are() -> None:
    rows = clips(8, mood=list("12345123"))
    with pytest.raises(LabelError, match="5 different whole numbers"):
        join_labels(rows, target="mood")
    assert join_labels(clips(8, mood=list("12341234")), target="mood").task == "classification"


def test_the_same_audio_under_two_speakers_makes_them_one_group() -> None:
    rows = clips(8, audio_sha256=["x", "x", *map(str, range(6))])
    found = join_labels(rows, target="mood")
    assert found.groups.tolist()[:4] == ["s0 + s1", "s0 + s1", "s2", "s3"]
    assert "c0 = c1" in found.warnings[0]
    for fold in make_protocol(found).folds:
        assert not set(found.audio[fold.train]) & set(found.audio[fold.test])  # type: ignore[index]


def test_the_same_audio_in_training_and_test_is_refused() -> None:
    split = ["train"] * 4 + ["test"] * 4
    rows = clips(8, split=split, audio_sha256=["x", "1", "2", "3", "x", "4", "5", "6"])
    found = join_labels(rows, target="mood", group=None, split="split")
    with pytest.raises(LabelError, match=r"both sides of test \(c0 \+ c4\)"):
        make_protocol(found)


def test_random_folds_keep_the_same_audio_together() -> None:
    rows = clips(40, audio_sha256=[f"h{n // 2}" for n in range(40)])
    found = join_labels(rows, target="mood", group=None)
    for fold in make_protocol(found, SplitOptions(scheme="random")).folds:
        assert not set(found.audio[fold.train]) & set(found.audio[fold.test])  # type: ignore[index]


def test_a_table_without_speakers_takes_those_of_the_store() -> None:
    table = [{"id": f"c{n}", "feeling": EMOTIONS[n % 2]} for n in range(8)]
    found = join_labels(clips(), table, target="feeling")
    assert set(found.groups) == {"s0", "s1", "s2", "s3"}
    assert "no column speaker: taken from the store's own" in found.warnings[0]


def test_annotators_settle_on_the_majority_or_the_mean() -> None:
    said = {"c0": "joy joy sad", "c1": "sad sad", "c2": "joy sad", "c3": "joy NA sad sad"}
    table = [{"id": name, "mood": word} for name, words in said.items() for word in words.split()]
    with pytest.raises(LabelError, match="contradict each other"):
        join_labels(clips(4), table, target="mood")
    drop = LabelOptions(annotators=True, drop_unlabelled=True)
    found = join_labels(clips(4), table, target="mood", options=drop)
    assert found.ids.tolist() == ["c0", "c1", "c3"] and found.values.tolist() == [0, 1, 1]
    assert "no class is ahead: 1 clip (c2)" in found.warnings[1]
    ratings = [{"id": f"c{n}", "arousal": str(n + k)} for n in range(4) for k in (0, 1, 1)]
    numbers = LabelOptions(annotators=True)
    mean = join_labels(clips(4), ratings, target="arousal", options=numbers)
    assert mean.task == "regression" and mean.values == pytest.approx(np.arange(4) + 2 / 3)


def test_any_column_can_name_the_clips() -> None:
    table = [{"id": str(n), "name": f"c{n}", "mood": EMOTIONS[n % 2]} for n in range(8)]
    with pytest.raises(LabelError, match="--id-column"):
        join_labels(clips(), table, target="mood")
    found = join_labels(clips(), table, target="mood", options=LabelOptions(id_column="name"))
    assert len(found) == 8


def test_splits_under_any_names_and_several_test_sets() -> None:
    splits = np.array(["Training", "Development", "Test1", "Test2", "spare", "Training"]).repeat(4)
    labels = make_labels(np.arange(24), np.arange(24) % 2, splits=splits)
    with pytest.raises(LabelError, match="--split-map"):
        make_protocol(labels)
    protocol = make_protocol(labels, SplitOptions(roles={"spare": ""}))
    assert [fold.name for fold in protocol.folds] == ["Test1", "Test2"] and protocol.test_sets
    for fold, first in zip(protocol.folds, (8, 12), strict=True):
        assert fold.test.tolist() == list(range(first, first + 4))
        assert fold.train.tolist() == [*range(8), *range(20, 24)]
        assert fold.inner[0].held.tolist() == list(range(4, 8))
    other = make_protocol(labels, SplitOptions(roles={"spare": "test", "Test1": "dev"}))
    assert [fold.name for fold in other.folds] == ["Test2", "spare"]
    with pytest.raises(LabelError, match="spare=holdout"):
        make_protocol(labels, SplitOptions(roles={"spare": "holdout"}))


def test_parts_of_a_split_that_only_look_different_are_one_and_named() -> None:
    spelt = ["train", "Train", "dev", "DEV", "Test", "test", "TRAIN", "Dev", "1", "1.0"]
    splits = np.array(spelt).repeat(4)
    labels = make_labels(np.arange(40), np.arange(40) % 2, splits=splits)
    known = labels.take(np.arange(32))
    protocol = make_protocol(known)
    (fold,) = protocol.folds  # and not two test sets
    assert len(fold.train) == 24 and len(fold.test) == 8 and not protocol.test_sets
    (inner,) = fold.inner
    assert inner.held.tolist() == [*range(8, 16), *range(28, 32)]
    assert "'DEV' and 'Dev' and 'dev'" in protocol.warnings[0]
    assert "'Test' and 'test'" in protocol.warnings[0]
    apart = make_protocol(known, SplitOptions(roles={"Test": "test", "test": "test"}))
    assert [fold.name for fold in apart.folds] == ["Test", "test"]
    folds = make_protocol(labels, SplitOptions(fold_column="fold"))
    assert [fold.name for fold in folds.folds] == ["1", "DEV", "TRAIN", "Test"]
    assert "'1' and '1.0'" in folds.warnings[0]


def test_a_split_map_of_names_that_are_not_there_is_refused() -> None:
    splits = np.array(["train", "Development", "test"]).repeat(8)
    labels = make_labels(np.arange(24), np.arange(24) % 2, splits=splits)
    with pytest.raises(LabelError, match=r"split map speaks of Develop; expected .*Development"):
        make_protocol(labels, SplitOptions(roles={"Develop": "dev"}))


def test_subgroups_that_only_look_different_are_one() -> None:
    rows = clips(8, gender=["f", "F", "m", "m", "f", "f", "M", "m"])
    found = join_labels(rows, target="mood", options=LabelOptions(columns=("gender",)))
    assert sorted(set(found.columns["gender"])) == ["F", "M"]
    assert "'F' and 'f'" in found.warnings[0]


def test_a_fold_column_is_one_fold_per_name_and_speakers_stay_apart() -> None:
    sessions = np.array(["train", "test", "Ses3"]).repeat(8)
    labels = make_labels(np.arange(6).repeat(4), np.arange(24) % 2, splits=sessions)
    protocol = make_protocol(labels, SplitOptions(fold_column="session"))
    assert [fold.name for fold in protocol.folds] == ["Ses3", "test", "train"]
    assert all(len(set(labels.groups[fold.test])) == 2 for fold in protocol.folds)


def test_speakers_of_one_class_each_are_no_dead_end() -> None:
    labels = make_labels(np.arange(4).repeat(6), np.array([0, 0, 1, 1]).repeat(6))
    protocol = make_protocol(labels)
    assert len(protocol.folds) == 4
    for fold in protocol.folds:
        assert all(len(set(labels.values[inner.train])) == 2 for inner in fold.inner)
    assert "fewer inner folds" in protocol.warnings[0]
    two = make_labels(np.arange(3).repeat(6), np.array([0, 1, 1]).repeat(6))
    protocol = make_protocol(two)
    assert [fold.name for fold in protocol.folds] == ["speaker 1", "speaker 2"]
    assert any("Not tested" in note and "speaker 0" in note for note in protocol.warnings)


def test_ties_are_broken_by_the_loss() -> None:
    assert best_of([0.9, 1.0, 1.0, 1.0], [0.0, 0.5, 0.1, 0.3]) == 2
    assert best_of([0.9, 0.8], [5.0, 0.1]) == 0


def test_a_temperature_at_its_bound_is_said() -> None:
    assert temperature_warnings([1.0, 2.0]) == []
    assert "In 1 of 2 folds the temperature is at a bound" in temperature_warnings([1.0, 0.01])[0]
    sure = evaluation(np.arange(20) % 2, np.eye(2)[np.arange(20) % 2], classes=EMOTIONS)
    assert any("at a bound" in note for note in replace(sure, temperatures=(0.01,)).warnings)


def test_windows_vote_for_their_clip() -> None:
    outputs = np.array([[0.0, 4.0], [1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    found = evaluation(np.array([1, 1, 0, 0]), outputs, classes=EMOTIONS)
    labels = replace(found.labels, clips=np.array(["a", "a", "b", "b"]))
    whole = replace(found, labels=labels).of_clips()
    assert whole.labels.ids.tolist() == ["clip0", "clip2"]
    assert whole.prediction.tolist() == [1, 0] or whole.prediction.tolist() == [1, 1]
    assert len(whole.tested) == 2 and whole.figures["recall sad"].value == 1.0


def test_scores_by_subgroup_and_by_test_set() -> None:
    found = evaluation(np.arange(40) % 2, np.eye(2)[np.arange(40) % 2], classes=EMOTIONS)
    outputs = found.outputs.copy()
    outputs[30:] = outputs[30:, ::-1]  # all wrong there
    gender = np.array(["f"] * 30 + ["m"] * 10)
    labels = replace(found.labels, columns={"gender": gender})
    parts = replace(found, labels=labels, outputs=outputs).parts
    assert [(p.kind, p.name, p.clips, p.score.value) for p in parts] == [
        ("gender", "f", 30, 1.0),
        ("gender", "m", 10, 0.0),
    ]
    with pytest.raises(LabelError, match="without column 'age'"):
        found.by("age")


def test_comparing_needs_the_same_clips() -> None:
    generator = np.random.default_rng(0)
    truth = np.arange(120) % 2
    good = evaluation(
        truth, np.eye(2)[truth] * 2 + generator.normal(size=(120, 2)), classes=EMOTIONS
    )
    bad = evaluation(truth, generator.normal(size=(120, 2)), classes=EMOTIONS)
    whole = Fold(name="all", train=truth[:0], test=np.arange(120), inner=())
    finished = Protocol(folds=(whole,), words="")  # nothing trained: these two models
    good, bad = (replace(found, protocol=finished) for found in (good, bad))
    found = good.compare(bad)
    assert found.difference.low > 0 and found.p_value is not None and found.p_value < 0.05
    assert found.difference.value == pytest.approx(good.main.value - bad.main.value)
    with pytest.raises(LabelError, match="different clips or labels"):
        good.compare(evaluation(1 - truth, bad.outputs, classes=EMOTIONS))


def test_predictions_are_a_table_of_calibrated_probabilities(tmp_path: Path) -> None:
    logits = np.array([[4.0, 0.0], [0.0, 2.0], [2.0, 0.0]])
    found = evaluation(np.array([0, 1, 1]), logits, classes=EMOTIONS, speakers=2)
    table = found.predictions
    assert list(table.columns) == ["id", "group", "fold", "truth", "prediction", *EMOTIONS]
    assert table["prediction"].tolist() == ["joy", "sad", "joy"]
    assert table["joy"][0] == pytest.approx(1 / (1 + np.exp(-2)))  # 4 at temperature 2
    found.report(tmp_path)
    assert (tmp_path / "predictions.csv").read_text().splitlines()[1].startswith("clip0,")


def test_protocols_of_many_speakers_are_not_disturbed() -> None:
    assert make_protocol(speakers(10)).warnings == ()


def test_runs_side_by_side(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    generator = np.random.default_rng(0)
    truth = np.arange(240) % 2
    for name, skill in (("weak_1", 0.5), ("strong&2", 3.0), ("weak_3", 0.4)):
        outputs = np.eye(2)[truth] * skill + generator.normal(size=(240, 2))
        made = evaluation(truth, outputs, classes=EMOTIONS, speakers=12)
        folds = tuple(
            Fold(name=str(n), train=np.flatnonzero(truth >= 0), test=rows, inner=())
            for n, rows in enumerate(np.array_split(np.arange(240), 5))
        )
        made = replace(made, protocol=Protocol(folds=folds, words=""), chosen=(), temperatures=())
        data = as_json(_summary(made.content(made="")))
        (tmp_path / name).mkdir()
        (tmp_path / name / "report.json").write_text(json.dumps(stamped(data)))
    runs = [str(tmp_path / name) for name in ("weak_1", "strong&2", "weak_3")]
    assert main(["compare", *runs, "-o", str(tmp_path / "out")]) == 0
    rows = json.loads((tmp_path / "out" / "comparison.json").read_text())["runs"]
    assert rows[0]["difference"] is None
    assert rows[1]["difference"]["low"] > 0 and rows[1]["p_value"] < 0.05
    assert rows[1]["corrected"] == pytest.approx(2 * rows[1]["p_value"])
    assert rows[2]["difference"]["low"] < 0 < rows[2]["difference"]["high"]
    assert r"strong\&2" in (tmp_path / "out" / "comparison.tex").read_text()
    assert capsys.readouterr().out.startswith((tmp_path / "out" / "comparison.md").read_text())
    assert (tmp_path / "out" / "comparison.png").stat().st_size > 1000
    data = json.loads((tmp_path / "weak_1" / "report.json").read_text())
    data["clips"]["id"][0] = "another"
    del data["sha256"]
    (tmp_path / "weak_1" / "report.json").write_text(json.dumps(stamped(data)))
    assert main(["compare", *runs, "-o", str(tmp_path / "out")]) == 1
    assert "not tested on the same clips" in capsys.readouterr().err
    assert main(["compare", runs[0], str(tmp_path), "-o", str(tmp_path / "out")]) == 2
    assert "cannot be read as a report" in capsys.readouterr().err
