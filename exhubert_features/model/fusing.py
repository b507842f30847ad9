"""Encoder layers for inference: the same computation with other linear layers in it."""

from __future__ import annotations

import copy
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from .layers import Attention, EncoderLayer, FeedForward


class Kernel(Protocol):
    """What makes a linear layer out of a weight (O, I) and a bias (O,)."""

    def __call__(
        self, weight: Tensor, bias: Tensor, *, gelu: bool = False, gate: bool = False
    ) -> nn.Module:
        """Make it; ``gelu`` follows the product, ``gate`` weights may be near the identity."""


def fused_layer(plain: EncoderLayer, kernel: Kernel) -> EncoderLayer:
    """Make a layer for inference with other linear layers; norms are those of ``plain``."""
    layer = copy.copy(plain)
    layer._modules = dict(plain._modules)
    layer.add_module("attention", _fused_attention(plain.attention, kernel))
    layer.add_module("feed_forward", _FusedFeedForward(plain.feed_forward, kernel))
    gate = plain.gate_bb_linear
    if gate is not None and not plain.identity_gate:
        layer.add_module("gate_bb_linear", kernel(gate.weight, gate.bias, gate=True))
    return layer.eval()


def _fused_attention(plain: Attention, kernel: Kernel) -> Attention:
    if type(plain) is Attention:
        return _FusedAttention(plain, kernel)
    attention = copy.copy(plain)  # one with positions of its own keeps them
    attention._modules = dict(plain._modules)
    for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
        linear: Any = plain.get_submodule(name)
        attention.add_module(name, kernel(linear.weight, linear.bias))
    return attention


class _FusedAttention(Attention):
    """Attention with one product for queries, keys and values."""

    def __init__(self, plain: Attention, kernel: Kernel) -> None:
        nn.Module.__init__(self)
        self.heads, self.dropout = plain.heads, plain.dropout
        parts = (plain.q_proj, plain.k_proj, plain.v_proj)
        weight = torch.cat([part.weight for part in parts])
        self.qkv = kernel(weight, torch.cat([part.bias for part in parts]))
        self.add_module("out_proj", kernel(plain.out_proj.weight, plain.out_proj.bias))

    def project(self, hidden: Tensor) -> tuple[Tensor, ...]:
        return self.qkv(hidden).chunk(3, dim=-1)


class _FusedFeedForward(nn.Module):
    """Feed forward with the GELU as part of its first product."""

    def __init__(self, plain: FeedForward, kernel: Kernel) -> None:
        super().__init__()
        first, second = plain.intermediate_dense, plain.output_dense
        self.first = kernel(first.weight, first.bias, gelu=True)
        self.second = kernel(second.weight, second.bias)

    def forward(self, hidden: Tensor) -> Tensor:
        return self.second(self.first(hidden))
