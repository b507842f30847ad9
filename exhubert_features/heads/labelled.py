"""Features of the labelled clips of a store, as a head takes them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from ..errors import UsageError
from ..evaluation import Labels
from ..store import FeatureStore
from .features import Batch, FeatureReader, HeadConfig

PER_GROUP = (  # what a report says of it
    " Features were standardised speaker by speaker, over all clips of each and without their "
    "labels: a new speaker can be judged only after several clips, of several emotions."
)
ROWS_AT_ONCE = 256  # 51 MB of all layers, so that a pass over a store stays small


def standardise_groups(features: np.ndarray, labels: Labels) -> np.ndarray:
    """Return features (N, D), each group's shifted and scaled to mean 0 and deviation 1.

    No label is used, but several clips of whoever is tested are.
    """
    if labels.group is None:
        raise UsageError(
            "standardising speaker by speaker needs a column that says who speaks",
            remedy="Name it with --group",
        )
    out = np.empty_like(features, dtype=np.float32)
    for name in np.unique(labels.groups):
        rows = labels.groups == name
        own = features[rows].astype(np.float32)
        deviation = own.std(axis=0)
        out[rows] = (own - own.mean(axis=0)) / np.where(deviation > 1e-6, deviation, 1.0)
    return out


class LabelledFeatures:
    """A store's features for a head, by position among the labelled clips."""

    def __init__(self, store: FeatureStore, labels: Labels, config: HeadConfig) -> None:
        self.config = config
        self._store = store
        self._ids = labels.ids.tolist()
        found = store.fingerprint
        self._reader = FeatureReader(config, trained=found, found=found)
        if config.per_group and not config.pools:
            raise UsageError("frames cannot be standardised speaker by speaker")
        self._pooled: Tensor | None = None  # (N, L, P, D) as stored: half the memory of float32
        if config.pools:
            shape = (len(labels), len(config.layers), len(config.pools), config.width)
            self._pooled = torch.empty(shape, dtype=getattr(torch, found.spec.dtype))
            for i, layer in enumerate(config.layers):
                for j, pool in enumerate(config.pools):
                    matrix = store.matrix(layer=layer, pool=pool)[labels.rows]
                    if config.per_group:
                        matrix = standardise_groups(matrix, labels)
                    self._pooled[:, i, j] = torch.from_numpy(matrix)

    def batch(self, rows: np.ndarray) -> Batch:
        """Features of the clips at some positions, in float32."""
        if self._pooled is not None:
            return Batch(self._pooled[torch.from_numpy(rows)].float(), None)
        return self._reader.batch([self._store[self._ids[row]] for row in rows])

    def batches(self, rows: np.ndarray) -> Iterator[Batch]:
        """All of ``rows`` in order, a few at a time."""
        for start in range(0, len(rows), ROWS_AT_ONCE):
            yield self.batch(rows[start : start + ROWS_AT_ONCE])

    def summary(self, rows: np.ndarray) -> np.ndarray:
        """(n, D) for a picture: means over layers and pools, or over layers and frames."""
        parts = []
        for batch in self.batches(rows):
            features = batch.features.mean(dim=1)
            count = features.shape[1] if batch.lengths is None else batch.lengths[:, None]
            parts.append((features.sum(dim=1) / count).numpy())
        return np.concatenate(parts)
