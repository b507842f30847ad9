"""Speakers on both sides of a split, with whom a score is not of unseen speakers."""

from __future__ import annotations

import numpy as np

from ..errors import LabelError


def raise_if_shared(
    groups: np.ndarray, train: np.ndarray, test: np.ndarray, *, where: str = "the split"
) -> None:
    """Raise LabelError if a group (N,) has clips at both positions: they would leak."""
    shared = _shared(groups, train, test)
    if shared:
        raise LabelError(
            f"{len(shared)} groups stand on both sides of {where} ({', '.join(shared[:5])})",
            expected="every speaker in training or in test, not in both",
            remedy="Correct the split, or accept it with --shared-groups (the report says so)",
        )


def _shared(groups: np.ndarray, train: np.ndarray, test: np.ndarray) -> list[str]:
    return sorted(set(groups[train].tolist()) & set(groups[test].tolist()))


def leaks(
    owners: np.ndarray, train: np.ndarray, test: np.ndarray, name: str, *, accepted: bool
) -> list[str]:
    """Say which owners (N,) have clips at both positions, where that is accepted; raise else."""
    if not accepted:
        raise_if_shared(owners, train, test, where=name)
        return []
    shared = _shared(owners, train, test)
    if not shared:
        return []
    return [
        f"{name}: {len(shared)} groups stand in training and in test ({', '.join(shared[:5])}); "
        "the score is not speaker-independent"
    ]
