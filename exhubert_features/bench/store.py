"""How fast the store is, beside one HDF5 dataset per clip and SpeechBrain's cache."""

from __future__ import annotations

import os
import random
import resource
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import h5py
import numpy as np

from ..fingerprint import Fingerprint, ModelIdentity
from ..records import ClipFeatures
from ..spec import CLASSES, ExtractionSpec
from ..store import FeatureStore

Result = TypeVar("Result")

LAYERS, WIDTH = 49, 1024  # the released model, all layers pooled: 100 KB a clip
ONE_LAYER = 24
SMALL_WIDTH = 8  # of the large store, where the number of clips counts and not their bytes


@dataclass(frozen=True, kw_only=True)
class Figures:
    """One way to keep features: what it costs to write and to read them.

    Reads are from the page cache: they compare the code and not the disk.
    """

    name: str
    write_clips_per_second: float
    read_clips_per_second: float  # all layers of one clip, in random order
    layer_seconds: float  # one layer of all clips
    bytes_per_clip: float


@dataclass(frozen=True, kw_only=True)
class LargeStore:
    """Opening and looking up in a store of very many clips."""

    clips: int
    shards: int
    open_seconds: float  # with a current index, as every time but the first
    first_lookup_seconds: float  # builds the table of ids
    lookups_per_second: float


def _model_fingerprint(width: int, spec: ExtractionSpec) -> Fingerprint:
    """Fingerprint of an imaginary model as deep as the released one."""
    model = ModelIdentity(
        weights_sha256="0" * 64,
        num_states=LAYERS,
        hidden_size=width,
        classes=CLASSES,
        precision="float32",
        architecture="exhubert",
    )
    return Fingerprint(model=model, spec=spec)


def _synthetic_rows(count: int, width: int, layers: int) -> Iterator[ClipFeatures]:
    """Rows that differ, made faster than any store can take them."""
    noise = np.random.default_rng(0).normal(size=layers * width + count).astype(np.float16)
    logits = np.zeros(len(CLASSES), np.float32)
    for number in range(count):
        yield ClipFeatures(
            id=f"speaker_{number % 97:02d}/clip_{number:07d}",
            clip_id=f"speaker_{number % 97:02d}/clip_{number:07d}",
            file=f"corpus/speaker_{number % 97:02d}/clip_{number:07d}.wav",
            start=0.0,
            end=3.0,
            samples=48_000,
            audio_sha256=f"{number:064x}",
            pooled=noise[number : number + layers * width].reshape(layers, 1, width),
            logits=logits,
            meta={"speaker": f"speaker_{number % 97:02d}"},
        )


def bench_store(folder: Path, clips: int) -> Figures:
    """Measure this package's store, every shard synced to the disk."""
    rows = _synthetic_rows(clips, WIDTH, LAYERS)
    data = _model_fingerprint(WIDTH, ExtractionSpec())
    seconds, store = _timed(lambda: FeatureStore.write(folder / "store", rows, fingerprint=data))
    order = _shuffled(store.ids)
    reading, _ = _timed(lambda: _read_each(store.__getitem__, order))
    layer, _ = _timed(lambda: store.matrix(layer=ONE_LAYER))
    return _figures("this store", clips, seconds, reading, layer, folder / "store")


def bench_datasets(folder: Path, clips: int) -> Figures:
    """One HDF5 dataset per clip, the usual way; synced once, at the end."""
    path = folder / "datasets.h5"

    def write() -> None:
        with h5py.File(path, "w") as file:
            for row in _synthetic_rows(clips, WIDTH, LAYERS):
                file.create_dataset(row.id, data=row.pooled)
        _sync(path)

    seconds, _ = _timed(write)
    ids = [row.id for row in _synthetic_rows(clips, WIDTH, LAYERS)]
    with h5py.File(path, "r") as file:
        reading, _ = _timed(lambda: _read_each(lambda name: file[name][:], _shuffled(ids)))
        layer, _ = _timed(lambda: np.stack([file[name][ONE_LAYER, 0] for name in ids]))
    return _figures("h5py, dataset per clip", clips, seconds, reading, layer, path)


def bench_speechbrain(folder: Path, clips: int) -> Figures | None:
    """SpeechBrain's CachedHDF5DynamicItem; None where SpeechBrain is not installed."""
    try:
        from speechbrain.integrations.hdf5.cached_item import CachedHDF5DynamicItem
    except ImportError:
        return None
    rows = {row.id: row.pooled for row in _synthetic_rows(clips, WIDTH, LAYERS)}
    item = CachedHDF5DynamicItem(
        folder / "speechbrain", takes=["id"], func=rows.__getitem__, provides=["feats"]
    )

    def write() -> None:
        for name in rows:
            item(name)
        item.change_file_mode("r")
        _sync(item.hdf5_path)

    seconds, _ = _timed(write)
    reading, _ = _timed(lambda: _read_each(item, _shuffled(list(rows))))
    layer, _ = _timed(lambda: np.stack([item(name)[ONE_LAYER, 0] for name in rows]))
    item.hdf5file.close()
    return _figures(
        "SpeechBrain HDF5 cache", clips, seconds, reading, layer, folder / "speechbrain"
    )


def bench_large(folder: Path, clips: int) -> LargeStore:
    """Open a store of many clips, and look clips up at random."""
    spec = ExtractionSpec(layers=(ONE_LAYER,))
    rows = _synthetic_rows(clips, SMALL_WIDTH, 1)
    data = _model_fingerprint(SMALL_WIDTH, spec)
    FeatureStore.write(folder / "large", rows, fingerprint=data)
    opening, store = _timed(lambda: FeatureStore(folder / "large"))
    some = f"speaker_{(clips // 2) % 97:02d}/clip_{clips // 2:07d}"
    first, _ = _timed(lambda: store[some])
    order = _shuffled(store.ids)[:20_000]
    lookups, _ = _timed(lambda: _read_each(store.__getitem__, order))
    return LargeStore(
        clips=clips,
        shards=store.shard_count,
        open_seconds=opening,
        first_lookup_seconds=first,
        lookups_per_second=len(order) / lookups,
    )


def peak_memory() -> int:
    """Tell the most memory that this process ever had, in bytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _timed(action: Callable[[], Result]) -> tuple[float, Result]:
    """Seconds and result."""
    start = time.perf_counter()
    result = action()
    return time.perf_counter() - start, result


def _read_each(read: Callable[[str], object], names: list[str]) -> None:
    """Read clip by clip, keeping none."""
    for name in names:
        read(name)


def _shuffled(names: list[str]) -> list[str]:
    """Put names into a random order that is always the same."""
    return random.Random(0).sample(names, len(names))


def _sync(path: Path) -> None:
    """Wait until a file's bytes are on the disk."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _figures(
    name: str, clips: int, writing: float, reading: float, layer: float, path: Path
) -> Figures:
    """Figures out of seconds and of what lies on the disk."""
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return Figures(
        name=name,
        write_clips_per_second=clips / writing,
        read_clips_per_second=clips / reading,
        layer_seconds=layer,
        bytes_per_clip=sum(file.stat().st_size for file in files) / clips,
    )
