"""What the README says is noticed when audio changes, and what is not."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import soundfile

from exhubert_features import FeatureStore
from exhubert_features.checkpoint import write_random_checkpoint
from exhubert_features.encoder import load_encoder
from exhubert_features.store import WriteProgress


def write(path: Path, seed: int) -> None:
    noise = np.random.default_rng(seed).normal(0, 0.1, 8_000).astype(np.float32)
    path.parent.mkdir(exist_ok=True)
    soundfile.write(path, noise, 16_000, "PCM_16")


def test_other_audio_of_the_same_size_and_time_is_noticed(tmp_path: Path) -> None:
    encoder = load_encoder(write_random_checkpoint(tmp_path / "model", layers=2), device="cpu")
    path = tmp_path / "audio" / "a.wav"
    write(path, seed=0)
    before = path.stat()
    encoder.extract(tmp_path / "audio").write(tmp_path / "store")
    first = FeatureStore(tmp_path / "store")["a.wav"]
    write(path, seed=1)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    after = path.stat()
    assert (after.st_size, after.st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    extraction = encoder.extract(tmp_path / "audio")
    assert extraction.outlook(tmp_path / "store").present == 1  # by its name
    store = extraction.write(tmp_path / "store")
    assert len(store) == 1
    assert not np.array_equal(store["a.wav"].pooled, first.pooled)


def test_a_corpus_that_has_moved_is_not_done_again_and_keeps_its_paths(tmp_path: Path) -> None:
    encoder = load_encoder(write_random_checkpoint(tmp_path / "model", layers=2), device="cpu")
    write(tmp_path / "old" / "a.wav", seed=0)
    encoder.extract(tmp_path / "old").write(tmp_path / "store")
    (tmp_path / "old").rename(tmp_path / "new")
    extraction = encoder.extract(tmp_path / "new")
    states: list[WriteProgress] = []
    store = extraction.write(tmp_path / "store", on_progress=states.append)
    assert [(state.present, state.stored) for state in states] == [(1, 0)]
    assert store.column("file") == [str(tmp_path / "old" / "a.wav")]
