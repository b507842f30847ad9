"""Stored features for training: torch datasets, and an item for SpeechBrain's pipelines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Dataset

from .errors import LabelError, MissingDependency
from .store import FeatureStore
from .store.row import unknown_id


@dataclass(frozen=True)
class FeaturePicker:
    """Id to float32 tensor: one layer or all, pooled or frame by frame. Picklable.

    ====================  ==========================
    ``layer`` an int      (D,), with frames (T, D)
    ``layer`` None        (L, D), with frames (F, T, D)
    ====================  ==========================
    """

    store: FeatureStore
    layer: int | None = None
    pool: str = "mean"
    frames: bool = False

    def __post_init__(self) -> None:
        stored = self.store.frame_layers if self.frames else self.store.layers
        layer = self.layer if self.layer is not None else next(iter(stored), 0)
        if self.frames:
            self.store.frame_position(layer)
        else:
            self.store.position(layer, self.pool)

    def __call__(self, name: str) -> Tensor:
        return torch.from_numpy(self._read(name)).float()

    def _read(self, name: str) -> np.ndarray:
        if self.layer is None:
            row = self.store[name]
            if row.frames is not None and self.frames:
                return row.frames
            return row.pooled[:, self.store.pools.index(self.pool)]
        if self.frames:
            return self.store.frames(name, layer=self.layer)
        return self.store.vector(name, layer=self.layer, pool=self.pool)


class StoreDataset(Dataset[dict[str, Any]]):
    """Map-style dataset over a store: items ``{"id", "feats"[, "label"]}``.

    Parameters
    ----------
    store
        A store or its path.
    labels
        Id to class index (int) or value (float), one for each id used.
    ids
        Which rows, in which order; None is all rows of the store.
    layer, pool, frames
        See :class:`FeaturePicker`.

    Raises
    ------
    UnknownId
        When an id is not in the store.
    LabelError
        When an id has no label.
    """

    def __init__(
        self,
        store: FeatureStore | str | Path,
        *,
        labels: Mapping[str, int | float] | None = None,
        ids: Sequence[str] | None = None,
        layer: int | None = None,
        pool: str = "mean",
        frames: bool = False,
    ) -> None:
        self.store = store if isinstance(store, FeatureStore) else FeatureStore(store)
        self.ids = list(self.store.ids if ids is None else ids)
        for name in self.ids:
            if name not in self.store:
                raise unknown_id(name, self.store.ids, self.store.path)
        if labels is not None and (bare := [name for name in self.ids if name not in labels]):
            raise LabelError(
                f"{len(bare)} of {len(self.ids)} ids have no label, the first is {bare[0]!r}",
                remedy="Pass ids= with the labelled ones",
            )
        self.labels = labels
        self.pick = FeaturePicker(self.store, layer, pool, frames)

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> dict[str, Any]:
        name = self.ids[index]
        item = {"id": name, "feats": self.pick(name)}
        if self.labels is not None:
            item["label"] = torch.tensor(self.labels[name])
        return item


def pad_frames(items: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """``collate_fn`` for frames of differing length.

    Returns
    -------
    dict
        ``id`` list, ``feats`` (B, T, D) with zeros behind each clip, ``lengths`` (B,) frames,
        and ``label`` (B,) where the items have one.
    """
    feats = [item["feats"] for item in items]
    batch: dict[str, Any] = {
        "id": [item["id"] for item in items],
        "feats": pad_sequence(feats, batch_first=True),
        "lengths": torch.tensor([len(frames) for frames in feats]),
    }
    if "label" in items[0]:
        batch["label"] = torch.stack([item["label"] for item in items])
    return batch


def feature_item(
    store: FeatureStore | str | Path,
    *,
    layer: int | None = None,
    pool: str = "mean",
    frames: bool = False,
    provides: str = "feats",
) -> Any:
    """A SpeechBrain dynamic item that takes ``id`` and provides stored features.

    Examples
    --------
    >>> from speechbrain.dataio.dataset import DynamicItemDataset
    >>> item = feature_item("features", layer=12)
    >>> clips = DynamicItemDataset({"clip_a.wav": {"label": "calm"}}, [item], ["id", "feats"])
    >>> clips[0]["feats"].shape
    torch.Size([1024])
    """
    try:
        from speechbrain.utils.data_pipeline import DynamicItem
    except ImportError as error:
        raise MissingDependency(
            "speechbrain cannot be imported", remedy="pip install speechbrain"
        ) from error
    opened = store if isinstance(store, FeatureStore) else FeatureStore(store)
    picker = FeaturePicker(opened, layer, pool, frames)
    return DynamicItem(takes=["id"], func=picker, provides=[provides])
