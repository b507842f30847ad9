"""A checkpoint as an ONNX model: the same numbers, for any length and number of clips."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from waves import noise

from exhubert_features import CLASSES, load_encoder
from exhubert_features.cli import main
from exhubert_features.errors import CheckpointError


def test_without_its_libraries(
    two_layers: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert main(["export-onnx", str(two_layers), str(tmp_path / "onnx")]) == 1
    assert "exhubert-features[onnx]" in capsys.readouterr().err
    assert not (tmp_path / "onnx").exists()


@pytest.fixture(scope="module")
def exported(two_layers: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    for name in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(name)
    folder = tmp_path_factory.mktemp("onnx") / "model"
    assert main(["export-onnx", str(two_layers), str(folder), "--layers", "0,2"]) == 0
    return folder


@pytest.mark.slow
def test_it_agrees_with_the_encoder(exported: Path, two_layers: Path) -> None:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(exported / "model.onnx"))
    encoder = load_encoder(two_layers, device="cpu")
    about = json.loads((exported / "config.json").read_text())
    assert about["layers"] == [0, 2]
    assert about["classes"] == list(CLASSES)
    for samples in (48_000, 61_234, 20_000):
        waves = np.stack([noise(samples, seed) for seed in range(2)])
        padded = np.pad(waves, ((0, 0), (0, max(0, about["minimum_samples"] - samples))))
        normal = (padded - padded.mean(1, keepdims=True)) / np.sqrt(
            padded.var(1, keepdims=True) + 1e-7
        )
        states, logits = session.run(None, {"input_values": normal.astype(np.float32)})
        expected = encoder(list(waves), layers=[0, 2])
        np.testing.assert_allclose(states, expected.layers, atol=1e-4)
        np.testing.assert_allclose(logits, expected.logits, atol=1e-4)


@pytest.mark.slow
def test_a_model_that_differs_is_not_written(
    exported: Path, two_layers: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from exhubert_features.checkpoint import load_model, onnx

    model, _ = load_model(two_layers)
    monkeypatch.setattr(onnx, "TOLERANCE", 0.0)

    def written_before(_: object, path: Path) -> None:
        shutil.copytree(exported, path.parent, dirs_exist_ok=True)

    monkeypatch.setattr(onnx, "_write", written_before)
    with pytest.raises(CheckpointError, match="differ by"):
        onnx.export_onnx(model, tmp_path / "other", layers=[0, 2])
    assert not (tmp_path / "other").exists()
    assert main(["export-onnx", str(two_layers), str(exported)]) == 2  # never over another
