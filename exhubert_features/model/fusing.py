"""Encoder layers for inference: the same computation with other linear layers in it."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Protocol, TypeVar

import torch
from torch import Tensor, nn

from .layers import Attention, EncoderLayer, FeedForward

Module = TypeVar("Module", bound=nn.Module)


class Kernel(Protocol):
    """What makes a linear layer out of a weight (O, I) and a bias (O,)."""

    def __call__(
        self, weight: Tensor, bias: Tensor, *, gelu: bool = False, gate: bool = False
    ) -> nn.Module:
        """Make it; ``gelu`` follows the product, ``gate`` weights may be near the identity."""


def fused_layer(plain: EncoderLayer, kernel: Kernel) -> EncoderLayer:
    """Make a layer for inference with other linear layers; all else is that of ``plain``."""
    feed_forward = _FusedFeedForward(plain.feed_forward, kernel)
    parts = {"attention": _fused_attention(plain.attention, kernel), "feed_forward": feed_forward}
    gate = plain.gate_bb_linear
    if gate is not None and not plain.identity_gate:
        parts["gate_bb_linear"] = kernel(gate.weight, gate.bias, gate=True)
    return _with_parts(plain, parts).eval()


def _fused_attention(plain: Attention, kernel: Kernel) -> Attention:
    """Attention with one product for queries, keys and values."""
    projections = (plain.q_proj, plain.k_proj, plain.v_proj)
    weight, bias = (
        torch.cat([getattr(part, name) for part in projections]) for name in ("weight", "bias")
    )
    out = kernel(plain.out_proj.weight, plain.out_proj.bias)
    fused = _with_parts(plain, {"qkv": kernel(weight, bias), "out_proj": out})
    for name in ("q_proj", "k_proj", "v_proj"):
        delattr(fused, name)
    return fused


class _FusedFeedForward(nn.Module):
    """Feed forward with the GELU as part of its first product."""

    def __init__(self, plain: FeedForward, kernel: Kernel) -> None:
        super().__init__()
        first, second = plain.intermediate_dense, plain.output_dense
        self.first = kernel(first.weight, first.bias, gelu=True)
        self.second = kernel(second.weight, second.bias)

    def forward(self, hidden: Tensor) -> Tensor:
        return self.second(self.first(hidden))


def _with_parts(module: Module, parts: Mapping[str, nn.Module]) -> Module:
    """Copy a module with other parts in it; what is not replaced is shared."""
    twin = copy.copy(module)
    twin._modules = {**module._modules, **parts}
    return twin
