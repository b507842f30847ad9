"""One representation out of many layers."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..errors import UsageError


class LayerWeights(nn.Module):
    """Learned softmax weighting over layers, (L, B, T, C) to (B, T, C).

    Put it behind ``ExHuBERT(..., output_all_hiddens=True)`` in place of ``WeightedSSLModel``;
    any shape (L, ..., C) will do, pooled features included.

    Parameters
    ----------
    num_layers
        L.
    layernorm
        Normalise each layer over C first, so that weights compare layers of unlike scale.
    """

    def __init__(self, num_layers: int, layernorm: bool = False) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.zeros(num_layers))
        self.layernorm = layernorm

    def forward(self, hidden_states: Tensor) -> Tensor:
        """Weigh the layers of (L, ..., C)."""
        if len(hidden_states) != len(self.weights):
            raise UsageError(
                f"{len(hidden_states)} layers for {len(self.weights)} weights",
                expected="one weight for each layer",
                remedy="Set num_layers to the number of hidden states the lobe returns",
            )
        return weigh_layers(hidden_states, self.weights, self.layernorm)


def weigh_layers(hidden_states: Tensor, weights: Tensor, layernorm: bool) -> Tensor:
    """Sum (L, ..., C) up to (..., C), by the softmax of ``weights`` (L,)."""
    if layernorm:
        hidden_states = functional.layer_norm(hidden_states, hidden_states.shape[-1:])
    return torch.tensordot(weights.softmax(dim=0).to(hidden_states.dtype), hidden_states, dims=1)
