"""Stored features for training: torch datasets, and an item for SpeechBrain's pipelines."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Dataset

from .errors import LabelError
from .spec import Layers
from .store import FeatureStore

Label = int | float | str


@dataclass(frozen=True)
class FeaturePicker:
    """Id to float32 tensor: some layers, pooled or frame by frame. Picklable.

    ==================  ========  ==================
    ``layers``          a pool    ``pool=None``
    ==================  ========  ==================
    a number            (D,)      (T, D)
    several, or None    (L, D)    (F, T, D)
    ==================  ========  ==================

    Parameters
    ----------
    store
        The store.
    layers
        One hidden-state id, or several in the order wanted; None is all that are stored.
    pool
        One of the stored; None is frame by frame.
    """

    store: FeatureStore
    layers: Layers = None
    pool: str | None = "mean"

    def __post_init__(self) -> None:
        self._positions()  # what is not stored is refused at once

    def __call__(self, name: str) -> Tensor:
        """Read the features of one row, in float32."""
        return torch.from_numpy(self._read(name)).float()

    def _read(self, name: str) -> np.ndarray:
        if isinstance(self.layers, int) and self.pool is None:
            return self.store.frames(name, layer=self.layers)
        if isinstance(self.layers, int) and self.pool is not None:
            return self.store.vector(name, layer=self.layers, pool=self.pool)
        row, positions = self.store[name], self._positions()
        if self.pool is None:
            return row.frames[positions]  # type: ignore[index]
        return row.pooled.reshape(-1, row.pooled.shape[-1])[positions]

    def _positions(self) -> list[int]:
        stored = self.store.frame_layers if self.pool is None else self.store.layers
        wanted = [self.layers] if isinstance(self.layers, int) else self.layers or stored or [0]
        return [self.store.position(layer, self.pool) for layer in wanted]


class StoreDataset(Dataset[dict[str, Any]]):
    """Map-style dataset over a store: items ``{"id", "feats"[, "label"]}``.

    Parameters
    ----------
    store
        A store or its path.
    layers, pool
        See :class:`FeaturePicker`.
    labels
        A column of the manifest, or one label for each id used. Words become class indices.
    classes
        Their names, in the order of the indices; None is all words, sorted.
    ids
        Which rows, in which order; None is all rows of the store.

    Attributes
    ----------
    classes
        Names of the classes; empty when the labels are numbers, or there are none.

    Raises
    ------
    UnknownId
        When an id is not in the store.
    LabelError
        When an id has no label, or one that is not among the classes.
    """

    def __init__(
        self,
        store: FeatureStore | str | Path,
        *,
        layers: Layers = None,
        pool: str | None = "mean",
        labels: str | Mapping[str, Label] | None = None,
        classes: Sequence[str] | None = None,
        ids: Sequence[str] | None = None,
    ) -> None:
        self.store = store if isinstance(store, FeatureStore) else FeatureStore(store)
        self.ids = list(self.store.ids if ids is None else ids)
        for name in self.ids:
            self.store.row(name)
        self.pick = FeaturePicker(self.store, layers, pool)
        known = _column(self.store, labels) if isinstance(labels, str) else labels
        if known is not None and (bare := [name for name in self.ids if name not in known]):
            raise LabelError(
                f"{len(bare)} of {len(self.ids)} ids have no label, the first is {bare[0]!r}",
                remedy="Pass ids= with the labelled ones",
            )
        values = [] if known is None else [known[name] for name in self.ids]
        words = {value for value in values if isinstance(value, str)}
        self.classes = tuple(sorted(words) if classes is None else classes)
        if unknown := words.difference(self.classes):
            raise LabelError(
                f"{len(unknown)} labels are no class, such as {min(unknown)!r}",
                expected=", ".join(self.classes),
            )
        index = {word: place for place, word in enumerate(self.classes)}
        self.labels = [index[value] if isinstance(value, str) else value for value in values]

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> dict[str, Any]:
        item: dict[str, Any] = {"id": self.ids[index], "feats": self.pick(self.ids[index])}
        if self.labels:
            item["label"] = torch.tensor(self.labels[index])
        return item


def _column(store: FeatureStore, name: str) -> dict[str, str]:
    """Give a column of the manifest by row id, without rows that have nothing there."""
    metas = [json.loads(text) for text in store.column("meta")]
    found = {row: meta[name] for row, meta in zip(store.ids, metas, strict=True) if meta.get(name)}
    if not found:
        columns = dict.fromkeys(key for meta in metas for key in meta)
        raise LabelError(
            f"no row of {store.path} has a column {name!r}",
            expected=f"one of {', '.join(columns) or 'none: the manifest had no such columns'}",
        )
    return found


def pad_frames(items: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """``collate_fn`` for frames of differing length.

    Parameters
    ----------
    items
        Items of a :class:`StoreDataset` of the frames (T, D) of one layer.

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
    layers: Layers = None,
    pool: str | None = "mean",
    provides: str = "feats",
) -> Any:
    """Give a SpeechBrain dynamic item that takes ``id`` and provides stored features.

    Parameters
    ----------
    store
        A store or its path.
    layers, pool
        See :class:`FeaturePicker`.
    provides
        Name of the item.

    Returns
    -------
    speechbrain.utils.data_pipeline.DynamicItem
        For ``add_dynamic_item``.

    Examples
    --------
    >>> from speechbrain.dataio.dataset import DynamicItemDataset
    >>> item = feature_item("features", layers=12)
    >>> clips = DynamicItemDataset({"clip_a.wav": {"label": "calm"}}, [item], ["id", "feats"])
    >>> clips[0]["feats"].shape
    torch.Size([1024])
    """
    from speechbrain.utils.data_pipeline import DynamicItem

    opened = store if isinstance(store, FeatureStore) else FeatureStore(store)
    picker = FeaturePicker(opened, layers, pool)
    return DynamicItem(takes=["id"], func=picker, provides=[provides])
