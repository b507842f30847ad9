"""The fast paths of the model give the numbers of the plain ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from exhubert_features.bench.plain import PlainLoop
from exhubert_features.checkpoint import load_model
from exhubert_features.model import ExHuBERTNetwork
from exhubert_features.model.config import ExHuBERTConfig, frame_count
from exhubert_features.model.convolutions import FeatureExtractor
from exhubert_features.model.fusing import fused_layer
from exhubert_features.model.positions import PositionalConvolution

PLAIN = {"gated": False, "num_hidden_layers": 1, "hidden_size": 32, "conv_dim": (24,) * 7}


@pytest.fixture(scope="module")
def model(tiny_checkpoint: Path) -> ExHuBERTNetwork:
    return load_model(tiny_checkpoint)[0].requires_grad_(False)


def test_the_plain_loop_is_the_reference(
    model: ExHuBERTNetwork, golden: dict[str, np.ndarray]
) -> None:
    states, logits = PlainLoop(model)(torch.tensor(golden["a_input"][0]))
    np.testing.assert_allclose(torch.stack(states), golden["a_hidden"], rtol=0, atol=1e-4)
    np.testing.assert_allclose(logits, golden["a_logits"], rtol=0, atol=1e-4)


@pytest.mark.parametrize("norm", ["layer", "group"])
@pytest.mark.parametrize("bias", [True, False])
def test_convolutions_by_clip_are_the_plain_ones(norm: str, bias: bool) -> None:
    torch.manual_seed(0)
    config = ExHuBERTConfig(feat_extract_norm=norm, conv_bias=bias, **PLAIN)
    convolutions = FeatureExtractor(config)
    for parameter in convolutions.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    lengths = torch.tensor([16_000, 400, 7_321])
    waveforms = torch.randn(3, 16_000) * (torch.arange(16_000) < lengths[:, None])
    plain = convolutions(waveforms, lengths)
    assert plain.requires_grad
    with torch.no_grad():
        fast = convolutions(waveforms, lengths)
        same = convolutions(waveforms[:1], None)
    plain = plain.detach()
    scale = float(plain.abs().max())
    torch.testing.assert_close(same[0], plain[0], rtol=0, atol=2e-6 * scale)
    for row, length in enumerate(lengths.tolist()):
        frames = frame_count(length, config)
        torch.testing.assert_close(
            fast[row, :frames], plain[row, :frames], rtol=0, atol=2e-6 * scale
        )
        assert not fast[row, frames:].any()  # and no time was lost on padding


def test_frozen_convolutions_go_by_clip_while_the_rest_learns(monkeypatch) -> None:
    convolutions = FeatureExtractor(ExHuBERTConfig(**PLAIN))
    calls: list[int] = []
    monkeypatch.setattr(
        FeatureExtractor,
        "forward_clips",
        lambda _, waveforms, sizes: calls.append(len(sizes)) or waveforms,
    )
    convolutions(torch.randn(2, 800), None)
    assert not calls
    convolutions.requires_grad_(False)
    convolutions(torch.randn(2, 800), None)
    assert calls == [2]
    convolutions(torch.randn(2, 800, requires_grad=True), None)  # saliency: a graph to the signal
    assert calls == [2]


def test_kernels_kept_as_matrices_go_with_their_weights() -> None:
    convolutions = FeatureExtractor(ExHuBERTConfig(**PLAIN)).requires_grad_(False).eval()
    waveform = torch.randn(1, 800)
    before = convolutions(waveform, None)
    convolutions.transform()
    assert torch.equal(convolutions(waveform, None), before)
    state = {name: 2 * weight for name, weight in convolutions.state_dict().items()}
    convolutions.load_state_dict(state)
    assert not torch.allclose(convolutions(waveform, None), before)


def positions() -> PositionalConvolution:
    torch.manual_seed(0)
    return PositionalConvolution(ExHuBERTConfig(**PLAIN)).eval().requires_grad_(False)


@pytest.mark.parametrize("frames", [1, 24, 149, 161, 162, 700])
def test_positions_by_fourier_transform(frames: int) -> None:
    module, hidden = positions(), torch.randn(2, frames, 32)
    plain = module(hidden)
    module.transform()
    assert module._spectrum is not None
    torch.testing.assert_close(module(hidden), plain, rtol=0, atol=1e-5)


def test_new_weights_end_the_fourier_transform() -> None:
    module, hidden = positions(), torch.randn(1, 50, 32)
    module.transform()
    state = {**module.state_dict(), "conv.weight_g": torch.full((1, 1, 128), 3.0)}
    before = module(hidden)
    module.load_state_dict(state)
    loaded = module(hidden)
    assert not torch.allclose(loaded, before, atol=1e-3)
    module.transform()
    torch.testing.assert_close(module(hidden), loaded, rtol=0, atol=1e-5)
    module.train()
    assert module._spectrum is None


class _Exact(torch.nn.Linear):
    """A kernel that changes nothing."""

    def __init__(self, weight: Tensor, bias: Tensor, *, gelu: bool = False, gate: bool = False):
        super().__init__(*weight.t().shape)
        self.weight.data, self.bias.data, self.gelu = weight, bias, gelu

    def forward(self, hidden: Tensor) -> Tensor:
        result = super().forward(hidden)
        return torch.nn.functional.gelu(result) if self.gelu else result


@pytest.mark.parametrize(
    "options",
    [
        {"gated": True, "num_hidden_layers": 2},
        {"do_stable_layer_norm": False},
        {"family": "wavlm"},
    ],
)
@torch.no_grad()
def test_layers_rebuilt_for_inference_are_the_same(options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    model = ExHuBERTNetwork(ExHuBERTConfig(**{**PLAIN, **options}, intermediate_size=48)).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    waveforms, lengths = torch.randn(2, 5_000), torch.tensor([5_000, 3_000])
    plain = model(waveforms, lengths).hidden_states
    names = set(model.hubert.encoder.state_dict())
    layers = [fused_layer(layer, _Exact) for layer in model.hubert.encoder.blocks]
    assert set(model.hubert.encoder.state_dict()) == names  # the old ones are as they were
    model.hubert.encoder.layers = torch.nn.ModuleList(layers)
    assert not any("q_proj" in name for name in model.state_dict())
    for found, expected in zip(model(waveforms, lengths).hidden_states, plain, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
