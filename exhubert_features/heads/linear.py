"""Linear fits in closed form: many training sets out of the same sums.

Classification is linear discriminant analysis with equal priors, so every class counts alike
however many clips it has; regression is ridge. Both need only sums over clips of x, x xᵀ and
x yᵀ. Kept per block of clips, the sums of any union of blocks are additions, and a fit costs
one Cholesky factorisation, whatever the number of clips: that is what makes nested folds on
49 layers affordable.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

# From nearly none to mostly the features' own variances, for 500 to 50,000 clips.
SHRINKAGES = (0.02, 0.1, 0.4, 0.9)
NEVER = -100.0  # the bias of a class that the training clips do not have


@dataclass(frozen=True, kw_only=True)
class LinearMap:
    """``features @ weight.T + bias``: weight (C, D), bias (C,), a row a class or a value."""

    weight: Tensor
    bias: Tensor

    def __call__(self, features: Tensor) -> Tensor:
        """Map (N, D) to (N, C)."""
        return torch.addmm(self.bias, features, self.weight.T)


class BlockSums:
    """Sums over each block of clips, and the fits that follow from them.

    Parameters
    ----------
    features
        (N, D) float32, the blocks one after the other.
    targets
        (N, C) one-hot classes or shares of them, or (N, T) values. A clip of which a value is
        NaN is in no sum; it can be told something by the maps like any other.
    sizes
        Number of clips of each block.
    classification
        Which of the two fits.
    """

    def __init__(
        self, features: Tensor, targets: Tensor, sizes: Sequence[int], *, classification: bool
    ) -> None:
        # The result does not depend on this shift and scale (what is fitted below follows
        # them); they only keep single precision from losing digits to large features.
        self._centre = features.mean(dim=0)
        scale = features.std(dim=0)
        self._scale = torch.where(scale > 0, scale, 1.0)
        self.features = (features - self._centre) / self._scale
        self.classification = classification
        known = targets.isfinite().all(dim=1)
        parts = [
            (x[here], y[here])
            for x, y, here in zip(
                *(each.split(list(sizes)) for each in (self.features, targets, known)), strict=True
            )
        ]
        self._count = torch.tensor([len(x) for x, _ in parts], dtype=torch.float32)
        self._gram = torch.stack([x.T @ x for x, _ in parts])  # (K, D, D)
        self._cross = torch.stack([y.T @ x for x, y in parts])  # (K, C, D)
        self._sum = torch.stack([x.sum(dim=0) for x, _ in parts])  # (K, D)
        self._target = torch.stack([y.sum(dim=0) for _, y in parts])  # (K, C)
        self._whole_gram = self._gram.sum(dim=0)

    def fit(self, blocks: Sequence[int], shrinkages: Sequence[float]) -> list[LinearMap]:
        """One map (of :attr:`features`) per shrinkage, fitted on the union of some blocks."""
        chosen = list(blocks)
        cross, target = self._cross[chosen].sum(dim=0), self._target[chosen].sum(dim=0)
        count, total = self._count[chosen].sum(), self._sum[chosen].sum(dim=0)
        scatter = self._scatter(chosen)
        if self.classification:
            means = cross / target.clamp(min=1)[:, None]
            scatter.addmm_((means * target[:, None]).T, means, alpha=-1)
            present = target > 0
            centre = means[present].mean(dim=0)
            right = torch.where(present[:, None], means - centre, 0.0)
        else:
            centre, offset = total / count, target / count
            scatter.addr_(centre, total, alpha=-1)
            right = (cross - offset[:, None] * total) / count
        scatter /= count
        variances = scatter.diagonal().clamp(min=1e-6)
        maps = []
        for shrinkage in shrinkages:
            shrunk = scatter * (1 - shrinkage)
            shrunk.diagonal().copy_(variances)
            weight = torch.cholesky_solve(right.T, torch.linalg.cholesky(shrunk)).T
            if self.classification:
                bias = torch.where(present, -0.5 * (weight * right).sum(dim=1), NEVER)
            else:
                weight = weight * (1 - shrinkage)  # ridge proper: (S + s/(1-s) diag S)⁻¹
                bias = offset
            maps.append(LinearMap(weight=weight, bias=bias - weight @ centre))
        return maps

    def for_raw_features(self, fitted: LinearMap) -> LinearMap:
        """Return the same map for features as they were given."""
        weight = fitted.weight / self._scale
        return LinearMap(weight=weight, bias=fitted.bias - weight @ self._centre)

    def _scatter(self, chosen: list[int]) -> Tensor:
        """Σ x xᵀ over some blocks, by subtraction where that is fewer steps."""
        rest = sorted(set(range(len(self._gram))) - set(chosen))
        if len(rest) < len(chosen):
            scatter = self._whole_gram.clone()
            for block in rest:
                scatter -= self._gram[block]
            return scatter
        scatter = self._gram[chosen[0]].clone()
        for block in chosen[1:]:
            scatter += self._gram[block]
        return scatter


def alike_columns(targets: Tensor) -> list[list[int]]:
    """Return the columns of targets (N, T) in groups that the same clips know."""
    groups: dict[bytes, list[int]] = {}
    for column, known in enumerate(targets.isfinite().T):
        groups.setdefault(known.numpy().tobytes(), []).append(column)
    return list(groups.values())
