"""Masked statistics over frames, and joining those of windows into those of a clip."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..windows import Window


def pool_frames(hidden: Tensor, mask: Tensor | None, pools: Sequence[str]) -> Tensor:
    """Compute statistics over the frames of each row that count.

    Parameters
    ----------
    hidden
        (B, T, D), any floating type; frames outside the mask have no influence, not even
        when they are not finite.
    mask
        (B, T), True where a frame counts; None when all do, which saves a copy.
    pools
        Any of ``mean``, ``std`` (of the population: 0 for one frame) and ``max``.

    Returns
    -------
    (B, P, D) float32. A row without frames has mean and std 0 and max -inf, which
    :func:`join` ignores.
    """
    mask = None if mask is None else mask.unsqueeze(-1)
    count = hidden.shape[1] if mask is None else mask.sum(dim=1).clamp(min=1)

    def keep(values: Tensor, other: float) -> Tensor:
        return values if mask is None else torch.where(mask, values, other)

    mean = keep(hidden, 0.0).sum(dim=1, dtype=torch.float32) / count
    parts = []
    for name in pools:
        if name == "mean":
            parts.append(mean)
        elif name == "std":
            # Around the mean, not as a difference of squares, which cancels.
            centred = keep(hidden.float() - mean.unsqueeze(1), 0.0)
            parts.append((centred.square().sum(dim=1) / count).sqrt())
        else:
            parts.append(keep(hidden, -torch.inf).amax(dim=1).float())
    return torch.stack(parts, dim=1)


def parts_of(pools: Sequence[str]) -> tuple[str, ...]:
    """Name the statistics to keep of windows: a std can only be joined beside its mean."""
    return (*pools, "mean") if "std" in pools and "mean" not in pools else tuple(pools)


def join(parts: Tensor, counts: Tensor, pools: Sequence[str]) -> Tensor:
    """Join the statistics of windows into those of the clip, as if pooled over all their frames.

    Parameters
    ----------
    parts
        (W, ..., P, D) statistics of W windows.
    counts
        (W,) frames behind each.
    pools
        Names of the P statistics; ``mean`` must be among them where ``std`` is.

    Returns
    -------
    (..., P, D) float32; accumulated in float64.
    """
    values = {name: parts[..., place, :].double() for place, name in enumerate(pools)}
    weights = (counts.double() / counts.sum()).reshape(-1, *[1] * (parts.ndim - 2))
    joined = {}
    for name, value in values.items():
        if name == "max":
            joined[name] = value.amax(dim=0)
        elif name == "mean":
            joined[name] = (weights * value).sum(dim=0)
        else:
            means = values["mean"]
            between = (means - (weights * means).sum(dim=0)).square()
            joined[name] = (weights * (value.square() + between)).sum(dim=0).sqrt()
    return torch.stack([joined[name] for name in pools], dim=-2).float()


class BatchPooling:
    """Pools each state of a batch of windows as the model hands it over; keeps frames asked for.

    Parameters
    ----------
    windows
        The B windows of the batch.
    layers
        Hidden-state ids to pool.
    frame_layers
        Hidden-state ids whose frames to keep.
    pools
        Names of the P statistics.
    device
        Where the states will be.
    """

    def __init__(
        self,
        windows: Sequence[Window],
        *,
        layers: Sequence[int],
        frame_layers: Sequence[int],
        pools: Sequence[str],
        device: torch.device,
    ) -> None:
        self._windows = windows
        self._layers, self._frame_layers, self._pools = layers, frame_layers, pools
        self._pooled: dict[int, Tensor] = {}
        self._frames: dict[int, Tensor] = {}
        # Frames that count in no row are cut off; only where rows differ a mask is needed.
        self._start = min(window.frame_start for window in windows)
        self._stop = max(window.frame_stop for window in windows)
        self._mask: Tensor | None = None
        if len({(window.frame_start, window.frame_stop) for window in windows}) > 1:
            index = torch.arange(self._start, self._stop)
            bounds = torch.tensor([(window.frame_start, window.frame_stop) for window in windows])
            inside = (index >= bounds[:, :1]) & (index < bounds[:, 1:])
            self._mask = inside.to(device)

    def __call__(self, layer: int, hidden: Tensor) -> None:
        """Take the state (B, T, D) of a layer."""
        hidden = hidden[:, self._start : self._stop]
        if layer in self._frame_layers:
            self._frames[layer] = hidden.float().cpu()
        if layer in self._layers:
            self._pooled[layer] = pool_frames(hidden, self._mask, self._pools)

    def pooled(self) -> Tensor:
        """Return the statistics of all rows on the CPU, (L, B, P, D), in the order of layers."""
        return torch.stack([self._pooled[layer] for layer in self._layers]).cpu()

    def frames_of(self, row: int) -> Tensor | None:
        """Return the counted frames (F, T, D) of one row; None when none are kept."""
        if not self._frame_layers:
            return None
        window = self._windows[row]
        span = slice(window.frame_start - self._start, window.frame_stop - self._start)
        return torch.stack([self._frames[layer][row, span] for layer in self._frame_layers])
