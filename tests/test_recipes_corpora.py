"""Recipes of single corpora, from their folder to a report, and the matrix across corpora."""

from __future__ import annotations

import csv
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from corpus_trees import build

from exhubert_features.checkpoint import write_random_checkpoint
from exhubert_features.cli import main
from exhubert_features.corpora import prepare
from exhubert_features.corpora.known import CORPORA

ROOT = Path(__file__).parents[1]
SINGLE = {
    "EMODB": "emodb",
    "RAVDESS": "ravdess",
    "CREMA-D": "crema-d",
    "IEMOCAP": "iemocap",
    "MELD": "meld",
}
LABELS = (
    *("anger", "boredom", "calm", "disgust", "excitement", "fear", "frustration", "happiness"),
    *("neutral", "other", "sadness", "surprise", "undecided"),
)
PITCHES = {label: 100 * 1.35**number for number, label in enumerate(LABELS)}


def rows(dataset: str) -> list[dict[str, str]]:
    with (ROOT / "tests" / "recipes" / f"{dataset}.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


@pytest.mark.parametrize("dataset", [*SINGLE, "EmoSetPP"])
def test_tables_are_speechbrain_s_and_cover_every_yaml(dataset: str) -> None:
    header = (ROOT / "tests/recipes/Generic.csv").read_text().splitlines()[0]
    assert (ROOT / f"tests/recipes/{dataset}.csv").read_text().splitlines()[0] == header
    found = {row["Hparam_file"] for row in rows(dataset)}
    yamls = (ROOT / "recipes" / dataset).glob("*/hparams/*.yaml")
    assert found == {path.relative_to(ROOT).as_posix() for path in yamls}
    for row in rows(dataset):
        for column in ("Script_file", "Hparam_file", "Data_prep_file", "Readme_file"):
            assert not row[column] or (ROOT / row[column]).is_file(), row[column]


@pytest.mark.parametrize("dataset", SINGLE)
def test_readmes_say_the_commands_that_run(dataset: str) -> None:
    text = (ROOT / "recipes" / dataset / "emotion_head" / "README.md").read_text()
    assert "from_corpus.py hparams/linear.yaml --data_folder /data/" in text
    for stage in ("prepare", "extract", "probe", "train"):
        assert f"\nexhubert {stage} " in text


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the tables' paths lead to; a clip's pitch and loudness tell its label."""
    folder = tmp_path_factory.mktemp("workplace")
    (folder / "recipes").symlink_to(ROOT / "recipes")
    samples = folder / "tests" / "tmp"
    write_random_checkpoint(samples / "model", layers=4)
    for salt, name in enumerate((*SINGLE.values(), "savee", "esd")):
        build(name, samples / name)
        found = prepare(CORPORA[name], samples / name)
        for file in found.reading.repeated:  # they would no longer be equal
            (samples / name / file).unlink()
        for number, clip in enumerate(found.clips):
            generator = np.random.default_rng([salt, number])
            pitch = PITCHES[clip.label] * generator.uniform(0.97, 1.03)
            wave = 0.3 * np.sin(2 * np.pi * pitch * np.arange(4000) / 16_000)
            wave += generator.normal(0, 0.01, len(wave))
            soundfile.write(samples / name / clip.file, wave, 16_000)
    return folder


def run(workplace: Path, row: dict[str, str], output: str) -> str:
    flags = [*shlex.split(row["test_debug_flags"]), f"--output_folder={output}"]
    done = subprocess.run(
        [sys.executable, row["Script_file"], row["Hparam_file"], *flags],
        cwd=workplace,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-5000:]
    names = re.search(r"file_exists=\[(.*?)\]", row["test_debug_checks"])
    assert names
    for name in names[1].split(","):
        assert (workplace / output / name).exists(), name
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("dataset", SINGLE)
def test_from_the_folder_to_the_report(workplace: Path, dataset: str) -> None:
    (row,) = rows(dataset)
    output = f"tests/tmp/out_{dataset}"
    said = run(workplace, row, output)
    assert said.count("$ exhubert ") == 3
    report = json.loads((workplace / output / "head" / "report.json").read_text())
    folds = {"EMODB": 10, "RAVDESS": 6, "CREMA-D": 5, "IEMOCAP": 5, "MELD": 1}
    assert len(report["folds"]) == folds[dataset]
    if dataset == "IEMOCAP":
        assert report["classes"] == ["anger", "happiness", "neutral", "sadness"]
        groups = [set(fold["test_groups"]) for fold in report["folds"]]
        assert {"Ses03F", "Ses03M"} in groups
    assert report["uar"] > 1.5 * report["chance"]
    assert any("EmoSet++" in warning for warning in report["warnings"])
    if dataset == "MELD":
        assert any("stand in training and in test" in warning for warning in report["warnings"])
        before = (workplace / output / "features" / "index.npz").stat().st_mtime_ns
        run(workplace, row, output)  # again: nothing is extracted anew, nothing refuses
        assert (workplace / output / "features" / "index.npz").stat().st_mtime_ns == before


@pytest.mark.slow
def test_the_matrix_across_corpora(workplace: Path) -> None:
    samples = workplace / "tests/tmp"
    for name in ("emodb", "savee", "esd"):
        manifest = str(samples / f"{name}.csv")
        root = str(samples / name)
        assert main(["prepare", name, root, "-o", manifest]) == 0
        features = str(samples / f"features_{name}")
        words = ["--data-root", root, "--model", str(samples / "model"), "--device", "cpu"]
        assert main(["extract", manifest, *words, "-o", features]) == 0
    row = rows("EmoSetPP")[1]
    said = run(workplace, row, "tests/tmp/matrix")
    assert "| trained on | on emodb | on savee | on esd |" in said
    cells = json.loads((samples / "matrix" / "matrix.json").read_text())
    assert len(cells) == 9
    by_pair = {(found["train"], found["test"]): found for found in cells}
    assert by_pair["emodb", "emodb"]["classes"] == 6  # boredom was taken out
    found = by_pair["esd", "savee"]
    assert (found["classes"], found["left_out"]) == (5, "disgust fear")
    assert found["clips"] == 24
    for found in cells:
        assert found["low"] <= found["uar"] <= found["high"]
        assert found["uar"] > 1.3 * found["chance"]
    table = list(csv.DictReader((samples / "matrix" / "matrix.csv").open(newline="")))
    assert [(line["train"], line["test"]) for line in table] == [*by_pair]
