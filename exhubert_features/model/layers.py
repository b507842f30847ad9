"""The building blocks of HuBERT: convolutions, positions, attention, one transformer layer.

Attribute names spell the released checkpoint's keys.
"""

from __future__ import annotations

from typing import Any, TypeGuard

import torch
from torch import Tensor, nn
from torch.nn import functional

from .config import ExHuBERTConfig


def frame_mask(frames: Tensor, size: int) -> Tensor:
    """(B, size), True on the first ``frames`` (B,) of each row."""
    return torch.arange(size, device=frames.device) < frames.unsqueeze(1)


class _ChannelNorm(nn.LayerNorm):
    """Layer norm over the channels of (B, C, T)."""

    def forward(self, hidden: Tensor, frames: Tensor | None = None) -> Tensor:
        return super().forward(hidden.transpose(1, 2)).transpose(1, 2)


class _TimeNorm(nn.GroupNorm):
    """Norm of each channel over time, (B, C, T), counting only each clip's own frames."""

    def forward(self, hidden: Tensor, frames: Tensor | None = None) -> Tensor:
        if frames is None:
            return super().forward(hidden)
        mask = frame_mask(frames, hidden.shape[2]).unsqueeze(1)
        values = hidden.float() * mask
        count = frames.view(-1, 1, 1)
        mean = values.sum(2, keepdim=True) / count
        variance = ((values - mean).square() * mask).sum(2, keepdim=True) / count
        normed = (hidden.float() - mean) * torch.rsqrt(variance + self.eps)
        scaled = normed * self.weight.unsqueeze(1) + self.bias.unsqueeze(1)
        return scaled.to(hidden.dtype)


class _ConvolutionLayer(nn.Module):
    """Strided convolution, norm (in base models only in the first layer), GELU."""

    def __init__(self, config: ExHuBERTConfig, index: int) -> None:
        super().__init__()
        width = config.conv_dim[index]
        self.conv = nn.Conv1d(
            config.conv_dim[index - 1] if index else 1,
            width,
            config.conv_kernel[index],
            config.conv_stride[index],
            bias=config.conv_bias,
        )
        self.layer_norm: _ChannelNorm | _TimeNorm | None = None
        if config.feat_extract_norm == "layer":
            self.layer_norm = _ChannelNorm(width)  # torch's own eps, whatever layer_norm_eps says
        elif index == 0:
            self.layer_norm = _TimeNorm(width, width)

    def forward(self, hidden: Tensor, frames: Tensor | None) -> Tensor:
        hidden = self.conv(hidden)
        if self.layer_norm is not None:
            hidden = self.layer_norm(hidden, frames)
        return functional.gelu(hidden)


class FeatureExtractor(nn.Module):
    """Waveform (B, N) to conv features (B, T, C), 50 frames a second."""

    def __init__(self, config: ExHuBERTConfig) -> None:
        super().__init__()
        self.conv_layers = nn.ModuleList(
            _ConvolutionLayer(config, index) for index in range(len(config.conv_dim))
        )
        self.steps = tuple(zip(config.conv_kernel, config.conv_stride, strict=True))

    def forward(self, waveforms: Tensor, lengths: Tensor | None) -> Tensor:
        """Turn waveforms (B, samples) into frames (B, T, D)."""
        hidden = waveforms.unsqueeze(1)
        for layer, (kernel, stride) in zip(self.conv_layers, self.steps, strict=True):
            if lengths is not None:
                lengths = (lengths - kernel) // stride + 1
            hidden = layer(hidden, lengths)
        return hidden.transpose(1, 2)

    def _freeze_parameters(self) -> None:
        """Freeze the convolutions, under the name by which SpeechBrain recipes do it."""
        self.requires_grad_(False)


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


class WeightNormConvolution(nn.Module):
    """Grouped convolution whose weight is ``weight_g * weight_v / |weight_v|`` per kernel tap."""

    def __init__(self, width: int, kernel: int, groups: int) -> None:
        super().__init__()
        self.kernel, self.groups = kernel, groups
        self.bias = nn.Parameter(torch.zeros(width))
        self.weight_g = nn.Parameter(torch.ones(1, 1, kernel))
        self.weight_v = nn.Parameter(torch.empty(width, width // groups, kernel))
        nn.init.normal_(self.weight_v)

    def forward(self, hidden: Tensor) -> Tensor:
        """Convolve (B, D, T); an even kernel gives one frame more than it is given."""
        direction = self.weight_v.float()
        norm = torch.linalg.vector_norm(direction, dim=(0, 1), keepdim=True)
        weight = (direction * (self.weight_g.float() / norm)).to(hidden.dtype)
        return functional.conv1d(
            hidden, weight, self.bias.to(hidden.dtype), padding=self.kernel // 2, groups=self.groups
        )


class PositionalConvolution(nn.Module):
    """Relative position as a wide grouped convolution over frames, (B, T, D) to (B, T, D)."""

    def __init__(self, config: ExHuBERTConfig) -> None:
        super().__init__()
        self.conv = WeightNormConvolution(
            config.hidden_size,
            config.num_conv_pos_embeddings,
            config.num_conv_pos_embedding_groups,
        )

    def forward(self, hidden: Tensor) -> Tensor:
        """Compute what to add to (B, T, D)."""
        frames = hidden.shape[1]
        # An even kernel gives one frame too many at the end.
        moved = self.conv(hidden.transpose(1, 2))[..., :frames]
        return functional.gelu(moved).transpose(1, 2)


class _Attention(nn.Module):
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

    def forward(self, hidden: Tensor, mask: Tensor | None) -> Tensor:
        query, key, value = (
            projection(hidden).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for projection in (self.q_proj, self.k_proj, self.v_proj)
        )
        mixed = functional.scaled_dot_product_attention(
            query, key, value, attn_mask=mask, dropout_p=self.dropout if self.training else 0.0
        )
        return self.out_proj(mixed.transpose(1, 2).flatten(2))


class _FeedForward(nn.Module):
    """Two products with a GELU between, (B, T, D) to (B, T, D)."""

    def __init__(self, config: ExHuBERTConfig) -> None:
        super().__init__()
        self.intermediate_dense = nn.Linear(config.hidden_size, config.intermediate_size)
        self.output_dense = nn.Linear(config.intermediate_size, config.hidden_size)
        self.intermediate_dropout = nn.Dropout(config.activation_dropout)
        self.output_dropout = nn.Dropout(config.hidden_dropout)

    def forward(self, hidden: Tensor) -> Tensor:
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
        self.attention = _Attention(config)
        self.dropout = nn.Dropout(config.hidden_dropout)
        self.layer_norm = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.feed_forward = _FeedForward(config)
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

    def _transform(self, hidden: Tensor, mask: Tensor | None) -> Tensor:
        if self.norm_first:
            hidden = hidden + self.dropout(self.attention(self.layer_norm(hidden), mask))
            return hidden + self.feed_forward(self.final_layer_norm(hidden))
        hidden = self.layer_norm(hidden + self.dropout(self.attention(hidden, mask)))
        return self.final_layer_norm(hidden + self.feed_forward(hidden))

    def forward(self, hidden: Tensor, mask: Tensor | None) -> Tensor:
        """Turn the state (B, T, D) before the layer into the one behind it."""
        output = self._transform(hidden, mask)
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
