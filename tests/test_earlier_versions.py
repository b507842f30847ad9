"""Stores and heads written by earlier versions open, verify, read bit-equal and continue."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from exhubert_features import FeatureStore, load_head
from exhubert_features.cli import main
from exhubert_features.store import pack, verify

WRITTEN = Path(__file__).parent / "data" / "written_by_0.1.0"
HEADS = ("attention", "linear", "mlp", "value", "weighted")


@pytest.fixture
def written(tmp_path: Path) -> Path:
    """A copy that may be written to."""
    return Path(shutil.copytree(WRITTEN, tmp_path / "written"))


def check_equal(store: FeatureStore) -> None:
    """The clips of 0.1.0 have, to the bit, the numbers of 0.1.0."""
    with np.load(WRITTEN / "expected_store.npz") as expected:
        names = {key.split("|")[0] for key in expected.files}
        assert names <= set(store.ids)
        for key in expected.files:
            name, part = key.split("|")
            found = getattr(store[name], part)
            assert found.dtype == expected[key].dtype
            assert found.tobytes() == expected[key].tobytes()
            assert found.shape == expected[key].shape


@pytest.mark.parametrize("name", ["store", "packed.h5", "emotional"])
def test_stores_verify(written: Path, name: str) -> None:
    found = verify(written / name, deep=True)
    assert found.problems == ()
    assert found.rows == len(FeatureStore(written / name)) > 0


@pytest.mark.parametrize("name", ["store", "packed.h5"])
@pytest.mark.parametrize("index", ["kept", "deleted"])
def test_stores_read_bit_equal(written: Path, name: str, index: str) -> None:
    if index == "deleted":
        (written / "store" / "index.npz").unlink()
    store = FeatureStore(written / name)
    check_equal(store)
    assert store.pools == ("mean", "std")
    assert store.frame_layers == (48,)
    assert store.classes[0] == "low-negative"
    (failure,) = store.failures
    assert (failure.id, failure.kind, failure.attempts) == ("audio/broken.wav", "unreadable", 1)
    for layer in store.layers:
        rows = np.stack([store[row].pooled[store.layers.index(layer), 1] for row in store])
        assert store.matrix(layer=layer, pool="std").tobytes() == rows.tobytes()


def test_a_store_continues(
    written: Path,
    tiny_checkpoint: Path,
    capsys: pytest.CaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(written)
    options = ["--layers", "0,24,48", "--pools", "mean,std", "--frame-layers", "48"]
    audio = sorted(map(str, Path("audio").iterdir()))
    command = ["extract", *audio, "-o", "store", "--model", str(tiny_checkpoint), *options]
    assert main([*command, "--device", "cpu"]) == 3, "broken.wav is still broken"
    assert "Plan: 1 clip," in capsys.readouterr().out
    assert verify(Path("store"), deep=True).problems == ()
    store = FeatureStore("store")
    assert sorted(store.ids) == [f"audio/clip_{number}.wav" for number in range(3)]
    check_equal(store)
    assert [failure.attempts for failure in store.failures] == [2]
    check_equal(pack("store", "again.h5"))


@pytest.mark.parametrize("kind", HEADS)
def test_heads_score_as_before(written: Path, kind: str) -> None:
    head, store = load_head(written / "heads" / kind), FeatureStore(written / "emotional")
    rows = [store[name] for name in store.ids]
    found = head.predict_features(rows, fingerprint=store.fingerprint).scores
    with np.load(WRITTEN / "expected_heads.npz") as expected:
        np.testing.assert_allclose(found, expected[kind], rtol=0, atol=1e-6)
