"""Learned weighting of all layers, in the lobe itself."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from .layer_weights import weigh_layers
from .lobe import ExHuBERT


class WeightedExHuBERT(ExHuBERT):
    """Drop-in for SpeechBrain's WeightedSSLModel: waveforms (B, N) to embeddings (B, T, C).

    The result is one softmax-weighted sum of the layers, (B, T, C): usable from YAML alone, also
    inside ``LengthsCapableSequential``. Weights of layers learn also when the model is frozen.

    Parameters
    ----------
    hub
        Hub id or folder, the lobe's ``source``.
    save_path
        Where files from the Hub are kept.
    layernorm
        Normalise each layer over C first, so that weights compare layers of unlike scale.
    freeze
        Freeze the whole model; no graph is built of it.
    options
        Any other option of :class:`ExHuBERT`; ``layers`` are those that are weighed.

    Attributes
    ----------
    weights
        (L,) parameter, zero at the start: all layers count the same.
    num_layers
        L.
    """

    def __init__(
        self,
        hub: str,
        save_path: str | None = "",
        layernorm: bool = False,
        freeze: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(hub, save_path, freeze=freeze, output_all_hiddens=True, **options)
        self.layernorm = layernorm
        self.num_layers = len(self.layers)
        self.weights = nn.Parameter(torch.zeros(self.num_layers))

    def _combine(self, states: Tensor) -> Tensor:
        return weigh_layers(states, self.weights, self.layernorm)
