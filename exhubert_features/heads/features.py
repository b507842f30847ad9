"""What a head takes: which layers and pools, of features made in which way."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import FingerprintMismatch, UsageError
from ..evaluation.values import target_names
from ..fingerprint import Fingerprint

Kind = Literal["linear", "discriminant", "mlp", "weighted", "attention"]

# Parts of a fingerprint that do not change the numbers a head reads: the names of the logits,
# what else was stored, and by how many of 150 frames the windows of long clips meet or overlap.
_NOT_COMPARED = (
    "model.classes", "spec.layers", "spec.pools", "spec.frame_layers", "spec.logits", "spec.gapless"
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class HeadConfig:
    """What a head takes and what it tells."""

    kind: Kind
    target: str  # a column, or several with commas between
    classes: tuple[str, ...]  # in the order of the logits; empty: regression
    layers: tuple[int, ...]  # hidden-state ids, in the order of the features
    pools: tuple[str, ...]  # empty: frames
    width: int  # D
    hidden: int = 128  # wide enough for a few thousand clips, small enough not to learn them
    dropout: float = 0.2
    per_group: bool = False  # features standardised speaker by speaker

    @property
    def task(self) -> Literal["classification", "regression"]:
        """Tell whether the head names classes or gives a value."""
        return "classification" if self.classes else "regression"

    @property
    def targets(self) -> tuple[str, ...]:
        """Names of the values, in their order; empty for classes."""
        return () if self.classes else target_names(self.target)

    @property
    def outputs(self) -> int:
        """Tell how many outputs the head has: one a class, or one a value."""
        return len(self.classes or self.targets)


class FeatureRow(Protocol):
    """What a head reads of :class:`~.records.ClipFeatures` or a store's row."""

    @property
    def id(self) -> str:
        """Name of the row."""

    @property
    def pooled(self) -> np.ndarray:
        """(L, P, D)."""

    @property
    def frames(self) -> np.ndarray | None:
        """(F, T, D), or None."""


class Batch(NamedTuple):
    """``features`` (B, L, P, D), or (B, F, T, D) with the valid frames (B,) of each clip."""

    features: Tensor
    lengths: Tensor | None


class FeatureReader:
    """Picks a head's layers and pools out of features of a matching fingerprint."""

    def __init__(self, config: HeadConfig, *, trained: Fingerprint, found: Fingerprint) -> None:
        check_fingerprint(trained, found)
        self.config = config
        if self.config.pools:
            self.layers = _positions("layers", self.config.layers, found.layers)
            self.pools = _positions("pools", self.config.pools, found.spec.pools)
        else:
            self.layers = _positions("frame layers", self.config.layers, found.spec.frame_layers)

    def batch(self, rows: Iterable[FeatureRow]) -> Batch:
        """Features of some rows in float32; frames padded, with their lengths."""
        if self.config.pools:
            wanted = np.ix_(self.layers, self.pools)
            pooled = [np.asarray(row.pooled, np.float32)[wanted] for row in rows]
            return Batch(torch.from_numpy(np.stack(pooled)), None)
        frames = [torch.from_numpy(self._frames(row).swapaxes(0, 1)) for row in rows]
        lengths = torch.tensor([len(clip) for clip in frames])
        padded = nn.utils.rnn.pad_sequence(frames, batch_first=True)  # (B, T, F, D)
        return Batch(padded.transpose(1, 2), lengths)

    def _frames(self, row: FeatureRow) -> np.ndarray:
        if row.frames is None or not row.frames.shape[1]:
            raise UsageError(f"{row.id} has no frames", remedy="Extract with --frames")
        return np.asarray(row.frames, np.float32)[self.layers]


def check_fingerprint(trained: Fingerprint, found: Fingerprint) -> None:
    """Raise FingerprintMismatch, naming what differs, unless the numbers are comparable."""
    if differing := found.difference(trained, ignoring=_NOT_COMPARED):
        raise FingerprintMismatch(
            "the features are not of the kind this head was trained on: " + "; ".join(differing),
            remedy="Extract with the settings of the head, or train a head on these features",
        )


def _positions(what: str, wanted: Iterable[Any], stored: tuple[Any, ...]) -> list[int]:
    missing = [item for item in wanted if item not in stored]
    if missing:
        raise FingerprintMismatch(
            f"the features lack {what} {', '.join(map(str, missing))} that the head needs",
            remedy="Extract them too",
        )
    return [stored.index(item) for item in wanted]
