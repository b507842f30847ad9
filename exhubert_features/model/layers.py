"""The building blocks of the encoder: projection, attention, feed forward, one layer.

Attribute names spell the released checkpoint's keys.
"""

from __future__ import annotations

from typing import Any, TypeGuard

import torch
from torch import Tensor, nn
from torch.nn import functional

from .config import ExHuBERTConfig
from .relative import distance_buckets


def frame_mask(frames: Tensor, size: int) -> Tensor:
    """(B, size), True on the first ``frames`` (B,) of each row."""
    return torch.arange(size, device=frames.device) < frames.unsqueeze(1)


class FeatureProjection(nn.Module):
    """Conv features (B, T, C) to the encoder's width (B, T, D)."""

    def __init__(self, config: ExHuBERTConfig) -> None:
        super().__init__()
        width = config.conv_dim[-1]
        self.layer_norm = (
            nn.LayerNorm(width, eps=config.layer_norm_eps) if config.feat_proj_layer_norm else None
        )
        self.projection = nn.Linear(width, config.hidden_size)
        self.dropout = nn.Dropout(config.feat_proj_dropout)

    def forward(self, hidden: Tensor) -> Tensor:
        """Map (B, T, D) of the convolutions to (B, T, D) of the layers."""
        if self.layer_norm is not None:
            hidden = self.layer_norm(hidden)
        return self.dropout(self.projection(hidden))


class Attention(nn.Module):
    """Multi-head self-attention over (B, T, D); ``mask`` (B, 1, 1, T) is True on real frames."""

    def __init__(self, config: ExHuBERTConfig) -> None:
        super().__init__()
        width = config.hidden_size
        self.heads = config.num_attention_heads
        self.dropout = config.attention_dropout
        self.k_proj = nn.Linear(width, width)
        self.v_proj = nn.Linear(width, width)
        self.q_proj = nn.Linear(width, width)
        self.out_proj = nn.Linear(width, width)
        self.qkv: nn.Module | None
        self.register_module("qkv", None)  # one product in place of three, see fusing

    def project(self, hidden: Tensor) -> tuple[Tensor, ...]:
        """Compute queries, keys and values, (B, T, D) each."""
        if self.qkv is not None:
            return self.qkv(hidden).chunk(3, dim=-1)
        return self.q_proj(hidden), self.k_proj(hidden), self.v_proj(hidden)

    def positions(self, frames: int) -> Tensor | None:
        """Scores (H, T, T) that frames have by where they stand; None but in WavLM."""
        return None

    def forward(
        self, hidden: Tensor, mask: Tensor | None, positions: Tensor | None = None
    ) -> Tensor:
        """Let each frame of (B, T, D) attend to all."""
        if positions is not None:
            mask = self._scores(hidden, mask, positions)
        query, key, value = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in self.project(hidden)
        )
        mixed = functional.scaled_dot_product_attention(
            query, key, value, attn_mask=mask, dropout_p=self.dropout if self.training else 0.0
        )
        return self.out_proj(mixed.transpose(1, 2).flatten(2))

    def _scores(self, hidden: Tensor, mask: Tensor | None, positions: Tensor) -> Tensor:
        raise NotImplementedError


class _RelativeAttention(Attention):
    """WavLM's: how far frames stand apart counts too, as much as each frame's gate lets it."""

    def __init__(self, config: ExHuBERTConfig, index: int) -> None:
        super().__init__(config)
        self.distance = config.max_bucket_distance
        self.gru_rel_pos_const = nn.Parameter(torch.ones(1, self.heads, 1, 1))
        self.gru_rel_pos_linear = nn.Linear(config.hidden_size // self.heads, 8)
        # One table for all layers, where the checkpoint has it: in the first.
        self.rel_attn_embed = nn.Embedding(config.num_buckets, self.heads) if index == 0 else None

    def positions(self, frames: int) -> Tensor | None:
        """Scores (H, T, T) by distance; the first layer's serve all."""
        if self.rel_attn_embed is None:
            return None
        weight = self.rel_attn_embed.weight
        buckets = distance_buckets(frames, len(weight), self.distance).to(weight.device)
        return self.rel_attn_embed(buckets).permute(2, 0, 1)

    def _scores(self, hidden: Tensor, mask: Tensor | None, positions: Tensor) -> Tensor:
        """(B, H, T, T), gated frame by frame and head by head; -inf on padding."""
        by_head = hidden.unflatten(-1, (self.heads, -1)).transpose(1, 2)
        gates = self.gru_rel_pos_linear(by_head).unflatten(-1, (2, 4)).sum(-1).sigmoid()
        first, second = gates.chunk(2, dim=-1)
        scores = (first * (second * self.gru_rel_pos_const - 1) + 2) * positions
        return scores if mask is None else scores.masked_fill(~mask, -torch.inf)


class FeedForward(nn.Module):
    """Two products with a GELU between, (B, T, D) to (B, T, D)."""

    def __init__(self, config: ExHuBERTConfig) -> None:
        super().__init__()
        self.intermediate_dense = nn.Linear(config.hidden_size, config.intermediate_size)
        self.output_dense = nn.Linear(config.intermediate_size, config.hidden_size)
        self.intermediate_dropout = nn.Dropout(config.activation_dropout)
        self.output_dropout = nn.Dropout(config.hidden_dropout)

    def forward(self, hidden: Tensor) -> Tensor:
        """Transform each frame of (B, T, D)."""
        inner = functional.gelu(self.intermediate_dense(hidden))
        return self.output_dropout(self.output_dense(self.intermediate_dropout(inner)))


class EncoderLayer(nn.Module):
    """One transformer layer (norm first or norm last) and, in ExHuBERTNetwork, its gate.

    Even layers of ExHuBERT are the frozen originals; an odd layer's gated output is added to
    its input, so zero odd gates and identity even gates give back the original HuBERT.
    """

    def __init__(self, config: ExHuBERTConfig, index: int) -> None:
        super().__init__()
        width = config.hidden_size
        self.norm_first = config.do_stable_layer_norm
        self.skip = config.gated and index % 2 == 1
        self.identity_gate = False  # set by ExHuBERTNetwork.detect_identity_gates
        relative = config.family == "wavlm"
        self.attention = _RelativeAttention(config, index) if relative else Attention(config)
        self.dropout = nn.Dropout(config.hidden_dropout)
        self.layer_norm = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.feed_forward = FeedForward(config)
        self.final_layer_norm = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.gate_bb_linear = nn.Linear(width, width) if config.gated else None
        if self.gate_bb_linear is not None:
            (nn.init.zeros_ if self.skip else nn.init.eye_)(self.gate_bb_linear.weight)
            nn.init.zeros_(self.gate_bb_linear.bias)

    def train(self, mode: bool = True) -> EncoderLayer:
        """Training may change the gate: from then on it is computed again."""
        gate = self.gate_bb_linear
        if mode and gate is not None and any(one.requires_grad for one in gate.parameters()):
            self.identity_gate = False
        return super().train(mode)

    def _load_from_state_dict(self, *arguments: Any) -> None:
        self.identity_gate = False  # known of the old weights only
        super()._load_from_state_dict(*arguments)

    def detect_identity_gate(self) -> bool:
        """Find out whether the gate is the identity to the bit, and skip it then."""
        gate = self.gate_bb_linear
        if self.skip or not _is_plain(gate) or gate.weight.is_meta:
            return False
        # The diagonal first: reading all of every gate would touch 100 MB for nothing.
        plausible = bool((gate.weight.diagonal() == 1).all() & (gate.bias == 0).all())
        self.identity_gate = plausible and int(gate.weight.count_nonzero()) == len(gate.bias)
        return self.identity_gate

    def _transform(self, hidden: Tensor, mask: Tensor | None, positions: Tensor | None) -> Tensor:
        if self.norm_first:
            normed = self.layer_norm(hidden)
            hidden = hidden + self.dropout(self.attention(normed, mask, positions))
            return hidden + self.feed_forward(self.final_layer_norm(hidden))
        hidden = self.layer_norm(hidden + self.dropout(self.attention(hidden, mask, positions)))
        return self.final_layer_norm(hidden + self.feed_forward(hidden))

    def forward(
        self, hidden: Tensor, mask: Tensor | None, positions: Tensor | None = None
    ) -> Tensor:
        """Turn the state (B, T, D) before the layer into the one behind it."""
        output = self._transform(hidden, mask, positions)
        gate = self.gate_bb_linear
        # Adapters may have taken the gate's place since, or it learns: then it is computed.
        skipped = self.identity_gate and _is_plain(gate)
        if gate is not None and not (skipped and not _learns(gate)):
            output = gate(output)
        return output + hidden if self.skip else output


def _is_plain(gate: nn.Module | None) -> TypeGuard[nn.Linear]:
    """Whether the gate is a linear map and nothing besides, as an adapter would be."""
    return type(gate) is nn.Linear


def _learns(gate: nn.Linear) -> bool:
    return torch.is_grad_enabled() and gate.weight.requires_grad
