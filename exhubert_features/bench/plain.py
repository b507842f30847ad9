"""The plain loop: ExHuBERT as its description reads, one clip at a time, nothing made faster.

What this package replaces, for speeds to be compared with. It computes from the same weights and
must give the same numbers; it is no way to run the model.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from ..model import ExHuBERTNetwork

Weights = dict[str, Tensor]


class PlainLoop:
    """A model of ExHuBERT's kind (norm first, gated), run from its state dict."""

    def __init__(self, model: ExHuBERTNetwork) -> None:
        self.config = model.config
        self.weights: Weights = {
            key.removeprefix("hubert."): value for key, value in model.state_dict().items()
        }

    @torch.no_grad()
    def __call__(self, waveform: Tensor) -> tuple[list[Tensor], Tensor]:
        """All hidden states, each (1, T, D), and logits (1, C) of one normalised clip (N,)."""
        hidden = self._convolve(waveform[None, None])
        hidden = self._norm("feature_projection.layer_norm", hidden.transpose(1, 2))
        hidden = self._linear("feature_projection.projection", hidden)
        hidden = hidden + self._positions(hidden)
        states = [hidden]
        for index in range(self.config.num_hidden_layers):
            before, hidden = hidden, self._layer(f"encoder.layers.{index}", hidden)
            if index % 2:
                hidden = hidden + before
            states.append(hidden)
        states[-1] = self._norm("encoder.layer_norm", hidden)
        projected = self._linear("projector", states[-1])
        return states, self._linear("classifier", projected.mean(1))

    def _convolve(self, hidden: Tensor) -> Tensor:
        for index, stride in enumerate(self.config.conv_stride):
            name = f"feature_extractor.conv_layers.{index}"
            weight, bias = self._pair(f"{name}.conv")
            hidden = functional.conv1d(hidden, weight, bias, stride)
            normed = self._norm(f"{name}.layer_norm", hidden.transpose(-2, -1))
            hidden = functional.gelu(normed.transpose(-2, -1))
        return hidden

    def _positions(self, hidden: Tensor) -> Tensor:
        name = "encoder.pos_conv_embed.conv"
        direction, size = self.weights[f"{name}.weight_v"], self.weights[f"{name}.weight_g"]
        weight = torch._weight_norm(direction, size, 2)
        moved = functional.conv1d(
            hidden.transpose(1, 2),
            weight,
            self.weights[f"{name}.bias"],
            padding=weight.shape[2] // 2,
            groups=self.config.num_conv_pos_embedding_groups,
        )
        return functional.gelu(moved[:, :, :-1]).transpose(1, 2)

    def _layer(self, name: str, hidden: Tensor) -> Tensor:
        hidden = hidden + self._attend(
            f"{name}.attention", self._norm(f"{name}.layer_norm", hidden)
        )
        inner = self._norm(f"{name}.final_layer_norm", hidden)
        inner = functional.gelu(self._linear(f"{name}.feed_forward.intermediate_dense", inner))
        hidden = hidden + self._linear(f"{name}.feed_forward.output_dense", inner)
        return self._linear(f"{name}.gate_bb_linear", hidden)

    def _attend(self, name: str, hidden: Tensor) -> Tensor:
        heads = self.config.num_attention_heads
        query, key, value = (
            self._linear(f"{name}.{one}_proj", hidden)[0].unflatten(1, (heads, -1)).transpose(0, 1)
            for one in "qkv"
        )
        query = query / math.sqrt(query.shape[-1])
        weights = torch.bmm(query, key.transpose(1, 2)).softmax(dim=-1)
        mixed = torch.bmm(weights, value).transpose(0, 1).flatten(1)
        return self._linear(f"{name}.out_proj", mixed[None])

    def _norm(self, name: str, hidden: Tensor) -> Tensor:
        conv = "conv_layers" in name  # these keep torch's own eps
        return functional.layer_norm(
            hidden,
            hidden.shape[-1:],
            *self._pair(name),
            1e-5 if conv else self.config.layer_norm_eps,
        )

    def _linear(self, name: str, hidden: Tensor) -> Tensor:
        return functional.linear(hidden, *self._pair(name))

    def _pair(self, name: str) -> tuple[Tensor, Tensor]:
        return self.weights[f"{name}.weight"], self.weights[f"{name}.bias"]
