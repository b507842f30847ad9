"""Hugging Face datasets: features by ``map``, a store as a dataset, and a dataset as a store."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa

from ..errors import UsageError
from ..extraction import LazyClip
from ..fingerprint import Fingerprint
from ..records import ClipFeatures
from ..store import FeatureStore
from .picklable import PicklableEncoder, cell_source

_COLUMNS = ("id", "clip_id", "file", "start", "end", "samples", "audio_sha256", "status")


@dataclass
class DatasetFeatures(PicklableEncoder):
    """A function for ``dataset.map(function, batched=True, num_proc=2)``: adds ``features``."""

    column: str = "audio"
    output: str = "features"

    def __call__(self, batch: Mapping[str, Sequence[Any]]) -> dict[str, list[np.ndarray]]:
        """Extract one vector for each recording of a batch."""
        audio = {str(number): cell_source(item) for number, item in enumerate(batch[self.column])}
        return {self.output: list(self.vectors(audio))}


def lazy_clips(
    dataset: datasets.Dataset, *, audio: str = "audio", id: str | None = None
) -> Iterator[LazyClip]:
    """Give the recordings of a dataset as a source for ``encoder.extract``.

    Parameters
    ----------
    dataset
        Its audio is decoded when a clip's turn comes.
    audio
        Column of the recordings.
    id
        Column of their names; None for their places.

    Yields
    ------
    LazyClip
        With all columns of one value as labels; those of classes by their names.
    """
    known = dataset.remove_columns([audio])
    for number, row in enumerate(known):
        labels = {
            name: _named(known.features[name], value)
            for name, value in row.items()
            if name != id and not isinstance(value, list | dict)
        }
        yield LazyClip(
            id=str(number if id is None else row[id]),
            load=partial(_load, dataset, number, audio),
            labels=labels,
        )


def _load(dataset: datasets.Dataset, number: int, audio: str) -> tuple[np.ndarray, int]:
    return cell_source(dataset[number][audio])


def to_dataset(store: FeatureStore | str | Path) -> datasets.Dataset:
    """Give the pooled features, logits and labels of a store as a dataset.

    Parameters
    ----------
    store
        A store or its path. Frames stay behind.

    Returns
    -------
    datasets.Dataset
        A row each: ``id``, ``file`` and the like, the columns of the manifest, ``logits``, and of
        each layer and pool a vector ``layer12_mean``. What the features are is in its
        description, so that :func:`to_store` can go back.
    """
    store = store if isinstance(store, FeatureStore) else FeatureStore(store)
    columns: dict[str, Any] = {name: store.column(name) for name in _COLUMNS}
    metas = [json.loads(text) for text in store.column("meta")]
    vectors = {
        f"layer{layer}_{pool}": store.matrix(layer=layer, pool=pool)
        for layer in store.layers
        for pool in store.pools
    }
    if store.has_logits:
        vectors["logits"] = store.logits()
    for name in dict.fromkeys(name for meta in metas for name in meta):
        if name in columns or name in vectors:
            raise UsageError(
                f"{store.path} has a column {name!r} of the manifest",
                expected="another name, for the dataset has a column of its own with this one",
            )
        columns[name] = [meta.get(name) for meta in metas]
    for name, matrix in vectors.items():
        columns[name] = pa.FixedSizeListArray.from_arrays(
            pa.array(matrix.astype(matrix.dtype.newbyteorder("="), copy=False).ravel()),
            matrix.shape[1],
        )
    dataset = datasets.Dataset(pa.table(columns))
    dataset.info.description = json.dumps(store.fingerprint.to_dict())
    return dataset


def to_store(dataset: datasets.Dataset, path: str | Path) -> FeatureStore:
    """Write a dataset that :func:`to_dataset` made, filtered or with further columns, to a store.

    Parameters
    ----------
    dataset
        Its rows; columns of texts and numbers become those of the manifest.
    path
        Folder of the store.

    Returns
    -------
    FeatureStore
        The store, open.
    """
    try:
        fingerprint = Fingerprint.from_dict(json.loads(dataset.info.description))
    except ValueError as error:
        raise UsageError(
            "the dataset does not say in its description what its features are",
            expected="one that to_dataset made",
        ) from error
    fingerprint = replace(fingerprint, spec=replace(fingerprint.spec, frame_layers=()))
    rows = (_features(row, fingerprint) for row in dataset.with_format(None))
    return FeatureStore.write(path, rows, fingerprint=fingerprint)


def _features(row: Mapping[str, Any], fingerprint: Fingerprint) -> ClipFeatures:
    spec = fingerprint.spec
    names = [f"layer{layer}_{pool}" for layer in fingerprint.layers for pool in spec.pools]
    pooled = np.array([row[name] for name in names], spec.dtype)
    known = {*_COLUMNS, *names, "logits"}
    return ClipFeatures(
        **{name: row[name] for name in _COLUMNS if name != "status"},
        warnings=() if row["status"] == "ok" else tuple(row["status"].split(",")),
        pooled=pooled.reshape(len(fingerprint.layers), len(spec.pools), -1),
        logits=np.array(row["logits"], np.float32) if fingerprint.has_logits else None,
        meta={
            name: str(value)
            for name, value in row.items()
            if name not in known and isinstance(value, str | int | float)
        },
    )


def _named(feature: Any, value: Any) -> Any:
    """Name a class by its number."""
    return feature.int2str(value) if isinstance(feature, datasets.ClassLabel) else value
