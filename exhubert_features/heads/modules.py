"""The heads themselves: standardise, score, and undo the target's scaling."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import CheckpointError, UsageError
from ..fingerprint import Fingerprint
from .features import FeatureReader, FeatureRow, HeadConfig, Kind

ROWS_AT_ONCE = 64  # 20 MB of frames a layer for 3 s clips
SMALLEST_DEVIATION = 1e-6  # a constant feature is left alone instead of blown up


@dataclass(frozen=True, kw_only=True)
class Predictions:
    """What a head says of N rows; ``scores`` is (N, C) probabilities, or (N, T) values."""

    ids: tuple[str, ...]
    classes: tuple[str, ...]  # empty for regression
    scores: np.ndarray

    @property
    def labels(self) -> tuple[str, ...]:
        """The most likely class of each row; empty for regression."""
        best = self.scores.argmax(axis=1).tolist() if self.classes else []
        return tuple(self.classes[index] for index in best)


class Head(nn.Module):
    """Standardise, score, and undo the target's scaling.

    Attributes
    ----------
    notes
        JSON data about the training: clips, score, package versions.
    mean, deviation
        (L, P, D), or (F, 1, D) for frames: of the training clips only.
    target_mean, target_scale
        Of a regression target in the training clips; (T,) of several.
    temperature
        Logits are divided by it to become probabilities.
    """

    mean: Tensor
    deviation: Tensor
    target_mean: Tensor
    target_scale: Tensor
    temperature: Tensor

    def __init__(self, config: HeadConfig) -> None:
        super().__init__()
        self.config = config
        self._fingerprint: Fingerprint | None = None
        self.notes: dict[str, Any] = {}
        shape = (len(config.layers), len(config.pools) or 1, config.width)
        self.register_buffer("mean", torch.zeros(shape))
        self.register_buffer("deviation", torch.ones(shape))
        several = (config.outputs,) if len(config.targets) > 1 else ()
        self.register_buffer("target_mean", torch.zeros(several))
        self.register_buffer("target_scale", torch.ones(several))
        self.register_buffer("temperature", torch.ones(()))

    @property
    def fingerprint(self) -> Fingerprint:
        """Of the features it was trained on; refused until it was."""
        if self._fingerprint is None:
            raise CheckpointError(
                "the head has no fingerprint", remedy="Train it before it is used or saved"
            )
        return self._fingerprint

    @fingerprint.setter
    def fingerprint(self, fingerprint: Fingerprint) -> None:
        self._fingerprint = fingerprint

    def forward(self, features: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Logits (B, C), or values (B, T) in the targets' own units.

        Parameters
        ----------
        features
            (B, L, P, D) pooled, or (B, F, T, D) frames, of the head's own layers.
        lengths
            (B,) valid frames, or as SpeechBrain has them: floats relative to T. Only frames
            have lengths; None is all.
        """
        layers, pools, width = self.mean.shape
        middle = features.shape[2] if features.dim() == 4 and not self.config.pools else pools
        if features.shape[1:] != (layers, middle, width):
            shown = pools if self.config.pools else "frames"
            raise UsageError(
                f"features have shape {tuple(features.shape)}",
                expected=f"(batch, {layers}, {shown}, {width})",
            )
        standard = (features.to(self.mean.dtype) - self.mean) / self.deviation
        return self.score(standard, lengths) * self.target_scale + self.target_mean

    def score(self, features: Tensor, lengths: Tensor | None) -> Tensor:
        """Logits (B, C) or standardised values (B, T) of standardised features."""
        raise NotImplementedError

    def probabilities(self, features: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Calibrated class probabilities (B, C); values (B, T) for regression."""
        output = self(features, lengths)
        return (output / self.temperature).softmax(dim=-1) if self.config.classes else output

    def set_standardisation(self, mean: Tensor, deviation: Tensor) -> None:
        """Take mean and deviation (shaped as the buffers) of the training clips."""
        self.mean.copy_(mean)
        self.deviation.copy_(torch.where(deviation > SMALLEST_DEVIATION, deviation, 1.0))

    @torch.inference_mode()
    def predict_features(
        self, rows: Iterable[FeatureRow], *, fingerprint: Fingerprint
    ) -> Predictions:
        """Probabilities (or values) of rows from an extraction or a store.

        Raises
        ------
        FingerprintMismatch
            When the features were made with other weights or settings.
        """
        self.eval()
        if self.config.per_group:
            raise UsageError(
                "this head reads features standardised speaker by speaker, and cannot tell who "
                "speaks here",
                remedy="Use `exhubert evaluate`, or train without --per-speaker",
            )
        reader = FeatureReader(self.config, trained=self.fingerprint, found=fingerprint)
        ids: list[str] = []
        scores = [np.empty((0, self.config.outputs), np.float32)]
        left = iter(rows)
        while chunk := list(islice(left, ROWS_AT_ONCE)):
            ids += [row.id for row in chunk]
            batch = reader.batch(chunk)
            features = batch.features.to(self.mean.device)
            scores.append(self.probabilities(features, batch.lengths).cpu().numpy())
        return Predictions(
            ids=tuple(ids), classes=self.config.classes, scores=np.concatenate(scores)
        )


class LinearHead(Head):
    """One linear map of the pooled features."""

    def __init__(self, config: HeadConfig) -> None:
        super().__init__(config)
        self.linear = nn.Linear(self.mean.numel(), config.outputs)

    def score(self, features: Tensor, lengths: Tensor | None) -> Tensor:
        """Map (B, L, P, D) to (B, C)."""
        return self.linear(features.flatten(1))


class MLPHead(Head):
    """One hidden layer on the pooled features."""

    def __init__(self, config: HeadConfig) -> None:
        super().__init__(config)
        self.layers = nn.Sequential(
            nn.Dropout(config.dropout),
            nn.Linear(self.mean.numel(), config.hidden),
            nn.GELU(),
            nn.Dropout(config.dropout),
            nn.Linear(config.hidden, config.outputs),
        )

    def score(self, features: Tensor, lengths: Tensor | None) -> Tensor:
        """Map (B, L, P, D) to (B, C)."""
        return self.layers(features.flatten(1))


class WeightedHead(Head):
    """A learned average over the layers, then one linear map."""

    def __init__(self, config: HeadConfig) -> None:
        super().__init__(config)
        self.layer_logits = nn.Parameter(torch.zeros(len(config.layers)))
        self.linear = nn.Linear(self.mean[0].numel(), config.outputs)

    def score(self, features: Tensor, lengths: Tensor | None) -> Tensor:
        """Map (B, L, P, D) to (B, C)."""
        weights = self.layer_logits.softmax(dim=0)
        return self.linear(torch.einsum("l,blf->bf", weights, features.flatten(2)))


class AttentionHead(Head):
    """A learned average over the layers, attention over the valid frames, one linear map."""

    def __init__(self, config: HeadConfig) -> None:
        super().__init__(config)
        self.layer_logits = nn.Parameter(torch.zeros(len(config.layers)))
        self.attention = nn.Sequential(
            nn.Linear(config.width, config.hidden), nn.Tanh(), nn.Linear(config.hidden, 1)
        )
        self.dropout = nn.Dropout(config.dropout)
        self.linear = nn.Linear(config.width, config.outputs)

    def score(self, features: Tensor, lengths: Tensor | None) -> Tensor:
        """Map (B, L, T, D) and their lengths to (B, C)."""
        frames = torch.einsum("l,bltd->btd", self.layer_logits.softmax(dim=0), features)
        relevance = self.attention(frames).squeeze(-1)
        if lengths is not None:
            count = frames.shape[1]
            if lengths.is_floating_point():
                lengths = (lengths * count).round().long().clamp(min=1)
            lengths = lengths.to(frames.device)
            padding = torch.arange(count, device=frames.device) >= lengths[:, None]
            relevance = relevance.masked_fill(padding, -torch.inf)
            # 0 * NaN is NaN: what stands in the padding must not reach the sum below
            frames = frames.masked_fill(padding[..., None], 0.0)
        pooled = torch.einsum("bt,btd->bd", relevance.softmax(dim=-1), frames)
        return self.linear(self.dropout(pooled))


HEADS: dict[Kind, type[Head]] = {
    "linear": LinearHead,
    "discriminant": LinearHead,
    "mlp": MLPHead,
    "weighted": WeightedHead,
    "attention": AttentionHead,
}


def build_head(config: HeadConfig) -> Head:
    """Build an untrained head."""
    if config.kind not in HEADS:
        raise UsageError(f"kind is {config.kind!r}", expected=f"one of {', '.join(HEADS)}")
    if (config.kind == "attention") == bool(config.pools):
        raise UsageError(
            f"a head of kind {config.kind} on {'pooled features' if config.pools else 'frames'}",
            expected="frames for attention, pooled features for the others",
        )
    return HEADS[config.kind](config)
