"""``exhubert probe``, ``train`` and ``evaluate`` as typed."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from emotional_store import EMOTIONS, write_emotional_store

from exhubert_features.cli import main
from exhubert_features.heads import load_head
from exhubert_features.spec import DEFAULT_SOURCE
from exhubert_features.store import FeatureStore


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("cli") / "store"
    write_emotional_store(path, clips=9, source=DEFAULT_SOURCE)
    return path


def write_labels(path: Path, store: Path, *, leave_out: int = 0) -> Path:
    """The store's own labels under other names, as a CSV of id, mood and actor."""
    rows = [FeatureStore(store)[name] for name in FeatureStore(store).ids]
    with path.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["id", "mood", "actor"])
        for row in rows[leave_out:]:
            writer.writerow([row.id, row.meta["emotion"], row.meta["speaker"]])
    return path


def test_probe_writes_a_report(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = write_labels(tmp_path / "labels.csv", store)
    command = ["probe", str(store), "--labels", str(labels), "--target", "mood"]
    command += ["--group", "actor", "-o", str(tmp_path / "out")]
    assert main(command) == 0
    printed = capsys.readouterr().out
    assert "UAR" in printed and "layers chosen: 3 in 5 folds" in printed
    assert "72 clips. Chance is 0.333." in printed
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["uar"] > 0.8
    assert len(report["layer_curve"]["layers"]) == 5
    assert report["reproduce"]["command"] == " ".join(["exhubert", *command])
    assert (tmp_path / "out" / "report.html").exists()


@pytest.mark.slow
def test_train_then_evaluate(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    head, other = tmp_path / "head", tmp_path / "other"
    train = ["train", str(store), "--target", "emotion", "--head", "linear", "--json"]
    assert main([*train, "--corpus", "IEMOCAP", "-o", str(head)]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["uar"] > 0.8 and result["setting"]["layer"] == 3
    expected = "weights used here were fine-tuned on EmoSet++, which includes IEMOCAP"
    assert expected in result["warnings"][0]
    assert load_head(head).config.classes == EMOTIONS
    assert (head / "report.json").exists()

    write_emotional_store(other, seed=4, speakers=6, source="/a/copy")
    evaluate = ["evaluate", str(head), str(other), "-o", str(tmp_path / "cross"), "--json"]
    assert main(evaluate) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["uar"] > 0.7 and result["clips"] == 90

    weak = tmp_path / "weak"
    assert main([*train, "--layers", "0", "-o", str(weak)]) == 0
    capsys.readouterr()
    assert main([*evaluate, "--against", str(weak)]) == 0
    result = json.loads(capsys.readouterr().out)
    (comparison,) = result["comparisons"]
    assert comparison["difference"]["low"] > 0 and comparison["p_value"] < 0.05
    assert json.loads((tmp_path / "cross" / "report.json").read_text())["comparisons"]


def test_epochs_that_ended_too_soon_are_named(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["train", str(store), "--target", "emotion", "--head", "mlp", "--layers", "3"]
    assert main([*command, "--epochs", "1", "--folds", "2", "-o", str(tmp_path / "head")]) == 0
    assert "In 2 of 2 folds the last of 1 epochs was the best" in capsys.readouterr().out


def test_regression_from_the_command_line(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["train", str(store), "--target", "arousal", "--task", "regression", "--layers", "3"]
    assert main([*command, "--folds", "3", "-o", str(tmp_path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["ccc"] > 0.8
    assert load_head(tmp_path).config.classes == ()


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        ([], 2, "--target is missing"),
        (["--target", "mood"], 1, "no column 'mood'"),
        (["--target", "emotion", "--group", "actor"], 1, "no column 'actor'"),
        (["--target", "emotion", "--map", "sad"], 2, "OLD=NEW"),
        (["--target", "emotion", "--layers", "99"], 2, "between -5 and 4"),
        (["--target", "emotion", "--pool", "max"], 1, "'max'"),
        (["--target", "emotion", "--split", "random", "--split-column", "speaker"], 2, "exclude"),
        (["--target", "emotion", "--labels", "absent.csv"], 2, "cannot be read"),
    ],
)
def test_mistakes_end_with_a_sentence(
    store: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    code: int,
    message: str,
) -> None:
    assert main(["probe", str(store), *options, "-o", str(tmp_path / "out")]) == code
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_missing_labels_stop_unless_dropped(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = write_labels(tmp_path / "labels.csv", store, leave_out=9)
    command = ["probe", str(store), "--labels", str(labels), "--target", "mood"]
    command += ["--group", "actor", "--layers", "3", "-o", str(tmp_path / "out")]
    assert main(command) == 1
    assert "no label, group or split for 9 clips" in capsys.readouterr().err
    assert main([*command, "--drop-unlabelled", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["clips"] == 63
    assert any(
        warning.startswith("Dropped: no label, group or split for 9 clips")
        for warning in result["warnings"]
    )


def test_random_splits_need_no_speakers_and_are_called_out(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["probe", str(store), "--target", "emotion", "--group", "nobody", "--layers", "3"]
    command += ["--split", "random", "-o", str(tmp_path), "--json"]
    assert main(command) == 0
    warnings = json.loads(capsys.readouterr().out)["warnings"]
    assert any(warning.startswith("Random split") for warning in warnings)
    assert any("No speakers were given" in warning for warning in warnings)


def test_sessions_for_folds_and_speakers_by_themselves(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As with IEMOCAP: the table has sessions and no speakers, which the store knows."""
    opened = FeatureStore(store)
    rows = [opened[name] for name in opened.ids]
    table = tmp_path / "labels.csv"
    session = [f"Ses0{int(row.meta['speaker'][1]) // 2}" for row in rows]
    lines = [
        f"{row.id},{row.meta['emotion']},{own}" for row, own in zip(rows, session, strict=True)
    ]
    table.write_text("\n".join(["id,mood,session", *lines]))
    command = ["probe", str(store), "--labels", str(table), "--target", "mood", "--layers", "3"]
    command += ["--fold-column", "session", "--group", "speaker", "-o", str(tmp_path)]
    assert main(command) == 0
    printed = capsys.readouterr().out
    assert "The 4 folds were given by column session." in printed
    assert "no column speaker: taken from the store's own" in printed
    folds = json.loads((tmp_path / "report.json").read_text())["folds"]
    assert [fold["test_groups"] for fold in folds] == [[f"s{n}", f"s{n + 1}"] for n in (0, 2, 4, 6)]
    lines[0] = lines[0].replace("Ses00", "Ses03")  # s0 in two sessions
    table.write_text("\n".join(["id,mood,session", *lines]))
    assert main(command) == 1
    assert "1 groups stand on both sides of Ses00 (s0)" in capsys.readouterr().err


def test_speakers_as_official_folds(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["probe", str(store), "--target", "emotion", "--split-column", "speaker"]
    assert main([*command, "--layers", "3", "-o", str(tmp_path)]) == 0
    assert "The 8 folds were given." in capsys.readouterr().out
    report = json.loads((tmp_path / "report.json").read_text())
    assert [fold["test_groups"] for fold in report["folds"]] == [[f"s{n}"] for n in range(8)]


@pytest.mark.slow
def test_a_head_is_not_replaced_in_silence(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["train", str(store), "--target", "emotion", "--layers", "3", "-o", str(tmp_path)]
    assert main([*command, "--head", "discriminant"]) == 0
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    capsys.readouterr()
    assert main([*command, "--head", "linear"]) == 2
    assert "already holds a head" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert load_head(tmp_path).config.kind == "discriminant"
    assert main([*command, "--head", "linear", "--force"]) == 0
    assert load_head(tmp_path).config.kind == "linear"


@pytest.mark.slow
def test_the_probes_own_fit_as_a_head_scores_what_the_probe_says(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scores = []
    for command in (["probe"], ["train", "--head", "discriminant"]):
        output = str(tmp_path / command[0])
        options = ["--target", "emotion", "-o", output, "--json"]
        assert main([command[0], str(store), *command[1:], *options]) == 0
        scores.append(json.loads(capsys.readouterr().out)["uar"])
    assert scores[0] == pytest.approx(scores[1], abs=0.03)


def test_how_the_folds_are_dealt_is_seen_by_repeating(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["probe", str(store), "--target", "emotion", "--layers", "2", "-o", str(tmp_path)]
    assert main([*command, "--repeats", "3", "--json"]) == 0
    dealings = json.loads(capsys.readouterr().out)["dealings"]
    assert len(dealings) == 3 and len(set(dealings)) > 1
    assert "Over 3 dealings of the folds" in (tmp_path / "report.html").read_text()
    assert main([*command, "--repeats", "3", "--split", "leave-one-group-out"]) == 2
    assert "in one way only" in capsys.readouterr().err


def test_scores_by_columns_and_test_sets_are_printed(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [FeatureStore(store)[name] for name in FeatureStore(store).ids]
    parts = {"s0": "Test1", "s1": "Test2", "s2": "Development"}
    lines = []
    for row in rows:
        who = row.meta["speaker"]
        lines.append(f"{row.id},{parts.get(who, 'Training')},{'fm'[int(who[1:]) % 2]}")
    joined = tmp_path / "labels.csv"
    joined.write_text(
        "\n".join(["id,part,gender,emotion", *(f"{line},{row.meta['emotion']}"
                   for line, row in zip(lines, rows, strict=True))])
    )  # fmt: skip
    command = ["probe", str(store), "--labels", str(joined), "--target", "emotion", "--layers", "3"]
    command += ["--split-column", "part", "--by", "gender", "-o", str(tmp_path / "out")]
    assert main(command) == 0
    printed = capsys.readouterr().out
    for expected in (
        "test set Test1: UAR",
        "test set Test2: UAR",
        "gender f: UAR",
        "gender m: UAR",
    ):
        assert expected in printed
    assert "no column speaker: taken from the store's own" in printed


def test_baselines_go_through_the_same_folds(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [FeatureStore(store)[name] for name in FeatureStore(store).ids]
    table = tmp_path / "functionals.csv"
    lines = [
        f"{row.file},0 days,{EMOTIONS.index(row.meta['emotion']) + 0.1},{n % 5},{row.id}x"
        for n, row in enumerate(rows)
    ]
    table.write_text("\n".join(["file,start,known,noise,words", *lines]))
    command = ["probe", str(store), "--target", "emotion", "--layers", "0", "-o", str(tmp_path)]
    command += ["--baseline", str(table), "--baseline", "logits", "--json"]
    assert main(command) == 0
    known, logits = json.loads(capsys.readouterr().out)["comparisons"]
    assert known["score"]["value"] == 1.0 and known["difference"]["high"] < 0
    assert logits["score"]["value"] == pytest.approx(1 / 3)  # they are all zero there
    page = (tmp_path / "report.html").read_text()
    assert "functionals.csv (1.000)" in page and "own logits" in page
    table.write_text("\n".join(["file,start,known,noise,words", *lines[1:]]))
    assert main(command) == 1
    assert "has no features for 1 clip (0-0-00)" in capsys.readouterr().err
