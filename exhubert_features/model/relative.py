"""Distances between frames in buckets: near ones each their own, far ones ever coarser."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def distance_buckets(frames: int, buckets: int, farthest: int) -> Tensor:
    """Tell the bucket of each pair of frames, as WavLM was trained with.

    Half of the buckets are for what comes later. Of each half, half hold one distance each, the
    others grow with the logarithm up to ``farthest``, and the last one takes all beyond.

    Returns
    -------
    (T, T) indices of the distance from the first frame to the second.
    """
    distance = torch.arange(1 - frames, frames)
    half = buckets // 2
    near = half // 2
    far = torch.log(distance.abs().float() / near) / math.log(farthest / near)
    # Distance 0 has the logarithm -inf; it is near, so what it gives here is not used.
    coarse = (near + far.clamp(min=0) * (half - near)).long().clamp(max=half - 1)
    by_distance = torch.where(distance.abs() < near, distance.abs(), coarse)
    by_distance = by_distance + (distance > 0) * half
    place = torch.arange(frames)
    return by_distance[place - place.unsqueeze(1) + frames - 1]
