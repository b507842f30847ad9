"""Where a frame stands: a wide grouped convolution over frames, added to the encoder's input."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from .config import ExHuBERTConfig


class WeightNormConvolution(nn.Module):
    """Grouped convolution whose weight is ``weight_g * weight_v / |weight_v|`` per kernel tap."""

    def __init__(self, width: int, kernel: int, groups: int) -> None:
        super().__init__()
        self.kernel, self.groups = kernel, groups
        self.bias = nn.Parameter(torch.zeros(width))
        self.weight_g = nn.Parameter(torch.ones(1, 1, kernel))
        self.weight_v = nn.Parameter(torch.empty(width, width // groups, kernel))
        nn.init.normal_(self.weight_v)

    @property
    def weight(self) -> Tensor:
        """The kernels (D, D / groups, taps), in float32."""
        direction = self.weight_v.float()
        norm = direction.flatten(0, 1).square().sum(0).sqrt()  # twice as fast as vector_norm
        return direction * (self.weight_g.float() / norm)

    def forward(self, hidden: Tensor) -> Tensor:
        """Convolve (B, D, T); an even kernel gives one frame more than it is given."""
        return functional.conv1d(
            hidden,
            self.weight.to(hidden.dtype),
            self.bias.to(hidden.dtype),
            padding=self.kernel // 2,
            groups=self.groups,
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
        self._spectrum: Tensor | None = None  # see transform()

    def transform(self) -> None:
        """Convolve by Fourier transform from now on, until the weights may change.

        With 128 taps that is ten times as fast on a CPU, and as exact.
        """
        self._spectrum = _kernel_spectrum(self.conv.weight.detach(), self.conv.groups)

    def train(self, mode: bool = True) -> PositionalConvolution:
        """Training may change the kernels: from then on they are taken as they are."""
        if mode:
            self._spectrum = None
        return super().train(mode)

    def _load_from_state_dict(self, *arguments: Any) -> None:
        self._spectrum = None
        super()._load_from_state_dict(*arguments)

    def forward(self, hidden: Tensor) -> Tensor:
        """Compute what to add to (B, T, D)."""
        if self._spectrum is not None:
            moved = _convolve_spectrum(hidden.float(), self._spectrum, self.conv.kernel)
            return functional.gelu((moved + self.conv.bias).to(hidden.dtype))
        frames = hidden.shape[1]
        # An even kernel gives one frame too many at the end.
        moved = self.conv(hidden.transpose(1, 2))[..., :frames]
        return functional.gelu(moved).transpose(1, 2)


def _kernel_spectrum(weight: Tensor, groups: int) -> Tensor:
    """Turn kernels (D, D / groups, K) into (F * groups, in, out), a matrix each."""
    spectrum = torch.fft.rfft(weight, n=_block_size(weight.shape[2])).conj()
    by_group = spectrum.unflatten(0, (groups, -1)).permute(3, 0, 2, 1)
    return by_group.flatten(0, 1).resolve_conj().contiguous()


def _convolve_spectrum(hidden: Tensor, spectrum: Tensor, kernel: int) -> Tensor:
    """Convolve (B, T, D) in blocks of frames that overlap by the kernel."""
    batch, frames, width = hidden.shape
    size = _block_size(kernel)
    step = size - kernel + 1
    count = -(-frames // step)
    before = kernel // 2
    padded = functional.pad(hidden, (0, 0, before, count * step + kernel - 1 - before - frames))
    blocks = padded.unfold(1, size, step).flatten(0, 1)  # (B * count, D, size)
    waves = torch.fft.rfft(blocks).permute(2, 0, 1)  # (F, B * count, D)
    groups = len(spectrum) // len(waves)
    grouped = waves.unflatten(2, (groups, -1)).transpose(1, 2).flatten(0, 1)
    mixed = torch.bmm(grouped, spectrum).unflatten(0, (-1, groups)).permute(2, 1, 3, 0)
    moved = torch.fft.irfft(mixed.flatten(1, 2), n=size)[..., :step]  # (B * count, D, step)
    return moved.transpose(1, 2).reshape(batch, count * step, width)[:, :frames]


def _block_size(kernel: int) -> int:
    """Long enough that a clip of 3 s, 149 frames, is one block: 288 for a kernel of 128."""
    return 2 * kernel + max(2, kernel // 4)
