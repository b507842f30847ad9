"""Converted checkpoints in transformers: Auto classes, pipeline, training, saving again."""

from __future__ import annotations

import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from transformers import (
    AutoConfig,
    AutoFeatureExtractor,
    AutoModelForAudioClassification,
    pipeline,
)

import exhubert_features.integrations.transformers  # noqa: F401  (makes the Auto classes know us)
from exhubert_features import CLASSES, Encoder, load_encoder
from exhubert_features.checkpoint.convert import convert

TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def converted(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("converted") / "model"
    convert(tiny_checkpoint, folder)
    return folder


@pytest.fixture(scope="module")
def encoder(converted: Path) -> Encoder:
    return load_encoder(converted, device="cpu")


@pytest.fixture(scope="module")
def model(converted: Path) -> torch.nn.Module:
    model, report = AutoModelForAudioClassification.from_pretrained(
        converted, output_loading_info=True
    )
    assert not any(report.values())
    return model.eval()


def clip(samples: int, seed: int = 0) -> np.ndarray:
    return (0.1 * np.random.default_rng(seed).standard_normal(samples)).astype(np.float32)


def scores(result: list[dict]) -> list[float]:
    found = {entry["label"]: entry["score"] for entry in result}
    return [found[label] for label in CLASSES]


@pytest.mark.parametrize("samples", [500, 20_000, 48_000, 70_000])
def test_pipeline_agrees_with_the_encoder(
    samples: int, converted: Path, encoder: Encoder, caplog: pytest.LogCaptureFixture
) -> None:
    classify = pipeline("audio-classification", str(converted), top_k=None, device="cpu")
    found = scores(classify(clip(samples)))
    expected = encoder(clip(samples), preprocess="card").probabilities[0]
    np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE)
    assert "not supported" not in caplog.text


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_half_precision_agrees_with_the_encoder(
    precision: str, small_checkpoint: Path, tmp_path: Path
) -> None:
    dtype = getattr(torch, precision)
    convert(small_checkpoint, tmp_path / "half", dtype=dtype)
    audio = clip(20_000)
    encoder = load_encoder(tmp_path / "half", device="cpu")
    expected = encoder(audio, preprocess="card").probabilities[0]
    folder = str(tmp_path / "half")
    classify = pipeline("audio-classification", folder, top_k=None, device="cpu")
    np.testing.assert_allclose(scores(classify(audio)), expected, rtol=0, atol=0.01)
    # Whatever type this version of transformers gives to the model, float32 audio will do.
    for options in ({}, {"dtype": dtype}):
        model = AutoModelForAudioClassification.from_pretrained(folder, **options)
        batch = AutoFeatureExtractor.from_pretrained(folder)(
            audio, sampling_rate=16_000, return_tensors="pt"
        )
        with torch.no_grad():
            found = model(**batch).logits[0].float().softmax(dim=-1)
        np.testing.assert_allclose(found, expected, rtol=0, atol=0.01)


def test_pipeline_in_batches_gives_the_same(converted: Path, encoder: Encoder) -> None:
    classify = pipeline("audio-classification", str(converted), top_k=None, device="cpu")
    clips = [clip(20_000, 1), clip(70_000, 2), clip(55_000, 3)]
    expected = encoder(clips, preprocess="card").probabilities
    for found, row in zip(classify(clips, batch_size=3), expected, strict=True):
        np.testing.assert_allclose(scores(found), row, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("case", ["c0", "c1", "c2"])
@pytest.mark.parametrize("cut", ["", "_cut"])
def test_feature_extractor_does_as_the_card(
    case: str, cut: str, converted: Path, golden: dict[str, np.ndarray]
) -> None:
    extractor = AutoFeatureExtractor.from_pretrained(converted)
    options = {"truncation": True, "max_length": 48_000} if cut else {}
    batch = extractor(golden[f"{case}_raw"], sampling_rate=16_000, return_tensors="np", **options)
    np.testing.assert_allclose(
        batch["input_values"][0], golden[f"{case}_card_input{cut}"], rtol=0, atol=1e-5
    )
    assert batch["attention_mask"].all()


def test_feature_extractor_takes_lists_too(converted: Path) -> None:
    extractor = AutoFeatureExtractor.from_pretrained(converted)
    one = extractor([0.1, -0.1, 0.2], sampling_rate=16_000, return_tensors="pt")
    assert one["input_values"].shape == (1, 48_000)
    two = extractor([[0.1, -0.1], clip(50_000)], sampling_rate=16_000, return_tensors="pt")
    assert two["attention_mask"].sum(-1).tolist() == [48_000, 50_000]


@torch.no_grad()
def test_model_parity(model: torch.nn.Module, golden: dict[str, np.ndarray]) -> None:
    output = model(torch.tensor(golden["a_input"]), output_hidden_states=True)
    np.testing.assert_allclose(output.logits, golden["a_logits"], rtol=0, atol=1e-4)
    states = torch.stack(output.hidden_states)
    np.testing.assert_allclose(states, golden["a_hidden"], rtol=0, atol=1e-4)
    mask = torch.arange(golden["b_input"].shape[1]) < torch.tensor(golden["b_lengths"])[:, None]
    masked = model(torch.tensor(golden["b_input"]), attention_mask=mask.int(), return_dict=False)
    np.testing.assert_allclose(masked[0], golden["b_logits"], rtol=0, atol=1e-4)


def test_config_and_labels(converted: Path) -> None:
    config = AutoConfig.from_pretrained(converted)
    assert config.model_type == "exhubert"
    assert tuple(config.id2label.values()) == CLASSES


def test_save_and_load_again(model: torch.nn.Module, tmp_path: Path, encoder: Encoder) -> None:
    model.save_pretrained(tmp_path)
    again = AutoModelForAudioClassification.from_pretrained(tmp_path)
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, again.get_parameter(name)), name
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        assert set(file.keys()) == set(encoder.model.state_dict())
    ours = load_encoder(tmp_path, device="cpu")
    assert ours.config == encoder.config
    assert torch.equal(ours(clip(9000)).logits, encoder(clip(9000)).logits)


def test_training(converted: Path) -> None:
    torch.manual_seed(0)
    model = AutoModelForAudioClassification.from_pretrained(converted)
    model.freeze_og_encoder()
    model.freeze_feature_encoder()
    clips, labels = torch.randn(2, 8000), torch.tensor([0, 5])
    losses = []
    for checkpointing in (False, True):
        if checkpointing:
            with warnings.catch_warnings():  # the name changes in transformers 6
                warnings.simplefilter("ignore", FutureWarning)
                model.gradient_checkpointing_enable()
        model.train()
        torch.manual_seed(0)
        model.zero_grad()
        output = model(clips, labels=labels)
        output.loss.backward()
        losses.append(output.loss.item())
        for name, parameter in model.named_parameters():
            assert (parameter.grad is not None) == parameter.requires_grad, name
    assert losses[0] == pytest.approx(losses[1], abs=1e-6)
    assert model.hubert.encoder.gradient_checkpointing
    layers = model.hubert.encoder.layers
    assert layers[0].gate_bb_linear.weight.grad is None
    assert layers[1].gate_bb_linear.weight.grad.abs().sum() > 0


def test_new_head_and_new_model(converted: Path) -> None:
    replaced = AutoModelForAudioClassification.from_pretrained(
        converted, id2label={0: "no", 1: "yes"}, ignore_mismatched_sizes=True
    )
    assert replaced.classifier.weight.shape == (2, 16)
    assert 0.005 < float(replaced.classifier.weight.detach().std()) < 0.1
    original = AutoModelForAudioClassification.from_pretrained(converted)
    assert torch.equal(replaced.projector.weight, original.projector.weight)
    fresh = AutoModelForAudioClassification.from_config(AutoConfig.from_pretrained(converted))
    for index, layer in enumerate(fresh.hubert.encoder.layers):
        expected = torch.zeros(32, 32) if index % 2 else torch.eye(32)
        assert torch.equal(layer.gate_bb_linear.weight.detach(), expected)
    with torch.no_grad():
        assert torch.isfinite(fresh(torch.randn(1, 8000)).logits).all()


# Each makes transformers load its files, and so ours, in another order.
ORDERS = [
    "",
    "from transformers import AutoConfig",
    "from transformers import AutoFeatureExtractor",
    "from transformers import HubertModel",
    "from transformers import AutoModelForAudioClassification",
]
EACH = """
import os, sys
import scipy.optimize, torch.distributed.tensor, torchaudio  # once for all of them
for order in sys.argv[2:]:
    child = os.fork()
    if child == 0:
        exec(order)
        import exhubert_features.integrations.transformers
        from transformers import AutoConfig, AutoFeatureExtractor
        from transformers import MODEL_FOR_AUDIO_CLASSIFICATION_MAPPING as models
        assert type(AutoConfig.from_pretrained(sys.argv[1])) in models
        AutoFeatureExtractor.from_pretrained(sys.argv[1])
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0, order
"""


@pytest.mark.slow
def test_registration_in_any_order_of_imports(converted: Path) -> None:
    command = [sys.executable, "-c", EACH, str(converted), *ORDERS]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_a_plain_import_leaves_the_import_system_alone() -> None:
    code = (
        "import sys; before = list(sys.meta_path); import exhubert_features; "
        "print(sys.meta_path == before, 'transformers' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout.split() == ["True", "False"], result.stderr
