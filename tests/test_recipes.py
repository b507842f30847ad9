"""The recipes, run from a shell as SpeechBrain's own recipe tests do, killed and resumed."""

from __future__ import annotations

import csv
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest
import soundfile
import torch
from speechbrain.inference.interfaces import foreign_class

from exhubert_features import FeatureStore, load_encoder
from exhubert_features.checkpoint import write_random_checkpoint
from exhubert_features.cli import main
from exhubert_features.heads import load_head
from exhubert_features.synthetic import EMOTIONS, write_corpus

ROOT = Path(__file__).parents[1]
TABLE = ROOT / "tests" / "recipes" / "Generic.csv"
COLUMNS = (
    "Task,Dataset,Script_file,Hparam_file,Data_prep_file,Readme_file,Result_url,HF_repo,"
    "test_debug_flags,test_debug_checks,performance"
)
with TABLE.open(newline="") as stream:
    ROWS = {
        row["Hparam_file"].removeprefix("recipes/Generic/"): row for row in csv.DictReader(stream)
    }

OVERLAYS = ("mlp", "weighted", "attention")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the table's paths lead to: a small corpus, a tiny model and its features."""
    folder = tmp_path_factory.mktemp("workplace")
    (folder / "recipes").symlink_to(ROOT / "recipes")
    samples = folder / "tests" / "tmp"
    samples.mkdir(parents=True)
    manifest = write_corpus(samples / "corpus", speakers=6, sentences=2)
    model = write_random_checkpoint(samples / "model", layers=4)
    load_encoder(model).extract(manifest, frame_layers=2).write(samples / "features")
    return folder


def command(row: dict[str, str], output: str, *flags: str) -> list[str]:
    """The shell line of SpeechBrain's recipe tests; a flag here replaces one of the table's."""
    fixed = [f"--output_folder={output}", "--device=cpu"]
    given = {flag.split("=")[0]: flag for flag in shlex.split(row["test_debug_flags"])}
    given |= {flag.split("=")[0]: flag for flag in [*fixed, *flags]}
    return [row["Script_file"], row["Hparam_file"], *given.values(), "--noprogressbar"]


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def run(workplace: Path, arguments: list[str], *launcher: str, code: int = 0) -> str:
    done = subprocess.run(
        [*(launcher or (sys.executable,)), *arguments],
        cwd=workplace,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == code, done.stdout[-3000:] + done.stderr[-8000:]
    return done.stdout + done.stderr


def epochs(folder: Path) -> list[int]:
    log = folder / "train_log.txt"
    lines = log.read_text().splitlines() if log.exists() else []
    return [int(line.split()[1]) for line in lines if re.match(r"epoch: \d+ - train", line)]


def check(row: dict[str, str], folder: Path) -> None:
    """The checks of the table, as SpeechBrain's recipe tests read them."""
    files = re.search(r"file_exists=\[(.*?)\]", row["test_debug_checks"])
    assert files
    for name in files[1].split(","):
        assert (folder / name).exists(), name
    wanted = re.search(r"performance_check=\[(.*?)\]", row["test_debug_checks"])
    if wanted:
        log, variable, threshold, epoch = (part.strip() for part in wanted[1].split(","))
        line = next(x for x in (folder / log).read_text().splitlines() if epoch + " " in x)
        value = re.search(rf"{variable}: ([-+.\de]+)", line)
        assert value and float(value[1]) <= float(threshold.removeprefix("<=")), line


def test_table_is_speechbrains_and_covers_every_recipe() -> None:
    assert TABLE.read_text().splitlines()[0] == COLUMNS
    hparams = {path.relative_to(ROOT / "recipes/Generic").as_posix() for path in
               ROOT.glob("recipes/Generic/*/hparams/*.yaml")}  # fmt: skip
    assert set(ROWS) == hparams
    for row in ROWS.values():
        for column in ("Script_file", "Hparam_file", "Readme_file"):
            assert (ROOT / row[column]).is_file(), row[column]


@pytest.fixture(scope="module")
def trained_heads(workplace: Path) -> None:
    """Every overlay's run; two at a time, for most of a run is one core's imports."""
    commands = [
        command(ROWS[f"emotion_head/hparams/{variant}.yaml"], f"tests/tmp/{variant}")
        for variant in OVERLAYS
    ]
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(partial(run, workplace), commands))


@pytest.mark.usefixtures("trained_heads")
@pytest.mark.parametrize("variant", OVERLAYS)
def test_head_recipe_runs_as_the_table_says(workplace: Path, variant: str) -> None:
    check(ROWS[f"emotion_head/hparams/{variant}.yaml"], workplace / "tests/tmp" / variant)
    store = FeatureStore(workplace / "tests/tmp/features")
    head = load_head(workplace / "tests/tmp" / variant / "head")
    rows = (store[name] for name in store)
    predictions = head.predict_features(rows, fingerprint=store.fingerprint)
    truth = [Path(name).name.split("_")[0] for name in predictions.ids]
    right = sum(a == b for a, b in zip(predictions.labels, truth, strict=True))
    assert right > 0.5 * len(truth), "chance is a quarter"
    clip = workplace / "tests/tmp/corpus/speaker01/anger_01.wav"
    model = ["--model", str(workplace / "tests/tmp/model")]
    head_option = ["--head", str(workplace / "tests/tmp" / variant / "head")]
    assert main(["predict", str(clip), *head_option, *model]) == 0


def test_extraction_names_failures_and_goes_on_where_it_stopped(workplace: Path) -> None:
    row = ROWS["extract/hparams/extract.yaml"]
    corpus, folder = workplace / "tests/tmp/corpus", workplace / "tests/tmp/half"
    soundfile.write(corpus / "short.wav", [0.0] * 100, 16_000)
    lines = (corpus / "manifest.csv").read_text().splitlines()
    lines.insert(1, "short.wav,short,speaker01,anger")
    (corpus / "some.csv").write_text("\n".join(lines[:10]))
    (corpus / "all.csv").write_text("\n".join(lines))
    some, everything = (
        command(row, "tests/tmp/half", f"--manifests=[tests/tmp/corpus/{name}.csv]")
        for name in ("some", "all")
    )
    run(workplace, some, code=3)  # a run with failures is no success
    assert "100 samples" in (folder / "log.txt").read_text()
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*.h5")}
    assert before
    shutil.copy(corpus / "speaker01/anger_01.wav", corpus / "short.wav")
    run(workplace, everything)
    check(row, folder)
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert (folder / "extract_log.txt").read_text().split("\n")[:2] == [
        "rows: 8, failed: 1",
        "rows: 49, failed: 0",
    ]


@pytest.mark.parametrize(
    "name", ["emotion_head/hparams/linear.yaml", "finetune/hparams/train.yaml"]
)
def test_killed_training_resumes(workplace: Path, name: str) -> None:
    output = "tests/tmp/killed_" + name.split("/")[0]
    folder = workplace / output
    process = subprocess.Popen(
        [sys.executable, *command(ROWS[name], output, "--number_of_epochs=1000")],
        cwd=workplace,
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 120
    while max(epochs(folder), default=0) < 2 and time.monotonic() < deadline:
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    reached = max(epochs(folder))
    planned = re.search(r"number_of_epochs=(\d+)", ROWS[name]["test_debug_flags"])
    assert planned
    last = max(reached + 2, int(planned[1]))
    log = run(workplace, command(ROWS[name], output, f"--number_of_epochs={last}"))
    assert "Loading a checkpoint from" in log
    check(ROWS[name], folder)
    done = epochs(folder)
    assert sorted(set(done)) == list(range(1, last + 1))
    # Only the epoch in which it died may stand there twice.
    assert len(done) - len(set(done)) <= 1
    assert "epoch loaded" in (folder / "train_log.txt").read_text().splitlines()[-1]


@pytest.fixture(scope="module")
def fine_tuned(workplace: Path) -> Path:
    """Two processes, bfloat16, gradient accumulation; the folder it ended in."""
    row = ROWS["finetune/hparams/train.yaml"]
    arguments = command(row, "tests/tmp/ddp", "--distributed_backend=gloo", "--precision=bf16")
    launcher = (sys.executable, "-m", "torch.distributed.run", "--standalone")
    run(workplace, arguments, *launcher, "--nproc_per_node=2")
    check(row, workplace / "tests/tmp/ddp")
    return workplace / "tests/tmp/ddp" / "model"


def test_fine_tuning_leaves_the_original_half_alone(workplace: Path, fine_tuned: Path) -> None:
    before = load_encoder(workplace / "tests/tmp/model", device="cpu").model.state_dict()
    after = load_encoder(fine_tuned, device="cpu").model.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after.get(name))}
    frozen = ("feature_extractor", "layers.0.", "layers.2.", "masked_spec_embed")
    assert not [name for name in changed if any(part in name for part in frozen)]
    assert any("layers.1." in name for name in changed)
    assert any("layers.3." in name for name in changed)
    assert "classifier.weight" in changed


def test_fine_tuned_model_is_usable_at_once(workplace: Path, fine_tuned: Path) -> None:
    clip = workplace / "tests/tmp/corpus/speaker01/anger_01.wav"
    classifier = foreign_class(source=str(fine_tuned), savedir=str(workplace / "savedir"))
    probabilities, score, index, label = classifier.classify_file(str(clip))
    encoder = load_encoder(fine_tuned, device="cpu")
    assert encoder.classes == ("anger", "happiness", "neutral", "sadness")
    wave = torch.from_numpy(soundfile.read(clip, dtype="float32")[0])
    expected = encoder(wave, preprocess="card").probabilities
    torch.testing.assert_close(probabilities, expected, rtol=0, atol=1e-5)
    assert label == [encoder.classes[int(index)]] and score == probabilities.max()
    features = workplace / "tests/tmp/features_of_fine_tuned"
    assert main(["extract", str(clip), "--model", str(fine_tuned), "-o", str(features)]) == 0
    assert int(FeatureStore(features).logits().argmax()) == int(index)


def test_interface_of_a_fine_tuned_model_in_batches(fine_tuned: Path) -> None:
    classifier = foreign_class(source=str(fine_tuned), savedir=None)
    wave = 0.1 * torch.randn(16_000, generator=torch.Generator().manual_seed(0))
    half = wave[:8_000]
    batch = torch.stack([wave, torch.cat([half, torch.zeros(8_000)])])
    lengths = torch.tensor([1.0, 0.5])
    together = classifier(batch, lengths)[0]
    alone = torch.cat([classifier.classify_batch(clip)[0] for clip in (wave, half)])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-5)
    embeddings = torch.cat([classifier.encode_batch(clip) for clip in (wave, half)])
    assert embeddings.shape == (2, 32)
    torch.testing.assert_close(
        classifier.encode_batch(batch, lengths), embeddings, rtol=0, atol=1e-5
    )


def test_a_moved_model_still_works(workplace: Path, fine_tuned: Path) -> None:
    moved = fine_tuned.rename(fine_tuned.with_name("moved"))
    try:
        linked = str(workplace / "savedir_of_moved")
        for savedir in (None, linked):
            assert foreign_class(source=str(moved), savedir=savedir).classes == tuple(EMOTIONS)
    finally:
        moved.rename(fine_tuned)
