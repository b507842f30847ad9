"""The multi-corpus recipe: its parts in small, and whole runs as its table says."""

from __future__ import annotations

import csv
import importlib.util
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import soundfile
import torch
from corpus_trees import build

from exhubert_features import load_encoder
from exhubert_features.checkpoint import write_random_checkpoint
from exhubert_features.corpora import prepare
from exhubert_features.corpora.known import CORPORA
from exhubert_features.errors import CorpusError, UsageError

ROOT = Path(__file__).parents[1]
RECIPE = ROOT / "recipes" / "EmoSetPP" / "finetune"
with (ROOT / "tests" / "recipes" / "EmoSetPP.csv").open(newline="") as stream:
    ROW = next(csv.DictReader(stream))
NAMES = ("emodb", "savee", "subesco")


def module(name: str) -> ModuleType:
    """A file of the recipe, which is no package."""
    sys.path.insert(0, str(RECIPE))
    try:
        spec = importlib.util.spec_from_file_location(f"emoset_{name}", RECIPE / f"{name}.py")
        assert spec and spec.loader
        found = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(found)
        return found
    finally:
        sys.path.remove(str(RECIPE))


@pytest.fixture(scope="module")
def preparing() -> ModuleType:
    return module("emosetpp_prepare")


@pytest.fixture(scope="module")
def training() -> ModuleType:
    return module("train")


@pytest.fixture
def corpora(tmp_path: Path) -> dict[str, str]:
    for name in (*NAMES, "tess", "iemocap"):
        build(name, tmp_path / name)
    return {name: str(tmp_path / name) for name in (*NAMES, "tess", "iemocap")}


def test_parts_share_no_speaker_and_only_six_classes_are_in(
    preparing: ModuleType, corpora: dict[str, str], tmp_path: Path
) -> None:
    preparing.prepare_emosetpp(corpora, tmp_path / "manifests")
    parts = preparing.read_items(corpora, tmp_path / "manifests")
    sides: dict[tuple[str, str], set[str]] = {}
    for part, items in parts.items():
        for item in items.values():
            sides.setdefault((item["corpus"], item["speaker"]), set()).add(part)
            assert item["label6"] in range(6)
            assert Path(item["wav"]).is_file()
    assert all(len(found) == 1 for found in sides.values())
    of = {name: Counter(part for (corpus, _), (part,) in sides.items() if corpus == name)
          for name in corpora}  # fmt: skip
    assert of["emodb"] == {"train": 4, "valid": 2, "test": 4}  # its protocol has no such part
    assert of["tess"] == {"train": 1, "test": 1}  # too few to spare one
    assert of["subesco"] == {"train": 2, "valid": 2, "test": 2}
    labels = {item["label"] for item in parts["train"].values() if item["corpus"] == "iemocap"}
    assert "undecided" not in labels


def test_a_held_out_corpus_is_only_tested_and_alone(
    preparing: ModuleType, corpora: dict[str, str], tmp_path: Path
) -> None:
    preparing.prepare_emosetpp(corpora, tmp_path / "manifests")
    parts = preparing.read_items(corpora, tmp_path / "manifests", "savee")
    assert {item["corpus"] for item in parts["test"].values()} == {"savee"}
    assert len(parts["test"]) == 32  # all of it, also its training part
    for part in ("train", "valid"):
        assert "savee" not in {item["corpus"] for item in parts[part].values()}
        assert "test" not in {item["split"] for item in parts[part].values()}
    with pytest.raises(UsageError, match="held out; expected one of emodb"):
        preparing.read_items(corpora, tmp_path / "manifests", "casia")


def test_a_corpus_of_one_s_own_and_a_folder_in_no_order(
    preparing: ModuleType, tmp_path: Path
) -> None:
    folder = build("emovo", tmp_path / "mine")
    lines = [
        f"{speaker}/{emotion}-{speaker}-b1.wav,{label},{speaker}\n"
        for speaker in ("f1", "m1")
        for emotion, label in (("gio", "joy"), ("rab", "angry"))
    ]
    folder.write("labels.csv", "file,label,speaker\n" + "".join(lines))
    mine = {"mine": str(tmp_path / "mine")}
    with pytest.raises(CorpusError, match="no label: 80"):
        preparing.prepare_emosetpp(mine, tmp_path / "manifests")
    preparing.prepare_emosetpp(mine, tmp_path / "manifests", lenient=True)
    items = json.loads((tmp_path / "manifests" / "mine.json").read_text())
    assert sorted(item["label6"] for item in items.values()) == [3, 3, 5, 5]


@pytest.mark.parametrize("words", [[], ["emodb"], ["emodb:"], [":x"], ["a:x", "a:y"]])
def test_corpora_that_make_no_sense(preparing: ModuleType, words: list[str]) -> None:
    with pytest.raises(UsageError, match="expected NAME:FOLDER"):
        preparing.parse_corpora(words)


def test_corpora_are_folders_by_name(preparing: ModuleType) -> None:
    found = preparing.parse_corpora(["emodb:/data/EMO-DB", "mine:C:/x"])
    assert found == {"emodb": "/data/EMO-DB", "mine": "C:/x"}


def test_corpora_and_classes_are_drawn_in_balance(training: ModuleType) -> None:
    counts = {("a", 0): 90, ("a", 3): 10, ("b", 0): 5, ("b", 1): 5, ("b", 3): 40}
    items = {
        f"{corpus}{label}{n}": {"corpus": corpus, "label6": label}
        for (corpus, label), count in counts.items()
        for n in range(count)
    }
    weights = np.array(training.balanced_weights(items, 1.0))
    shares: Counter[tuple[str, int]] = Counter()
    for item, weight in zip(items.values(), weights / weights.sum(), strict=True):
        shares[item["corpus"], item["label6"]] += weight
    assert {key: round(share, 9) for key, share in shares.items()} == {
        ("a", 0): 0.25,
        ("a", 3): 0.25,
        **dict.fromkeys((("b", 0), ("b", 1), ("b", 3)), round(1 / 6, 9)),
    }
    assert set(training.balanced_weights(items, 0.0)) == {1.0}


def test_three_seconds_of_longer_clips(training: ModuleType) -> None:
    wave = np.arange(100)
    assert training.cut(wave, 30, "first").tolist() == list(range(30))
    assert training.cut(wave, 30, "centre").tolist() == list(range(35, 65))
    torch.manual_seed(0)
    starts = {int(training.cut(wave, 30, "random")[0]) for _ in range(2000)}
    assert starts == set(range(71))
    for crop in ("first", "centre", "random"):
        assert training.cut(wave[:20], 30, crop).tolist() == list(range(20))
    with pytest.raises(UsageError, match="the crop is 'last'"):
        training.make_dataset({}, "last", 3.0)


def test_the_table_is_speechbrain_s() -> None:
    header = (ROOT / "tests/recipes/Generic.csv").read_text().splitlines()[0]
    assert (ROOT / "tests/recipes/EmoSetPP.csv").read_text().splitlines()[0] == header
    for column in ("Script_file", "Hparam_file", "Data_prep_file", "Readme_file"):
        assert (ROOT / ROW[column]).is_file()


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the table's paths lead to; a clip's pitch tells its class."""
    folder = tmp_path_factory.mktemp("workplace")
    (folder / "recipes").symlink_to(ROOT / "recipes")
    samples = folder / "tests" / "tmp"
    for name in NAMES:
        build(name, samples / name)
        found = prepare(CORPORA[name], samples / name)
        for number, clip in enumerate(found.clips):
            mapped = found.classes[clip.label]
            assert mapped and mapped.number is not None
            pitch = 150 * 2**mapped.number * (1 + 0.02 * (number % 5))
            wave = 0.3 * np.sin(2 * np.pi * pitch * np.arange(8000) / 16_000)
            noise = np.random.default_rng(number).normal(0, 0.01, len(wave))
            soundfile.write(samples / name / clip.file, wave + noise, 16_000)
    write_random_checkpoint(samples / "model", layers=4)
    return folder


def command(output: str, *flags: str) -> list[str]:
    fixed = [f"--output_folder={output}", "--device=cpu"]
    given = {flag.split("=")[0]: flag for flag in shlex.split(ROW["test_debug_flags"])}
    given |= {flag.split("=")[0]: flag for flag in [*fixed, *flags]}
    return [ROW["Script_file"], ROW["Hparam_file"], *given.values(), "--noprogressbar"]


def start(workplace: Path, arguments: list[str], *launcher: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*(launcher or (sys.executable,)), *arguments],
        cwd=workplace,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def run(workplace: Path, arguments: list[str], *launcher: str) -> str:
    process = start(workplace, arguments, *launcher)
    try:
        output, _ = process.communicate(timeout=400)
    finally:
        process.kill()
    assert process.returncode == 0, output[-8000:]
    return output


def epochs(folder: Path) -> list[int]:
    log = folder / "train_log.txt"
    lines = log.read_text().splitlines() if log.exists() else []
    return [int(line.split()[1]) for line in lines if re.match(r"epoch: \d+ - train", line)]


@pytest.mark.slow
def test_a_killed_run_goes_on_and_learns(workplace: Path) -> None:
    folder = workplace / "tests/tmp/out"
    process = start(workplace, command("tests/tmp/out"))
    deadline = time.monotonic() + 240
    while max(epochs(folder), default=0) < 2 and time.monotonic() < deadline:
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (folder / "results.json").exists()
    assert "Loading a checkpoint from" in run(workplace, command("tests/tmp/out"))
    assert sorted(set(epochs(folder))) == list(range(1, 9))
    names = re.search(r"file_exists=\[(.*?)\]", ROW["test_debug_checks"])
    assert names
    for name in names[1].split(","):
        assert (folder / name).exists(), name
    line = next(x for x in (folder / "train_log.txt").read_text().splitlines() if "epoch: 8 " in x)
    loss = re.search(r"train loss: ([-+.\de]+)", line)
    assert loss and float(loss[1]) <= 1.3, line
    results = json.loads((folder / "results.json").read_text())
    assert set(results["corpora"]) == set(NAMES)
    assert results["mean_uar"] == pytest.approx(
        np.mean([found["uar"] for found in results["corpora"].values()])
    )
    assert results["mean_uar"] > 0.35, "chance is a quarter or a fifth"
    found = results["corpora"]["emodb"]
    assert found["absent_classes"] == ["low-positive", "high-neutral"]
    assert (found["clips"], found["speakers"]) == (56, 4)
    assert found["interval"][0] <= found["uar"] <= found["interval"][1]
    table = "\n".join(module("results_table").table([folder / "results.json"]))
    assert "| run | held out | emodb | savee | subesco | mean |" in table
    assert f"{100 * found['uar']:.1f} (" in table


@pytest.mark.slow
def test_leave_one_corpus_out_on_two_processes(workplace: Path) -> None:
    arguments = command(
        "tests/tmp/held",
        "--held_out=savee",
        "--distributed_backend=gloo",
        "--precision=bf16",
        "--number_of_epochs=2",
        "--crop=random",
    )
    launcher = (sys.executable, "-m", "torch.distributed.run", "--standalone")
    run(workplace, arguments, *launcher, "--nproc_per_node=2")
    folder = workplace / "tests/tmp/held"
    results = json.loads((folder / "results.json").read_text())
    assert (list(results["corpora"]), results["held_out"]) == (["savee"], "savee")
    assert results["corpora"]["savee"]["clips"] == 32
    parts = json.loads((folder / "parts.json").read_text())
    assert {name.split("/")[0] for name in parts["train"] + parts["valid"]} == {"emodb", "subesco"}
    before = load_encoder(workplace / "tests/tmp/model", device="cpu").model.state_dict()
    after = load_encoder(folder / "model", device="cpu").model.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    frozen = ("feature_extractor", "layers.0.", "layers.2.", "masked_spec_embed")
    assert not [name for name in changed if any(part in name for part in frozen)]
    assert {"classifier.weight", "projector.weight"} <= changed
    assert any("layers.1." in name for name in changed)
