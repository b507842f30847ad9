"""Whole runs of SpeechBrain's Brain: the weighted lobe, adapters, short clips, ``--compile``."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from hyperpyyaml import load_hyperpyyaml
from speechbrain.nnet.containers import LengthsCapableSequential
from speechbrain_runs import build, tones
from torch import Tensor, nn

from exhubert_features.checkpoint import write_random_checkpoint
from exhubert_features.checkpoint.expand import expand
from exhubert_features.errors import AudioError, UsageError
from exhubert_features.speechbrain import ExHuBERT, LayerWeights, UsableClips, WeightedExHuBERT

WEIGHTED = """
wav2vec2: !new:exhubert_features.speechbrain.WeightedExHuBERT
    hub: !ref <wav2vec2_hub>
    save_path: !ref <wav2vec2_folder>
    layernorm: True
    freeze: True
"""
ADAPTED = """
plain: !new:exhubert_features.speechbrain.ExHuBERT
    source: !ref <wav2vec2_hub>
    save_path: !ref <wav2vec2_folder>
    freeze: {freeze}

wav2vec2: !new:speechbrain.nnet.adapters.AdaptedModel
    model_to_adapt: !ref <plain>
    adapter_class: !name:speechbrain.nnet.adapters.LoRA
    all_linear: True
    adapter_kwargs:
        rank: 2
"""


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Two layers with an identity gate, as a freshly extended model has it."""
    folder = tmp_path_factory.mktemp("tiny")
    plain = write_random_checkpoint(folder / "plain", layers=1, gated=False)
    expand(plain, folder / "extended")
    return str(folder / "extended")


def batch(*samples: int) -> tuple[Tensor, Tensor]:
    clips = [0.1 * torch.randn(count) for count in samples]
    return nn.utils.rnn.pad_sequence(clips, batch_first=True), torch.tensor(samples) / max(samples)


def run(
    source: str, folder: Path, lobe: str = "", loader: dict[str, Any] | None = None, **opts: Any
) -> Any:
    """Two epochs, or as many as are left."""
    data = opts.pop("data", None) or tones(8)
    brain, hparams = build(source, folder, lobe, **opts)
    options = {**hparams["dataloader_options"], **(loader or {})}
    brain.fit(hparams["epoch_counter"], data, tones(4), train_loader_kwargs=options)
    return brain


# -- the weighted lobe ---------------------------------------------------------------------------


def test_weighted_lobe_is_the_lobe_and_layer_weights(tiny: str) -> None:
    wav, lengths = batch(16_000, 9_000)
    weighted = WeightedExHuBERT(tiny, None, layernorm=True, freeze=True)
    assert weighted.num_layers == 3 and weighted.weights.tolist() == [0.0, 0.0, 0.0]
    weighted.weights.data = torch.tensor([0.0, 2.0, -1.0])
    plain = ExHuBERT(tiny, None, freeze=True, output_all_hiddens=True)
    separate = LayerWeights(3, layernorm=True)
    separate.weights.data = weighted.weights.data
    expected = separate(plain(wav, lengths))
    torch.testing.assert_close(weighted(wav, lengths), expected)
    for chain in (
        LengthsCapableSequential(weighted, nn.Identity()),
        LengthsCapableSequential(plain, separate),
    ):
        torch.testing.assert_close(chain(wav, lengths), expected)
    weighted.train()(wav, lengths).square().sum().backward()
    learning = {name for name, weight in weighted.named_parameters() if weight.grad is not None}
    assert learning == {"weights"}
    assert len(WeightedExHuBERT(tiny, None, layers=[0, 2]).weights) == 2


def test_weighted_lobe_from_yaml_alone(tiny: str) -> None:
    text = f"""
encoder: !new:speechbrain.nnet.containers.LengthsCapableSequential
    lobe: !new:exhubert_features.speechbrain.WeightedExHuBERT
        hub: {tiny}
        save_path: ""
        freeze: True
    linear: !new:speechbrain.nnet.linear.Linear
        input_size: 32
        n_neurons: 2
"""
    wav, lengths = batch(16_000, 9_000)
    assert load_hyperpyyaml(text)["encoder"](wav, lengths).shape == (2, 49, 2)


@pytest.mark.slow
def test_weighted_lobe_trains_and_resumes(tiny: str, tmp_path: Path) -> None:
    brain = run(tiny, tmp_path, WEIGHTED)
    learnt = brain.modules.wav2vec2.weights.detach().clone()
    assert learnt.abs().max() > 0
    assert run(tiny, tmp_path, WEIGHTED).epochs_run == []
    resumed, _ = build(tiny, tmp_path, WEIGHTED)
    resumed.checkpointer.recover_if_possible()
    assert torch.equal(resumed.modules.wav2vec2.weights, learnt)


# -- options of SpeechBrain's own lobes ----------------------------------------------------------


def test_options_of_other_lobes_are_done_or_named(tiny: str) -> None:
    lobe = ExHuBERT(
        tiny, None, device_map="cpu", dtype="bfloat16", trust_remote_code=True, cache_dir=None
    )
    assert {weight.dtype for weight in lobe.parameters()} == {torch.bfloat16}
    half = ExHuBERT(tiny, None, device="cpu", torch_dtype=torch.float16)
    assert {weight.dtype for weight in half.parameters()} == {torch.float16}
    for options, words in (
        ({"quantization_config": {"bits": 4}}, "cannot do quantization_config="),
        ({"for_pretraining": True}, "cannot do for_pretraining=True"),
        ({"device_map": "auto"}, "cannot do device_map='auto'"),
        ({"device_map": {"": 0}}, "cannot do device_map="),
        ({"attn_implementation": "flash_attention_2"}, "attn_implementation='flash_attention_2'"),
        ({"ouput_norm": True}, "cannot do ouput_norm=True"),
        ({"dtype": "floaty"}, "dtype is 'floaty'"),
    ):
        with pytest.raises(UsageError, match=words):
            ExHuBERT(tiny, None, **options)


def test_recipes_find_parts_of_the_model(tiny: str) -> None:
    lobe = ExHuBERT(tiny, None)
    for name in ("encoder", "feature_extractor", "feature_projection"):
        assert getattr(lobe.model, name) is getattr(lobe.model.hubert, name)
    assert len(lobe.model.encoder.layers) == lobe.model.config.num_hidden_layers


# -- adapters ------------------------------------------------------------------------------------


@pytest.mark.parametrize("freeze", [False, True])
def test_adapters_on_all_linear_layers_learn(tiny: str, freeze: bool) -> None:
    from speechbrain.nnet.adapters import AdaptedModel, LoRA

    wav, lengths = batch(16_000, 9_000)
    plain = ExHuBERT(tiny, None, freeze=True)
    assert plain.model.hubert.encoder.layers[0].identity_gate
    expected = plain(wav, lengths)
    lobe = ExHuBERT(tiny, None, freeze=freeze, output_logits=False)
    adapted = AdaptedModel(lobe, LoRA, all_linear=True, adapter_kwargs={"rank": 2})
    # Before a step of training an adapter adds nothing; also with no train() in between.
    torch.testing.assert_close(adapted.eval()(wav, lengths), expected, rtol=0, atol=1e-5)
    for mode in (False, True):
        adapted.zero_grad()
        adapted.train(mode)(wav, lengths).square().sum().backward()
        adapters = {n: w for n, w in adapted.named_parameters() if w.requires_grad}
        assert any("layers.0.gate_bb_linear.adapter" in name for name in adapters)
        for name, weight in adapters.items():
            used = "projector" not in name and "classifier" not in name
            assert (weight.grad is not None) == used, name


def test_gates_learn_in_eval_mode_too(tiny: str) -> None:
    lobe = ExHuBERT(tiny, None).eval()
    lobe.load_state_dict(lobe.state_dict())  # finds identity gates again
    assert lobe.model.hubert.encoder.layers[0].identity_gate
    lobe(*batch(16_000, 9_000)).sum().backward()
    assert lobe.model.hubert.encoder.layers[0].gate_bb_linear.weight.grad is not None


@pytest.mark.slow
@pytest.mark.parametrize("freeze", [False, True])
def test_adapted_lobe_trains_and_resumes(tiny: str, tmp_path: Path, freeze: bool) -> None:
    lobe = ADAPTED.format(freeze=freeze)
    brain = run(tiny, tmp_path, lobe)
    state = {name: value.clone() for name, value in brain.modules.wav2vec2.state_dict().items()}
    moved = [n for n, value in state.items() if n.endswith("up_proj.weight") and value.any()]
    assert any("layers.0.gate_bb_linear" in name for name in moved)
    resumed, _ = build(tiny, tmp_path, lobe)
    resumed.checkpointer.recover_if_possible()
    for name, value in resumed.modules.wav2vec2.state_dict().items():
        assert torch.equal(value, state[name]), name


@pytest.mark.slow
def test_peft_adapters_learn_and_are_saved(tiny: str, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")

    def make() -> ExHuBERT:
        torch.manual_seed(0)
        lobe = ExHuBERT(tiny, None, output_logits=True)
        options = peft.LoraConfig(target_modules="all-linear", r=2)
        lobe.model = peft.get_peft_model(lobe.model, options)
        return lobe.train()

    lobe, data = make(), batch(16_000, 9_000)
    optimizer = torch.optim.Adam((w for w in lobe.parameters() if w.requires_grad), lr=0.01)
    for _ in range(2):
        optimizer.zero_grad()
        lobe(*data).logits.square().sum().backward()
        optimizer.step()
    for name, weight in lobe.named_parameters():
        assert (weight.grad is not None) == weight.requires_grad == ("lora_" in name), name
    lobe.save(tmp_path / "lobe.ckpt")
    fresh = make()
    assert not torch.allclose(fresh.eval()(*data).logits, lobe.eval()(*data).logits)
    fresh.load(tmp_path / "lobe.ckpt")
    torch.testing.assert_close(fresh.eval()(*data).logits, lobe(*data).logits)


# -- clips without a frame -----------------------------------------------------------------------


def test_short_clip_is_named_by_id(tiny: str, tmp_path: Path) -> None:
    with pytest.raises(AudioError, match=r"clip \d of its batch, clip3, has 300 samples.*UsableC"):
        run(tiny, tmp_path, data=tones(8, short=3))


def test_training_goes_on_without_short_clips(
    tiny: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        brain = run(tiny, tmp_path, data=tones(8, short=3), loader={"collate_fn": UsableClips()})
    assert brain.epochs_run == [1, 2]
    assert "clip3 is left out: 300 samples are no frame" in caplog.text
    nothing = r"all clips of a batch have under 400 samples: a, b.*under 0\.025 s out before"
    with pytest.raises(AudioError, match=nothing):
        UsableClips()([{"id": "a", "sig": torch.zeros(9)}, {"id": "b", "sig": torch.zeros(399)}])


# -- compiling -----------------------------------------------------------------------------------


@pytest.mark.slow
def test_compiled_lobe_neither_breaks_nor_compiles_for_each_length(
    tiny: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch._dynamo as dynamo
    from torch._dynamo.utils import counters

    compile_module = torch.compile

    def traced_only(module: nn.Module, *, mode: str, **options: Any) -> Any:
        """Without the C++ compiler, which takes minutes and decides nothing here."""
        return compile_module(module, backend="eager", **options)

    monkeypatch.setattr(torch, "compile", traced_only)
    dynamo.reset()
    counters.clear()
    brain = run(tiny, tmp_path, compile=True, compile_module_keys=["wav2vec2"])
    assert brain.epochs_run == [1, 2]
    assert not counters["graph_break"]
    # 24 lengths of batches: one graph to train, one to validate, one for a batch without padding.
    assert 1 <= counters["stats"]["unique_graphs"] <= 4
