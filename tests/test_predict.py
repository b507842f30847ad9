"""Predictions by the classifier and by heads, for clips and over time, in every format."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
from matplotlib.figure import Figure
from waves import noise

from exhubert_features.checkpoint.saving import write_random_checkpoint
from exhubert_features.cli import main
from exhubert_features.encoder import load_encoder
from exhubert_features.errors import FingerprintMismatch, UsageError
from exhubert_features.heads import HeadConfig, build_head, load_head, save_head
from exhubert_features.report.timeline import clock, draw_timeline
from exhubert_features.spec import CLASSES, ExtractionSpec, arousal_and_valence, marginals


@pytest.fixture
def recordings(tmp_path: Path) -> Path:
    soundfile.write(tmp_path / "short.wav", noise(16_000), 16_000)
    soundfile.write(tmp_path / "long.wav", noise(100_000), 16_000)
    return tmp_path


def write_head(
    folder: Path,
    two_layers: Path,
    spec: ExtractionSpec,
    *,
    kind: str = "linear",
    classes: tuple[str, ...] = ("calm", "loud", "sad"),
    target: str = "arousal",
) -> Path:
    """A head with random weights, trained on nothing, for layers 1 and 2."""
    torch.manual_seed(0)
    pools = () if kind == "attention" else ("mean", "std")
    config = HeadConfig(
        kind=kind,  # type: ignore[arg-type]
        target="emotion" if classes else target,
        classes=classes,
        layers=(1, 2),
        pools=pools,
        width=32,
    )
    head = build_head(config)
    head.fingerprint = load_encoder(two_layers).extract(noise(800), spec=spec).fingerprint
    save_head(head, folder)
    return folder


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    code = main(["predict", *map(str, arguments), "--device", "cpu"])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_marginals() -> None:
    scores = dict(zip(CLASSES, (0.05, 0.1, 0.15, 0.2, 0.22, 0.28), strict=True))
    found = marginals(scores)
    assert found["arousal"] == pytest.approx({"low": 0.3, "high": 0.7})
    assert found["valence"] == pytest.approx({"negative": 0.25, "neutral": 0.32, "positive": 0.43})
    assert marginals({"joy": 0.5, "high-positive": 0.5}) == {}
    assert marginals({}) == {}
    both = arousal_and_valence(scores)
    assert both == pytest.approx({"arousal": 0.7, "valence": 0.43 - 0.25})
    assert arousal_and_valence({"joy": 1.0}) == {}


def test_probabilities_are_the_encoders(two_layers: Path) -> None:
    encoder = load_encoder(two_layers, device="cpu")
    wave = noise(30_000)
    found = encoder.predict(wave).iloc[0]
    wanted = encoder([wave]).probabilities[0].double().numpy()
    np.testing.assert_allclose(found[list(CLASSES)].astype(float), wanted, atol=1e-6)
    assert found["label"] == CLASSES[int(wanted.argmax())]
    assert found["arousal"] == pytest.approx(wanted[3:].sum(), abs=1e-6)
    assert found["valence"] == pytest.approx(wanted[[2, 5]].sum() - wanted[[0, 3]].sum(), abs=1e-6)


def test_table(two_layers: Path, recordings: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, recordings / "short.wav", "--model", two_layers)
    assert code == 0
    lines = out.splitlines()
    assert "short.wav" in lines[0]
    assert [line.split()[0] for line in lines[7:]] == ["arousal", "valence"]
    shown = [float(line.split()[1]) for line in lines[1:7]]
    assert shown == sorted(shown, reverse=True)
    assert sum(shown) == pytest.approx(1, abs=0.01)
    assert {line.split()[0] for line in lines[1:7]} == set(CLASSES)


def test_json_and_csv_say_the_same(
    two_layers: Path, recordings: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (recordings / "bad.wav").write_text("no audio")
    code, out, err = run(capsys, recordings, "--model", two_layers, "--format", "json")
    assert code == 3
    assert "bad.wav" in err
    content = json.loads(out)
    assert [failure["kind"] for failure in content["failures"]] == ["unreadable"]
    long, short = content["predictions"]
    assert (long["id"], long["end"], short["id"]) == ("long.wav", 6.25, "short.wav")
    assert sum(long["probabilities"].values()) == pytest.approx(1)
    code, out, _ = run(capsys, recordings, "--model", two_layers, "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(out)))
    bad, *rows = rows
    assert (bad["id"], bad["error_kind"], bad["label"]) == ("bad.wav", "unreadable", "")
    assert bad["error"] == content["failures"][0]["reason"]
    assert [row["id"] for row in rows] == ["long.wav", "short.wav"]
    for label in CLASSES:
        assert float(rows[0][label]) == pytest.approx(long["probabilities"][label], abs=1e-6)
    assert float(rows[1]["valence_positive"]) == pytest.approx(
        short["valence"]["positive"], abs=1e-6
    )
    assert float(rows[1]["arousal"]) == pytest.approx(short["arousal"]["high"], abs=1e-6)


def test_predictions_as_csv_start_no_formula_unless_asked(
    two_layers: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    soundfile.write(tmp_path / "a.wav", noise(16_000), 16_000)
    (tmp_path / "manifest.csv").write_text("file,id\na.wav,=cmd()\nb.wav,@gone\n")
    command = [tmp_path / "manifest.csv", "--model", two_layers]
    for options, first in ((["--format", "csv"], "'"), (["--format", "csv", "--formulas"], "")):
        code, out, _ = run(capsys, *command, *options)
        ids = {row["id"] for row in csv.DictReader(io.StringIO(out))}
        assert (code, ids) == (3, {f"{first}=cmd()", f"{first}@gone"})
    out = run(capsys, *command, "--format", "json")[1]
    assert json.loads(out)["predictions"][0]["id"] == "=cmd()"


def test_timeline(two_layers: Path, recordings: Path, capsys: pytest.CaptureFixture[str]) -> None:
    long = recordings / "long.wav"
    _, out, _ = run(capsys, long, "--model", two_layers, "--timeline", "--format", "json")
    found = json.loads(out)["predictions"]
    assert [row["start"] for row in found] == [0, 1, 2, 3, 3.25]  # every second, to the end
    _, out, _ = run(capsys, long, "--model", two_layers, "--timeline", "--hop", 3)
    assert len(out.splitlines()) == 1 + 3


def drawn(path: Path, classes: tuple[str, ...], scores: np.ndarray, seconds: float = 4.5) -> Figure:
    """The figure that ``draw_timeline`` writes, with windows every second of the same scores."""
    figures: list[Figure] = []
    save = Figure.savefig
    names = classes or ("t",)
    windows = [
        {"start": start, "end": start + 3, **dict(zip(names, scores, strict=True))}
        for start in np.arange(0, max(seconds - 3, 0) + 0.5, 1.0)
    ]

    def keep(figure: Figure, *arguments: Any, **options: Any) -> None:
        figures.append(figure)
        save(figure, *arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Figure, "savefig", keep)
        draw_timeline(
            path,
            noise(round(seconds * 16_000)),
            windows,
            classes=classes,
            targets=("t",),
            title="take_$1.wav",
        )
    return figures[0]


@pytest.mark.parametrize("classes", [CLASSES, ("joy", "anger"), ()])
@pytest.mark.parametrize("seconds", [0.025, 4.5])
def test_plots(tmp_path: Path, classes: tuple[str, ...], seconds: float) -> None:
    """For the released classes, for others, and for values; a title is not a formula."""
    scores = np.full(len(classes) or 1, 1 / (len(classes) or 1))
    drawn(tmp_path / "a.png", classes, scores, seconds)
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def test_the_plot_shows_arousal(tmp_path: Path) -> None:
    """The same valence with all arousal low, and with all of it high."""
    for scores, high in (((0.2, 0.3, 0.5, 0, 0, 0), 0.0), ((0, 0, 0, 0.2, 0.3, 0.5), 1.0)):
        figure = drawn(tmp_path / "a.png", CLASSES, np.array(scores))
        line = figure.axes[1].get_lines()[0]
        np.testing.assert_allclose(line.get_ydata(), high)


def test_long_recordings_have_no_worm_of_dots_and_a_clock(tmp_path: Path) -> None:
    scores = np.full(6, 1 / 6)
    short = drawn(tmp_path / "a.png", CLASSES, scores, 30.0)
    long = drawn(tmp_path / "a.png", CLASSES, scores, 300.0)
    dots = [[line.get_marker() for line in figure.axes[1].get_lines()] for figure in (short, long)]
    assert "." in dots[0] and "." not in dots[1]
    labels = [text.get_text() for text in long.axes[-1].get_xticklabels()]
    assert "1:00" in labels and "4:30" in labels
    assert long.axes[-1].get_xlabel() == "time (min:s)"


@pytest.mark.parametrize(
    ("seconds", "options", "text"),
    [
        (75, {}, "1:15"),
        (59.96, {}, "1:00"),
        (3675, {"hours": True}, "1:01:15"),
        (1.24, {"tenths": True}, "0:01.2"),
    ],
)
def test_clock(seconds: float, options: dict[str, bool], text: str) -> None:
    assert clock(seconds, **options) == text


def test_plot_of_a_recording(
    two_layers: Path, recordings: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = recordings / "picture.png"
    code, _, _ = run(capsys, recordings / "long.wav", "--model", two_layers, "--plot", picture)
    assert code == 0
    assert picture.stat().st_size > 10_000
    code, _, err = run(capsys, recordings, "--model", two_layers, "--plot", picture)
    assert code == 2
    assert "one recording" in err


@pytest.mark.parametrize("kind", ["linear", "weighted", "attention"])
def test_a_head_gets_the_features_it_was_trained_on(
    two_layers: Path, recordings: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    spec = ExtractionSpec(
        preprocess="masked", window=2.0, hop=1.0, pools=("std", "mean"), frame_layers=(0, 1, 2)
    )
    head_folder = write_head(recordings / "head", two_layers, spec, kind=kind)
    _, out, _ = run(
        capsys,
        recordings / "long.wav",
        "--model",
        two_layers,
        "--head",
        head_folder,
        "--format",
        "json",
    )
    found = json.loads(out)["predictions"][0]
    head = load_head(head_folder)
    wide = load_encoder(two_layers, device="cpu").extract(recordings / "long.wav", spec=spec)
    wanted = head.predict_features(wide, fingerprint=wide.fingerprint)  # type: ignore[arg-type]
    np.testing.assert_allclose(list(found["probabilities"].values()), wanted.scores[0], atol=1e-5)
    assert list(found["probabilities"]) == ["calm", "loud", "sad"]
    assert "arousal" not in found


def test_a_head_over_time(
    two_layers: Path, recordings: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = ExtractionSpec(pools=("mean", "std"))
    head = write_head(recordings / "head", two_layers, spec, classes=())
    long, picture = recordings / "long.wav", recordings / "picture.png"
    options = ["--head", head, "--format", "csv", "--plot", picture]
    _, out, _ = run(capsys, long, "--model", two_layers, *options)
    rows = list(csv.DictReader(io.StringIO(out)))
    assert len(rows) == 5
    assert all(np.isfinite(float(row["arousal"])) for row in rows)
    _, out, _ = run(capsys, long, "--model", two_layers, "--head", head, "--format", "json")
    (found,) = json.loads(out)["predictions"]
    assert found["target"] == "arousal" and np.isfinite(found["value"])
    assert picture.exists()


def test_a_head_of_several_targets(
    two_layers: Path, recordings: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec, targets = ExtractionSpec(pools=("mean", "std")), ("arousal", "valence", "dominance")
    head = write_head(recordings / "head", two_layers, spec, classes=(), target=",".join(targets))
    long, picture = recordings / "long.wav", recordings / "picture.png"
    _, out, _ = run(capsys, long, "--model", two_layers, "--head", head, "--format", "csv")
    (row,) = csv.DictReader(io.StringIO(out))
    _, out, _ = run(capsys, long, "--model", two_layers, "--head", head, "--format", "json")
    (found,) = json.loads(out)["predictions"]
    assert list(found["values"]) == list(targets) and len(set(found["values"].values())) == 3
    for name in targets:
        assert float(row[name]) == pytest.approx(found["values"][name], abs=1e-5)
    code, out, _ = run(capsys, long, "--model", two_layers, "--head", head, "--plot", picture)
    assert code == 0 and picture.exists()
    assert all(f"{name} " in line for line in out.splitlines()[1:] for name in targets)


def test_a_head_of_another_model_is_refused(
    two_layers: Path, recordings: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = write_random_checkpoint(recordings / "other", layers=2, seed=1)
    head = write_head(recordings / "head", two_layers, ExtractionSpec(pools=("mean", "std")))
    code, _, err = run(capsys, recordings / "short.wav", "--model", other, "--head", head)
    assert code == FingerprintMismatch.exit_code
    assert "weights_sha256" in err


def test_wrong_usage(
    two_layers: Path, recordings: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    head = write_head(recordings / "head", two_layers, ExtractionSpec(pools=("mean", "std")))
    short = recordings / "short.wav"
    wrong = [
        (["--head", head, "--window", 2], 2),
        (["--hop", 9], 2),
        (["--hop", 0], 2),
        (["--window", 0], 2),
        (["--channel", -1], 2),
        (["--channel", 1], 3),
        (["--plot", recordings / "picture.xyz"], 2),
        (["--plot", recordings / "nowhere" / "picture.png"], 2),
        (["-o", recordings / "predictions.docx"], 2),
        (["-o", recordings / "nowhere" / "predictions.csv"], 2),
        (["-o", recordings / "short.wav"], 2),
    ]
    for options, expected in wrong:
        code, _, err = run(capsys, short, "--model", two_layers, *options)
        assert (code, bool(err)) == (expected, True), options
    bare = write_random_checkpoint(recordings / "bare", layers=2, classes=())
    code, _, err = run(capsys, short, "--model", bare)
    assert code == UsageError.exit_code
    assert "no classifier" in err


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".json", ".parquet"])
def test_a_file_of_predictions(
    two_layers: Path, recordings: Path, capsys: pytest.CaptureFixture[str], suffix: str
) -> None:
    if suffix == ".parquet":
        pytest.importorskip("pyarrow")
    (recordings / "bad.wav").write_text("no audio")
    path = recordings / f"predictions{suffix}"
    options = [recordings, "--model", two_layers, "-o", path]
    code, out, err = run(capsys, *options)
    assert (code, out) == (3, "")
    assert "2 predictions, 1 failed" in err
    if suffix == ".json":
        ids = [row["id"] for row in json.loads(path.read_text())["predictions"]]
    else:
        read = {".csv": pd.read_csv, ".tsv": pd.read_table, ".parquet": pd.read_parquet}[suffix]
        table = read(path)
        assert table["error"].notna().tolist() == [True, False, False]
        np.testing.assert_allclose(table[list(CLASSES)].sum(axis=1), [0, 1, 1], atol=1e-5)
        ids = table["id"].tolist()[1:]
    assert ids == ["long.wav", "short.wav"]
    before = path.read_bytes()
    code, _, err = run(capsys, *options)
    assert code == 2 and "--force" in err
    assert path.read_bytes() == before
    path.write_text("old")
    assert run(capsys, *options, "--force")[0] == 3
    assert path.read_bytes() == before
    assert not [name for name in recordings.iterdir() if name.name.startswith(".")]


def test_a_timeline_shows_its_progress(
    two_layers: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    soundfile.write(tmp_path / "long.wav", noise(16_000 * 40), 16_000)
    soundfile.write(tmp_path / "short.wav", noise(16_000), 16_000)
    _, _, err = run(capsys, tmp_path / "long.wav", "--model", two_layers, "--timeline")
    assert "1 of 1 clip" in err and "x real time" in err
    _, _, err = run(capsys, tmp_path / "short.wav", "--model", two_layers, "--timeline")
    assert err == ""
