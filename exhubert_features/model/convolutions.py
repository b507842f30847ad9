"""From the waveform to conv features: strided convolutions, each with norm and GELU.

There are two ways through them. The plain one takes a batch and builds a graph. Where no
gradient is asked for on a CPU, each clip goes alone, channels last, so that every convolution is
a product of matrices on views and no norm transposes: twice as fast.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from .config import ExHuBERTConfig
from .layers import frame_mask


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
        self.kernel, self.stride = config.conv_kernel[index], config.conv_stride[index]
        self.conv = nn.Conv1d(
            config.conv_dim[index - 1] if index else 1,
            width,
            self.kernel,
            self.stride,
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

    def factors(self) -> list[Tensor]:
        """Cut the kernel into matrices of at most ``stride`` taps each, (taps * C, O).

        The taps of a waveform are so few that they stay together.
        """
        taps = self.conv.weight.permute(2, 1, 0)
        size = self.kernel if taps.shape[1] == 1 else self.stride
        return [part.flatten(0, 1) for part in taps.split(size)]

    def forward_clip(self, hidden: Tensor, factors: list[Tensor]) -> Tensor:
        """Do the same to one clip, (T, C) to (T', O).

        With no more taps than the stride, the frames under the kernel are rows of a view.
        """
        size = (len(hidden) - self.kernel) // self.stride + 1
        step = self.stride * hidden.shape[1]
        sums: Tensor | None = self.conv.bias
        for index, factor in enumerate(factors):
            rows = hidden[index * self.stride :].as_strided((size, len(factor)), (step, 1))
            if step < len(factor):
                rows = rows.contiguous()  # they overlap, which a product cannot take
            if sums is None:
                sums = rows @ factor
            else:
                sums = sums.addmm_(rows, factor) if index else torch.addmm(sums, rows, factor)
        result = cast("Tensor", sums)
        if self.layer_norm is not None:
            result = self.layer_norm(result.t().unsqueeze(0))[0].t().contiguous()
        return torch.ops.aten.gelu_(result)


class FeatureExtractor(nn.Module):
    """Waveform (B, N) to conv features (B, T, C), 50 frames a second."""

    def __init__(self, config: ExHuBERTConfig) -> None:
        super().__init__()
        self.conv_layers = nn.ModuleList(
            _ConvolutionLayer(config, index) for index in range(len(config.conv_dim))
        )
        self._factors: list[list[Tensor]] | None = None  # see transform()

    @property
    def layers(self) -> list[_ConvolutionLayer]:
        """The layers, typed."""
        return cast("list[_ConvolutionLayer]", list(self.conv_layers))

    def transform(self) -> None:
        """Keep the kernels as matrices from now on, until the weights may change."""
        self._factors = [layer.factors() for layer in self.layers]

    def train(self, mode: bool = True) -> FeatureExtractor:
        """Training may change the kernels: from then on they are taken as they are."""
        if mode:
            self._factors = None
        return super().train(mode)

    def _load_from_state_dict(self, *arguments: Any) -> None:
        self._factors = None
        super()._load_from_state_dict(*arguments)

    def forward(self, waveforms: Tensor, lengths: Tensor | None) -> Tensor:
        """Turn waveforms (B, samples) into frames (B, T, D)."""
        if self._may_go_by_clip(waveforms):
            sizes = [waveforms.shape[1]] * len(waveforms) if lengths is None else lengths.tolist()
            return self.forward_clips(waveforms, sizes)
        hidden = waveforms.unsqueeze(1)
        for layer in self.layers:
            if lengths is not None:
                lengths = (lengths - layer.kernel) // layer.stride + 1
            hidden = layer(hidden, lengths)
        return hidden.transpose(1, 2)

    def forward_clips(self, waveforms: Tensor, sizes: list[int]) -> Tensor:
        """Do the same clip by clip, without a graph; beyond a clip's own frames are zeros."""
        factors = self._factors or [layer.factors() for layer in self.layers]
        clips = []
        for waveform, size in zip(waveforms, sizes, strict=True):
            hidden = waveform[:size].unsqueeze(1)
            for layer, matrices in zip(self.layers, factors, strict=True):
                hidden = layer.forward_clip(hidden, matrices)
            clips.append(hidden)
        return nn.utils.rnn.pad_sequence(clips, batch_first=True)

    def _may_go_by_clip(self, waveforms: Tensor) -> bool:
        if waveforms.device.type != "cpu" or torch.compiler.is_compiling():
            return False
        if torch.is_autocast_enabled("cpu"):
            return False  # it casts no product that is added in place
        tensors = (waveforms, *self.parameters())
        return not (torch.is_grad_enabled() and any(one.requires_grad for one in tensors))

    def _freeze_parameters(self) -> None:
        """Freeze the convolutions, under the name by which SpeechBrain recipes do it."""
        self.requires_grad_(False)
