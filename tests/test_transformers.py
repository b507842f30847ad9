"""Converted checkpoints in transformers: Auto classes, pipeline, training, saving again."""

from __future__ import annotations

import copy
import multiprocessing
import pickle
import subprocess
import sys
import warnings
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    AutoConfig,
    AutoFeatureExtractor,
    AutoModel,
    AutoModelForAudioClassification,
    pipeline,
)

from exhubert_features import CLASSES, Encoder, load_encoder
from exhubert_features.checkpoint import find_checkpoint, read_state
from exhubert_features.checkpoint.convert import convert
from exhubert_features.integrations.transformers import ExHuBERTModel

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
    assert set(read_state(find_checkpoint(tmp_path))) == set(encoder.model.state_dict())
    ours = load_encoder(tmp_path, device="cpu")
    assert ours.config == encoder.config
    assert torch.equal(ours(clip(9000)).logits, encoder(clip(9000)).logits)


def test_saved_without_its_head(small: Path, tmp_path: Path) -> None:
    base = AutoModel.from_pretrained(small).eval()
    base.save_pretrained(tmp_path)
    again = AutoModel.from_pretrained(tmp_path).eval()
    ours = load_encoder(tmp_path, device="cpu")
    assert ours.classes == ()
    with torch.no_grad():
        wave = torch.randn(1, 16_000)
        expected = base(wave).last_hidden_state
        assert torch.equal(again(wave).last_hidden_state, expected)
        states = ours(wave[0], preprocess="none", layers=-1).layers[0]
        np.testing.assert_allclose(states, expected, atol=TOLERANCE)


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


@pytest.fixture(scope="module")
def small(small_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four layers in transformers' layout."""
    folder = tmp_path_factory.mktemp("small_converted") / "model"
    convert(small_checkpoint, folder)
    return folder


@torch.no_grad()
def test_the_model_without_its_head(small: Path) -> None:
    base, report = AutoModel.from_pretrained(small, output_loading_info=True)
    assert type(base) is ExHuBERTModel
    assert not report["missing_keys"] and not report["mismatched_keys"]
    inputs = AutoFeatureExtractor.from_pretrained(small)(
        [clip(9_000), clip(60_000)], sampling_rate=16_000, return_tensors="pt"
    )
    found = base.eval()(**inputs, output_hidden_states=True)
    whole = AutoModelForAudioClassification.from_pretrained(small).eval()
    assert type(whole.base_model) is ExHuBERTModel
    other = whole(**inputs, output_hidden_states=True)
    for one, two in zip(found.hidden_states, other.hidden_states, strict=True):
        assert torch.equal(one, two)
    assert torch.equal(found.last_hidden_state, found.hidden_states[-1])
    states = load_encoder(small, device="cpu")([clip(9_000), clip(60_000)], together=True).layers
    for one, two in zip(found.hidden_states, states, strict=True):
        np.testing.assert_allclose(one[1], two[1], atol=TOLERANCE)
        np.testing.assert_allclose(one[0, :149], two[0, :149], atol=TOLERANCE)
    lengths = base._get_feat_extract_output_lengths(torch.tensor([400, 48_000]))
    assert lengths.tolist() == [1, 149]
    assert base._get_feat_extract_output_lengths(16_000).item() == 49


@torch.no_grad()
def test_attention_can_be_looked_at(small: Path) -> None:
    inputs = torch.randn(2, 16_000)
    mask = (torch.arange(16_000) < torch.tensor([[16_000], [8_000]])).int()
    eager = AutoModel.from_pretrained(small, attn_implementation="eager").eval()
    found = eager(inputs, attention_mask=mask, output_attentions=True)
    assert [weights.shape for weights in found.attentions] == [(2, 4, 49, 49)] * 4
    for weights in found.attentions:
        np.testing.assert_allclose(weights.sum(dim=-1), torch.ones(2, 4, 49), atol=1e-5)
        assert weights[1, :, :, 24:].max() == 0  # what is padding is not looked at
    sdpa = AutoModel.from_pretrained(small, attn_implementation="sdpa").eval()
    states = [model(inputs, attention_mask=mask).last_hidden_state for model in (eager, sdpa)]
    np.testing.assert_allclose(states[0][0], states[1][0], atol=1e-4)
    np.testing.assert_allclose(states[0][1, :24], states[1][1, :24], atol=1e-4)
    eager.set_attn_implementation("sdpa")
    assert torch.equal(eager(inputs, attention_mask=mask).last_hidden_state, states[1])


def speechbrain_lobes(name: str) -> Any:
    """SpeechBrain's module, where its release has it."""
    try:
        return import_module(f"speechbrain.integrations.huggingface.{name}")
    except ImportError:  # SpeechBrain 1.0
        return import_module(f"speechbrain.lobes.models.huggingface_transformers.{name}")


@pytest.mark.parametrize("all_hiddens", [False, True])
def test_speechbrains_own_lobe(small: Path, tmp_path: Path, all_hiddens: bool) -> None:
    HuBERT = speechbrain_lobes("hubert").HuBERT
    lobe = HuBERT(str(small), str(tmp_path), freeze=True, output_all_hiddens=all_hiddens).eval()
    assert type(lobe.model) is ExHuBERTModel
    wave = torch.randn(2, 16_000)
    found = lobe(wave, torch.tensor([1.0, 0.5]))
    mask = torch.arange(16_000) < torch.tensor([[16_000], [8_000]])
    inputs = torch.nn.functional.layer_norm(wave, wave.shape[1:])
    with torch.no_grad():
        model = AutoModel.from_pretrained(small).eval()
        output = model(inputs, attention_mask=mask, output_hidden_states=True)
    expected = torch.stack(output.hidden_states) if all_hiddens else output.last_hidden_state
    assert (found - expected).abs().max() == 0


@torch.no_grad()
def test_speechbrains_weighted_model(small: Path, tmp_path: Path) -> None:
    weighted = speechbrain_lobes("weighted_ssl").WeightedSSLModel(str(small), str(tmp_path)).eval()
    wave = torch.randn(2, 16_000)
    model = AutoModel.from_pretrained(small).eval()
    states = torch.stack(model(wave, output_hidden_states=True).hidden_states)
    scale = torch.full((5, 1, 1, 1), 1 / 5).exp().softmax(0)
    assert (weighted(wave) - (states * scale).sum(dim=0)).abs().max() == 0


def test_espnets_own_frontend(small: Path) -> None:
    pytest.importorskip("espnet2.asr.frontend.huggingface")
    from espnet2.asr.frontend.huggingface import HuggingFaceFrontend

    frontend = HuggingFaceFrontend(str(small)).eval()
    assert frontend.output_size() == 32
    wave = torch.tensor(np.stack([clip(60_000), clip(60_000, 1)]))
    with torch.no_grad():
        found, _ = frontend(wave, torch.tensor([60_000, 50_000]))
        inputs = AutoFeatureExtractor.from_pretrained(small)(
            [clip(60_000), clip(60_000, 1)[:50_000]], sampling_rate=16_000, return_tensors="pt"
        )
        expected = AutoModel.from_pretrained(small).eval()(**inputs).last_hidden_state
    assert (found - expected).abs().max() == 0


@torch.no_grad()
def test_the_shape_of_espnets_frontend(small: Path) -> None:
    """What it does with a model, where ESPnet is not installed: names, lengths, state dicts."""
    model, processor = AutoModel.from_pretrained(small), AutoFeatureExtractor.from_pretrained(small)
    inputs = processor(
        [clip(60_000), clip(9_000)], sampling_rate=16_000, return_tensors="pt", padding=True
    )
    assert inputs.attention_mask.sum(dim=-1).tolist() == [60_000, 48_000]
    states = copy.deepcopy(model.state_dict())
    assert model(**inputs).last_hidden_state.shape == (2, 187, model.config.hidden_size)
    model.load_state_dict(states)


@torch.no_grad()
def test_the_pipeline_of_features(small: Path) -> None:
    extractor = AutoFeatureExtractor.from_pretrained(small)
    extract = pipeline("feature-extraction", str(small), tokenizer=extractor, device="cpu")
    found = extract(clip(20_000), return_tensors=True)
    inputs = extractor(clip(20_000), sampling_rate=16_000, return_tensors="pt")
    expected = AutoModel.from_pretrained(small).eval()(**inputs).last_hidden_state
    assert (found - expected).abs().max() == 0


def test_problems_other_than_classes(small: Path) -> None:
    def loss(labels: torch.Tensor, **config: object) -> tuple[torch.Tensor, torch.Tensor]:
        torch.manual_seed(0)
        model = AutoModelForAudioClassification.from_pretrained(
            small, ignore_mismatched_sizes=True, **config
        ).eval()
        output = model(torch.ones(2, 800).cumsum(1), labels=labels)
        output.loss.backward()
        return output.loss.detach(), output.logits.detach()

    values = torch.tensor([0.5, -2.0])
    for config in ({"num_labels": 1}, {"num_labels": 1, "problem_type": "regression"}):
        found, logits = loss(values, **config)
        assert torch.equal(found, (logits[:, 0] - values).square().mean())
    several = torch.tensor([[1, 0, 1], [0, 0, 1]])
    for config in (
        {"num_labels": 3},
        {"num_labels": 3, "problem_type": "multi_label_classification"},
    ):
        found, logits = loss(several.float(), **config)
        expected = torch.nn.functional.binary_cross_entropy_with_logits(logits, several.float())
        assert torch.equal(found, expected)
    found, logits = loss(torch.tensor([0, 2]), num_labels=3)
    assert torch.equal(found, torch.nn.functional.cross_entropy(logits, torch.tensor([0, 2])))
    found, logits = loss(several.float(), num_labels=3, problem_type="regression")
    assert torch.equal(found, (logits - several).square().mean())


UNPICKLE = """
import pickle, sys
model, extractor = pickle.load(open(sys.argv[1], "rb"))
assert not any(name.startswith("exhubert") for name in sys.argv)
from transformers import AutoFeatureExtractor, AutoModel
assert type(AutoModel.from_pretrained(sys.argv[2])) is type(model)
assert type(AutoFeatureExtractor.from_pretrained(sys.argv[2])) is type(extractor)
import torch
print(model(torch.ones(1, 800)).last_hidden_state.shape)
"""


@pytest.mark.slow
def test_a_fresh_process_that_unpickles_knows_them(small: Path, tmp_path: Path) -> None:
    model, extractor = AutoModel.from_pretrained(small), AutoFeatureExtractor.from_pretrained(small)
    (tmp_path / "both.pkl").write_bytes(pickle.dumps((model, extractor)))
    command = [sys.executable, "-c", UNPICKLE, str(tmp_path / "both.pkl"), str(small)]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.stdout.strip() == "torch.Size([1, 2, 32])", result.stderr


def frames_in_a_worker(model: torch.nn.Module) -> int:
    return int(model(torch.ones(1, 800)).last_hidden_state.shape[1])


@pytest.mark.slow
def test_a_spawned_worker_knows_them(small: Path) -> None:
    model = AutoModel.from_pretrained(small)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(frames_in_a_worker, (model,)) == 2


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
