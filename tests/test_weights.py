"""Weight files: hostile and damaged ones are refused, and hashes are counted once."""

from __future__ import annotations

import hashlib
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from checkpoint_files import as_legacy, as_safetensors, as_shards, rewrite, stored
from safetensors.torch import load_file, save_file

from exhubert_features.checkpoint import find_checkpoint, load_model, weights, weights_sha256
from exhubert_features.errors import CheckpointError

HOSTILE = Path(__file__).parent / "data" / "hostile"
TRACE = "exhubert-was-here"


@pytest.mark.parametrize("name", ["zip.bin", "legacy.bin", "pickle.bin"])
def test_hostile_pickle_is_refused_and_not_run(
    name: str, checkpoint_copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    if name == "pickle.bin":
        with (HOSTILE / name).open("rb") as stream:
            pickle.load(stream)
    else:
        torch.load(HOSTILE / name, weights_only=False)
    (tmp_path / TRACE).unlink()  # it was there: the file is hostile indeed
    shutil.copy(HOSTILE / name, checkpoint_copy / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"model\.bin is a pickle that would run .*open"):
        load_model(checkpoint_copy)
    assert not (tmp_path / TRACE).exists()


@pytest.mark.parametrize("format_", ["safetensors", "bin"])
@pytest.mark.parametrize("part", [0.0, 0.001, 0.3, 0.9, 0.9999])
def test_truncated_file(format_: str, part: float, checkpoint_copy: Path) -> None:
    if format_ == "safetensors":
        as_safetensors(checkpoint_copy, stored(checkpoint_copy))
    file = find_checkpoint(checkpoint_copy).weight_files[0]
    file.write_bytes(file.read_bytes()[: int(part * file.stat().st_size)])
    with pytest.raises(CheckpointError, match=f"{file.name}.*copy it again"):
        load_model(checkpoint_copy)


def test_file_that_may_not_be_read(checkpoint_copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:  # for the superuser may read everything
        raise PermissionError(13, "Permission denied")

    checkpoint = find_checkpoint(checkpoint_copy)
    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(CheckpointError, match=r"model\.bin cannot be read \(Permission denied\)"):
        weights.read_weights(checkpoint.weight_files)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol:UserWarning")
def test_damaged_bytes_never_escape_as_other_errors(checkpoint_copy: Path) -> None:
    """Whatever a legacy pickle or a header holds, the refusal is ours."""
    generator = torch.Generator().manual_seed(0)
    file = checkpoint_copy / "pytorch_model.bin"
    as_legacy(checkpoint_copy, {"w": torch.ones(3)})
    legacy = file.read_bytes()
    for _ in range(300):
        damaged = bytearray(legacy)
        for place in torch.randint(len(damaged), (3,), generator=generator).tolist():
            damaged[place] = int(torch.randint(256, (), generator=generator))
        file.write_bytes(damaged)
        with pytest.raises(CheckpointError):
            load_model(checkpoint_copy)


def test_safetensors_header_that_promises_too_much(checkpoint_copy: Path) -> None:
    (checkpoint_copy / "model.safetensors").write_bytes((1 << 60).to_bytes(8, "little") + b"{}")
    with pytest.raises(CheckpointError, match=r"model\.safetensors cannot be read as safetensors"):
        load_model(checkpoint_copy)


class TestHash:
    @pytest.fixture(autouse=True)
    def cache(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        return tmp_path / "cache"

    def test_is_of_the_bytes_and_remembered(
        self, checkpoint_copy: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        file = checkpoint_copy / "pytorch_model.bin"
        expected = hashlib.sha256(file.read_bytes()).hexdigest()
        assert weights_sha256(find_checkpoint(checkpoint_copy)) == expected
        assert [path.suffix for path in cache.rglob("*") if path.is_file()] == [".json"]
        with monkeypatch.context() as patch:
            patch.setattr(weights.hashlib, "sha256", _Forbidden(hashlib.sha256))
            assert weights_sha256(find_checkpoint(checkpoint_copy)) == expected

    def test_follows_a_changed_file(self, checkpoint_copy: Path) -> None:
        first = weights_sha256(find_checkpoint(checkpoint_copy))
        rewrite(checkpoint_copy, lambda state: state["projector.bias"].add_(1))
        file = checkpoint_copy / "pytorch_model.bin"
        second = weights_sha256(find_checkpoint(checkpoint_copy))
        assert second == hashlib.sha256(file.read_bytes()).hexdigest() != first

    def test_sees_other_weights_whose_size_and_times_were_kept(self, checkpoint_copy: Path) -> None:
        file = checkpoint_copy / "pytorch_model.bin"
        first, status = weights_sha256(find_checkpoint(checkpoint_copy)), file.stat()
        content = bytearray(file.read_bytes())
        content[-100] ^= 1
        file.write_bytes(content)
        os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
        assert (file.stat().st_size, file.stat().st_mtime_ns) == (
            status.st_size,
            status.st_mtime_ns,
        )
        assert weights_sha256(find_checkpoint(checkpoint_copy)) != first

    def test_works_without_a_place_to_remember(self, checkpoint_copy: Path, cache: Path) -> None:
        cache.write_text("a file where the folder should be")
        expected = hashlib.sha256((checkpoint_copy / "pytorch_model.bin").read_bytes()).hexdigest()
        assert weights_sha256(find_checkpoint(checkpoint_copy)) == expected

    @pytest.mark.parametrize("content", ["", "[]", '{"path": 1}', "\xff"])
    def test_ignores_a_damaged_memory(
        self, content: str, checkpoint_copy: Path, cache: Path
    ) -> None:
        expected = weights_sha256(find_checkpoint(checkpoint_copy))
        next(cache.rglob("*.json")).write_text(content)
        assert weights_sha256(find_checkpoint(checkpoint_copy)) == expected

    def test_of_shards_covers_each(self, checkpoint_copy: Path) -> None:
        as_shards("safetensors")(checkpoint_copy, stored(checkpoint_copy))
        first = weights_sha256(find_checkpoint(checkpoint_copy))
        assert first == weights_sha256(find_checkpoint(checkpoint_copy))
        shard = checkpoint_copy / "model-00002-of-00003.safetensors"
        changed = load_file(shard)
        save_file({key: tensor + 1 for key, tensor in changed.items()}, shard)
        assert weights_sha256(find_checkpoint(checkpoint_copy)) != first


class _Forbidden:
    """sha256 that still names the memory file but refuses to count a weights file."""

    def __init__(self, real: Callable[..., object]) -> None:
        self.real = real

    def __call__(self, data: bytes = b"") -> object:
        assert data, "the weights were hashed again"
        return self.real(data)


def test_what_the_system_refuses_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import safetensors.torch

    def refused(file: Path) -> None:
        raise RuntimeError("unable to open file: Too many open files (24)")

    monkeypatch.setattr(safetensors.torch, "load_file", refused)
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"12345678{}")
    with pytest.raises(CheckpointError, match=r"Too many open files.*ulimit"):
        weights.read_weights([path])
