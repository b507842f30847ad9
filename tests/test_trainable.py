"""The model as a part of a larger one: lengths, gradients, freezing."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from family_checkpoints import written
from waves import noise

from exhubert_features import TrainableEncoder, load_encoder
from exhubert_features.errors import AudioError, UsageError
from exhubert_features.spec import Preprocess

LENGTHS = (5_000, 400, 70_000)


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    clips = [torch.tensor(noise(length)) for length in LENGTHS]
    return torch.nn.utils.rnn.pad_sequence(clips, batch_first=True), torch.tensor(LENGTHS)


@pytest.mark.parametrize("preprocess", ["card", "masked"])
def test_states_are_those_of_the_encoder(two_layers: Path, preprocess: Preprocess) -> None:
    module = TrainableEncoder(two_layers, preprocess=preprocess).eval()
    encoder = load_encoder(two_layers, device="cpu")
    wav, lengths = batch()
    states, frames = module(wav, lengths)
    assert (module.hidden_size, module.num_states) == (32, 3) == (states.shape[-1], len(states))
    assert frames.tolist() == [encoder.frame_count(length) for length in LENGTHS]
    assert states.shape[2] == max(frames)
    for row, length in enumerate(LENGTHS):
        alone = encoder(noise(length), preprocess=preprocess)
        count = int(frames[row])
        np.testing.assert_allclose(
            states[:, row, :count].detach(), alone.layers[:, 0, :count], atol=1e-5
        )
        assert not states[:, row, count:].any()
    np.testing.assert_allclose(module.frame_times(48_000), encoder.frame_times(48_000))
    assert (module.frame_shift, module.receptive_field) == (0.02, 0.025)


@pytest.mark.parametrize(("family", "shape"), [("wavlm", "large"), ("wav2vec2", "base")])
def test_the_card_of_another_family_is_its_own(family: str, shape: str, tmp_path: Path) -> None:
    written(tmp_path, family, shape)
    module = TrainableEncoder(tmp_path).eval()
    encoder = load_encoder(tmp_path, device="cpu")
    wav, lengths = batch()
    states, frames = module(wav, lengths)
    for row, length in enumerate(LENGTHS):
        alone, count = encoder(noise(length), preprocess="card"), int(frames[row])
        np.testing.assert_allclose(
            states[:, row, :count].detach(), alone.layers[:, 0, :count], atol=1e-4
        )


@pytest.mark.slow
def test_it_compiles_to_one_graph_for_all_lengths(two_layers: Path) -> None:
    import torch._dynamo as dynamo
    from torch._dynamo.utils import counters

    dynamo.reset()
    counters.clear()
    module = TrainableEncoder(two_layers, layers=[1, 2])
    compiled = torch.compile(module, backend="eager", dynamic=False)  # as SpeechBrain does
    for size in (60_000, 50_001, 70_000, 66_666):
        wav, lengths = torch.randn(3, size), torch.tensor([size, 20_000, size // 2])
        compiled(wav, lengths)[0].sum().backward()
    assert not counters["graph_break"]
    assert counters["stats"]["unique_graphs"] == 1
    found, frames = compiled.eval()(wav, lengths)
    expected, own = module(wav, lengths)
    torch.testing.assert_close(found, expected)
    assert torch.equal(frames, own)


def test_it_learns(two_layers: Path) -> None:
    torch.manual_seed(0)
    module = TrainableEncoder(two_layers, preprocess="masked", apply_spec_augment=True)
    wav, lengths = batch()
    states, _ = module(wav, lengths)
    states.square().mean().backward()
    for name, weight in module.named_parameters():
        assert weight.requires_grad == (weight.grad is not None), name
    learning = [name for name, weight in module.named_parameters() if weight.requires_grad]
    assert any(name.endswith("masked_spec_embed") for name in learning)
    assert not any("classifier" in name for name in learning)  # no state depends on it


@pytest.mark.parametrize("layers", [0, [1], [2, 0]])
def test_chosen_layers(two_layers: Path, layers: int | list[int]) -> None:
    every = TrainableEncoder(two_layers).eval()
    chosen = TrainableEncoder(two_layers, layers=layers).eval()
    wav, lengths = batch()
    ids = [layers] if isinstance(layers, int) else layers
    assert chosen.num_states == len(ids)
    states, _ = chosen(wav, lengths)
    assert torch.equal(states, every(wav, lengths)[0][ids])
    states.sum().backward()
    for name, weight in chosen.named_parameters():
        assert weight.requires_grad == (weight.grad is not None), name


def test_frozen_stays_at_inference(two_layers: Path) -> None:
    wav, lengths = batch()
    module = TrainableEncoder(two_layers, freeze=True).train()
    first, _ = module(wav, lengths)
    assert torch.equal(first, module(wav, lengths)[0])  # no dropout
    assert not first.requires_grad
    half = TrainableEncoder(two_layers)
    half.model.freeze_og_encoder()
    half.train()
    modes = [layer.training for layer in half.model.hubert.encoder.layers]
    assert modes == [False, True]
    assert not torch.equal(half(wav, lengths)[0], half(wav, lengths)[0])


def test_it_copies_and_loads_as_modules_do(two_layers: Path) -> None:
    module = TrainableEncoder(two_layers).eval()
    wav, lengths = batch()
    expected, _ = module(wav, lengths)
    again = TrainableEncoder(two_layers).eval()
    torch.nn.init.zeros_(again.model.hubert.encoder.layers[0].attention.q_proj.weight)
    again.load_state_dict(module.state_dict())
    for one in (again, copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert torch.equal(one(wav, lengths)[0], expected)
    half = module.to(torch.bfloat16)
    assert half(wav, lengths)[0].dtype == torch.bfloat16


def test_what_it_refuses(two_layers: Path) -> None:
    module = TrainableEncoder(two_layers)
    with pytest.raises(UsageError, match=r"\(batch, samples\)"):
        module(torch.zeros(16_000))
    with pytest.raises(AudioError, match="clip 1 has 399 samples"):
        module(torch.zeros(2, 16_000), torch.tensor([16_000, 399]))
    with pytest.raises(UsageError, match="whole number"):
        module(torch.zeros(2, 16_000), torch.tensor([1.0, 0.5]))
    with pytest.raises(UsageError, match="preprocess"):
        TrainableEncoder(two_layers, preprocess="raw")  # type: ignore[arg-type]
