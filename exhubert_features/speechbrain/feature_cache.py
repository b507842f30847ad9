"""SpeechBrain's HDF5 cache of features (``CachedHDF5DynamicItem``) into a store, and out of one.

Its recipes (``extract_ssl_feats``) fill it with one array of frames (T, C) under each id. It says
nothing of the model that made them, and nothing notices when that changes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

import h5py
import numpy as np

from ..checkpoint.weights import files_sha256
from ..errors import StoreError, UsageError
from ..fingerprint import Fingerprint, ModelIdentity
from ..records import ClipFailure, ClipFeatures
from ..spec import FRAME_STRIDE, MINIMUM_SAMPLES, SAMPLE_RATE, ExtractionSpec
from ..store import FeatureStore

_NAME = "cache.hdf5"  # of the file in its folder, unless the recipe says otherwise
_POOLS: dict[str, Callable[..., np.ndarray]] = {"mean": np.mean, "std": np.std, "max": np.max}


def store_cached_features(
    cache: str | Path, store: str | Path, *, fingerprint: Fingerprint | None = None
) -> FeatureStore:
    """Put the frames of a cache, and their mean over time, into a store.

    Parameters
    ----------
    cache
        The HDF5 file, or its folder.
    store
        Folder of the store.
    fingerprint
        What made the features, if that is known: its spec has one layer, pooled and frame by
        frame, and no logits. None: an unknown model of which they are layer 0; the hash of the
        cache stands for its weights, so that nothing else can be mixed in.

    Returns
    -------
    FeatureStore
        The store, open; what could not be taken over is in its failures.
    """
    file = _file(Path(cache))
    try:
        with h5py.File(file, "r") as content:
            sizes = {name: content[name].shape for name in _names(content)}
            if fingerprint is None:
                fingerprint = _unknown_model(file, sizes)
            _check_fingerprint(fingerprint, sizes)
            return FeatureStore.write(store, _rows(content, fingerprint), fingerprint=fingerprint)
    except OSError as error:
        raise StoreError(
            f"{file} cannot be read as HDF5 ({error})",
            remedy="A run that was killed leaves its cache unreadable: fill it again",
        ) from error


def cache_stored_features(
    store: FeatureStore | str | Path, cache: str | Path, *, layer: int
) -> Path:
    """Write the frames of one layer as the cache that SpeechBrain's recipes read.

    Parameters
    ----------
    store
        A store with frames of that layer.
    cache
        Folder of the cache.
    layer
        Id of a hidden state.

    Returns
    -------
    Path
        The HDF5 file: (T, C) float32 under each id.
    """
    opened = store if isinstance(store, FeatureStore) else FeatureStore(store)
    opened.position(layer, None)  # refused before anything is written
    _check_ids(opened.ids)
    final = Path(cache) / _NAME
    if final.exists():
        raise UsageError(f"{final} is there already", remedy="Delete it, or take another folder")
    final.parent.mkdir(parents=True, exist_ok=True)
    partial = final.with_suffix(".partial")
    with h5py.File(partial, "w") as content:
        for name in opened.ids:
            frames = opened.frames(name, layer=layer).astype(np.float32)
            content.create_dataset(name, data=frames, compression="gzip")
    partial.replace(final)
    return final


def _file(cache: Path) -> Path:
    file = cache / _NAME if cache.is_dir() else cache
    if not file.is_file():
        raise StoreError(f"{file} is not there", expected="an HDF5 cache or its folder")
    return file


def _names(content: h5py.File) -> list[str]:
    """List the ids: those with a slash are datasets in groups."""
    names: list[str] = []
    content.visititems(
        lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None
    )
    return names


def _unknown_model(file: Path, sizes: dict[str, tuple[int, ...]]) -> Fingerprint:
    widths = [size[-1] for size in sizes.values() if len(size) == 2]
    if not widths:
        raise StoreError(f"{file} holds no frames", expected="an array (T, C) under each id")
    model = ModelIdentity(
        weights_sha256=files_sha256([file]),
        num_states=1,
        hidden_size=widths[0],
        classes=(),
        precision="float32",
        architecture="unknown, from a SpeechBrain cache",
    )
    spec = ExtractionSpec(layers=(0,), frame_layers=(0,), logits=False, dtype="float32")
    return Fingerprint(model=model, spec=spec)


def _check_fingerprint(fingerprint: Fingerprint, sizes: dict[str, tuple[int, ...]]) -> None:
    spec, width = fingerprint.spec, fingerprint.model.hidden_size
    if len(spec.frame_layers) != 1 or spec.layers != spec.frame_layers or fingerprint.has_logits:
        raise UsageError(
            f"the fingerprint has layers {spec.layers}, frame_layers {spec.frame_layers}",
            expected="one layer, the same in both, and logits=False",
        )
    if sizes and not any(len(size) == 2 and size[1] == width for size in sizes.values()):
        raise UsageError(f"no array of the cache is {width} wide, as the fingerprint's model is")


def _rows(content: h5py.File, fingerprint: Fingerprint) -> Iterator[ClipFeatures | ClipFailure]:
    for name in _names(content):
        frames = np.asarray(content[name])
        wrong = _complaint(frames, fingerprint.model.hidden_size)
        if wrong:
            yield ClipFailure(id=name, file="", kind="cache", reason=f"{name} {wrong}")
            continue
        samples = (len(frames) - 1) * FRAME_STRIDE + MINIMUM_SAMPLES
        frames = frames.astype(np.float32)
        pooled = np.stack([_POOLS[pool](frames, axis=0) for pool in fingerprint.spec.pools])
        yield ClipFeatures(
            id=name,
            clip_id=name,
            file="",
            start=0.0,
            end=samples / SAMPLE_RATE,
            samples=samples,
            audio_sha256=hashlib.sha256(np.ascontiguousarray(frames).data).hexdigest(),
            pooled=pooled[None],
            frames=frames[None],
        )


def _complaint(frames: np.ndarray, width: int) -> str:
    """Say why an array cannot be a clip's frames; nothing if it can."""
    if frames.ndim != 2 or frames.shape[1] != width or not len(frames):
        return f"has shape {frames.shape}, not (frames, {width})"
    if frames.dtype.kind != "f":
        return f"is {frames.dtype}, not floating point"
    return "" if np.isfinite(frames).all() else "holds values that are not finite"


def _check_ids(ids: list[str]) -> None:
    """Refuse ids that HDF5 would take for one, or for a group and its member."""
    paths = {name: tuple(part for part in name.split("/") if part not in ("", ".")) for name in ids}
    groups = {path[:stop] for path in paths.values() for stop in range(1, len(path))}
    wrong = [
        name for name, path in paths.items() if "/".join(path) != name or path in groups or not path
    ]
    if wrong:
        raise UsageError(
            f"{len(wrong)} ids collide in HDF5, such as {wrong[0]!r}",
            expected="no id that is the folder of another, none with // or a / at its end",
        )
