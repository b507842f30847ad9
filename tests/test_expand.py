"""``expand``: the extended model is the original at first, and its new half learns."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import transformers

from exhubert_features.checkpoint import load_model, write_random_checkpoint
from exhubert_features.checkpoint.expand import expand
from exhubert_features.cli import main
from exhubert_features.errors import CheckpointError, UsageError
from exhubert_features.model import ExHuBERTNetwork
from exhubert_features.model.config import ExHuBERTConfig
from exhubert_features.spec import CLASSES

LAYERS = 3  # an odd number doubles to an even one
SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "conv_dim": (16,) * 7,
    "classifier_proj_size": 8,
    "feat_extract_norm": "layer",
    "conv_bias": True,
    "do_stable_layer_norm": True,
}


@torch.no_grad()
@pytest.mark.parametrize("kind", ["HubertModel", "HubertForCTC", "HubertForSequenceClassification"])
def test_extended_model_is_the_original(kind: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    names = {0: "calm", 1: "cross", 2: "glad"}
    hub_config = transformers.HubertConfig(**SIZES, id2label=names)
    original = getattr(transformers, kind)(hub_config).eval()
    for parameter in original.parameters():
        parameter.add_(0.1 * torch.randn_like(parameter))
    original.save_pretrained(tmp_path / "original")
    config = expand(tmp_path / "original", tmp_path / "extended")
    extended, _ = load_model(tmp_path / "extended")
    classifies = kind == "HubertForSequenceClassification"
    assert config == extended.config and config.gated
    assert config.classes == (tuple(names.values()) if classifies else CLASSES)

    clip = torch.randn(2, 6000)
    output = extended(clip)
    encoder = original if kind == "HubertModel" else original.hubert
    theirs = encoder(clip, output_hidden_states=True)
    # State k of the original is state 2k here; 2k - 1, after the identity gate, is the same.
    # Their last state is layer-normed or not, as the version of transformers has it.
    for index in range(LAYERS):
        found = output.hidden_states[2 * index]
        torch.testing.assert_close(found, theirs.hidden_states[index], rtol=0, atol=1e-5)
        if index:
            assert torch.equal(output.hidden_states[2 * index - 1], found)
    last = output.hidden_states[-1]
    torch.testing.assert_close(last, theirs.last_hidden_state, rtol=0, atol=1e-5)
    if classifies:
        torch.testing.assert_close(output.logits, original(clip).logits, rtol=0, atol=1e-5)


@torch.no_grad()
def test_in_a_masked_batch_too(tmp_path: Path) -> None:
    write_random_checkpoint(tmp_path / "plain", layers=2, gated=False)
    expand(tmp_path / "plain", tmp_path / "extended")
    plain, extended = (load_model(tmp_path / name)[0] for name in ("plain", "extended"))
    clips, lengths = torch.randn(2, 6000), torch.tensor([6000, 3500])
    torch.testing.assert_close(
        extended(clips, lengths).logits, plain(clips, lengths).logits, rtol=0, atol=1e-5
    )


@pytest.fixture
def extended(tmp_path: Path) -> ExHuBERTNetwork:
    write_random_checkpoint(tmp_path / "plain", layers=2, gated=False, classes=())
    expand(tmp_path / "plain", tmp_path / "extended", classes=["low", "high"])
    return load_model(tmp_path / "extended")[0]


def test_every_even_gate_is_an_exact_identity(extended: ExHuBERTNetwork) -> None:
    assert extended.detect_identity_gates() == 2


def test_no_two_parameters_share_memory(extended: ExHuBERTNetwork) -> None:
    places = [parameter.data_ptr() for parameter in extended.parameters()]
    assert len(set(places)) == len(places)


def test_the_new_half_learns_and_the_old_one_stays(extended: ExHuBERTNetwork) -> None:
    torch.manual_seed(0)
    time = torch.arange(4000) / 16000
    low, high = (torch.sin(2 * torch.pi * pitch * time) for pitch in (150.0, 900.0))
    clips = torch.stack([low, high] * 4) + 0.3 * torch.randn(8, 4000)
    labels = torch.tensor([0, 1] * 4)
    extended.freeze_og_encoder()
    extended.freeze_feature_encoder()
    layers = extended.hubert.encoder.layers
    before = {name: value.clone() for name, value in layers.state_dict().items()}
    start = extended(clips, labels=labels).loss.item()
    trained = [parameter for parameter in extended.parameters() if parameter.requires_grad]
    optimiser = torch.optim.AdamW(trained, lr=3e-3)
    extended.train()
    for _ in range(15):
        optimiser.zero_grad()
        extended(clips, labels=labels).loss.backward()
        optimiser.step()
    extended.eval()
    assert extended(clips, labels=labels).loss.item() < 0.5 * start
    for name, value in layers.state_dict().items():
        if int(name.split(".")[0]) % 2 == 0:
            assert torch.equal(value, before[name]), name
        elif "k_proj.bias" not in name:  # softmax does not see it: its gradient is zero
            assert not torch.equal(value, before[name]), name
    for layer in layers[1::2]:
        assert layer.gate_bb_linear.weight.count_nonzero() > 0


def test_new_head_follows_the_seed(tmp_path: Path) -> None:
    write_random_checkpoint(tmp_path / "plain", layers=2, gated=False, classes=())
    heads = {}
    for name, seed in (("one", 1), ("same", 1), ("other", 2)):
        expand(tmp_path / "plain", tmp_path / name, seed=seed)
        heads[name] = load_model(tmp_path / name)[0].classifier.weight
    assert torch.equal(heads["one"], heads["same"])
    assert not torch.equal(heads["one"], heads["other"])


def test_refusals(tmp_path: Path, small_checkpoint: Path) -> None:
    hub_config = transformers.HubertConfig(
        **{**SIZES, "do_stable_layer_norm": False, "feat_extract_norm": "group"}
    )
    transformers.HubertModel(hub_config).save_pretrained(tmp_path / "base")
    with pytest.raises(CheckpointError, match=r"base cannot be block-extended.*norm after.*large"):
        expand(tmp_path / "base", tmp_path / "new")
    with pytest.raises(CheckpointError, match="block-extended already"):
        expand(small_checkpoint, tmp_path / "new")
    write_random_checkpoint(tmp_path / "plain", layers=2, gated=False, classes=("a", "b"))
    with pytest.raises(UsageError, match="expected 2"):
        expand(tmp_path / "plain", tmp_path / "new", classes=["a", "b", "c"])
    assert not (tmp_path / "new").exists()


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_random_checkpoint(tmp_path / "plain", layers=2, gated=False, classes=())
    arguments = ["expand", str(tmp_path / "plain"), str(tmp_path / "new"), "--labels", "sad,glad"]
    assert main(arguments) == 0
    assert "2 layers became 4" in capsys.readouterr().out
    config: ExHuBERTConfig = load_model(tmp_path / "new")[0].config
    assert config.classes == ("sad", "glad") and config.num_hidden_layers == 4
    assert main(arguments) == 2
