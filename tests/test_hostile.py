"""Files that once broke something, or might: each is read, or refused by a named error, soon."""

from __future__ import annotations

import os
import shutil
import signal
import time
from pathlib import Path

import pytest
from fuzz import READERS, WRITTEN

from exhubert_features.checkpoint import write_random_checkpoint
from exhubert_features.errors import ExHuBERTError

HOSTILE = Path(__file__).parent / "data" / "hostile"
SECONDS = 20.0
# Files that a store, a head or a checkpoint is read with; the others are read by themselves.
SIDECARS = {"json": ("store.json", "state.json", "journal.jsonl"), "heads": ("head.json",)}


def corpus(kind: str) -> list[Path]:
    return sorted((HOSTILE / kind).iterdir())


def refuses(reader: str, path: Path) -> bool:
    """Whether a file is refused; anything but a named error is raised."""
    begun = time.process_time()  # a busy machine is slow with all
    try:
        READERS[reader](path)
    except ExHuBERTError as error:
        assert str(error)
        return True
    finally:
        assert time.process_time() - begun < SECONDS, path
    return False


@pytest.mark.parametrize("kind", ["audio", "manifests", "packed"])
def test_files_that_stand_alone(kind: str) -> None:
    refused = [refuses(kind, path) for path in corpus(kind)]
    assert sum(refused) > len(refused) / 4
    if kind == "packed":
        assert all(refused)


@pytest.mark.parametrize("name", SIDECARS["json"])
def test_json_beside_a_store(tmp_path: Path, name: str) -> None:
    for number, path in enumerate(corpus("json")):
        store = tmp_path / str(number)
        shutil.copytree(WRITTEN / "store", store)
        content = path.read_bytes()
        (store / name).write_bytes(content + b"\n" * (name == "journal.jsonl"))
        assert refuses("stores", store), path


@pytest.mark.parametrize("path", corpus("json"), ids=lambda path: path.name)
def test_json_for_a_report(tmp_path: Path, path: Path) -> None:
    shutil.copy(path, tmp_path / "report.json")
    assert refuses("reports", tmp_path)


def test_heads(tmp_path: Path) -> None:
    for number, path in enumerate(corpus("heads")):
        head = tmp_path / str(number)
        shutil.copytree(WRITTEN / "heads" / "linear", head)
        if path.is_dir():
            shutil.copytree(path, head, dirs_exist_ok=True)
        else:
            shutil.copy(path, head / "head.json")
        assert refuses("heads", head), path


def test_checkpoints(tmp_path: Path) -> None:
    model = write_random_checkpoint(tmp_path / "model", layers=2)
    for number, path in enumerate([*corpus("checkpoints"), *HOSTILE.glob("*.bin")]):
        folder = tmp_path / str(number)
        shutil.copytree(model, folder)
        if path.suffix == ".bin":
            (folder / "model.safetensors").unlink()
        names = {".json": "config.json", ".bin": "pytorch_model.bin"}
        shutil.copy(path, folder / names.get(path.suffix, "model.safetensors"))
        assert refuses("checkpoints", folder), path


@pytest.mark.parametrize("name", ["pipe", "endless"])
@pytest.mark.parametrize("reader", ["manifests", "heads", "weights", "checkpoints", "packed"])
def test_pipes_and_devices_are_no_files(tmp_path: Path, reader: str, name: str) -> None:
    """They hang, or fill the memory: within seconds somebody has to say so."""
    path = {"manifests": tmp_path / "table.csv", "packed": tmp_path / "packed.h5"}.get(reader)
    if reader in ("heads", "weights"):
        shutil.copytree(WRITTEN / "heads" / "linear", tmp_path / "head")
        pattern = "*.json" if reader == "heads" else "*.safetensors"
        (path,) = (tmp_path / "head").glob(pattern)
    elif reader == "checkpoints":
        path = write_random_checkpoint(tmp_path / "model", layers=2) / "model.safetensors"
    assert path
    path.unlink(missing_ok=True)
    if name == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to("/dev/zero")
    inside = reader in ("heads", "weights", "checkpoints")
    signal.alarm(60)  # ends the test run, which else would hang
    try:
        assert refuses("heads" if reader == "weights" else reader, path.parent if inside else path)
    finally:
        signal.alarm(0)
