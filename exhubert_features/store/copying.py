"""Stores out of stores: one file for sharing, one store out of several."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import StoreError
from .ledger import require_same
from .packed import write_packed
from .shard import NUMBERS, TEXT, attributes
from .store import FeatureStore
from .writer import Writer


@dataclass(frozen=True)
class Merged:
    """A merged store, and the clips that more than one source held (kept once)."""

    store: FeatureStore
    repeated: tuple[str, ...]


def pack(source: str | Path, destination: str | Path) -> FeatureStore:
    """Write a store as one HDF5 file of the same format.

    Raises
    ------
    StoreError
        When the file exists, or the disk is too small.
    """
    store, path = FeatureStore(source), Path(destination)
    if path.exists():
        raise StoreError(f"{path} exists", remedy="Delete it or choose another name")
    numbers = {name: np.array(store.column(name), dtype) for name, (dtype, *_) in NUMBERS.items()}
    frames = store.frame_counts()
    numbers["frame_end"] = np.cumsum(frames)
    spec, width = store.fingerprint.spec, store.fingerprint.model.hidden_size
    dtype, layers, pools = np.dtype(spec.dtype), len(store.layers), len(store.pools)
    shapes: dict[str, tuple[tuple[int, ...], np.dtype]] = {
        "pooled": ((len(store), layers, pools, width), dtype)
    }
    if store.has_logits:
        shapes["logits"] = ((len(store), len(store.classes)), np.dtype(np.float32))
    if spec.frame_layers:
        shapes["frames"] = ((len(spec.frame_layers), int(frames.sum()), width), dtype)
    write_packed(
        path,
        store.blocks(),
        text={name: store.column(name) for name in TEXT},
        numbers=numbers,
        shapes=shapes,
        described=attributes(store.fingerprint, store.provenance),
        failures=store.failures,
    )
    return FeatureStore(path)


def merge(sources: Sequence[str | Path], destination: str | Path) -> Merged:
    """One store with the clips of several.

    The sources must have one fingerprint. A clip that several hold with equal audio is kept
    once; with unequal audio it is an error, and nothing is written.
    """
    stores = [FeatureStore(source) for source in sources]
    if not stores:
        raise StoreError("nothing to merge", expected="at least one store")
    for other in stores[1:]:
        require_same(other.path, other.fingerprint, stores[0].fingerprint)
    target = Path(destination)
    present = [FeatureStore(target)] if target.exists() and any(target.iterdir()) else []
    repeated = _require_compatible([*present, *stores])
    with Writer(target, stores[0].fingerprint, provenance=stores[0].provenance) as writer:
        for store in stores:
            for block in store.blocks():
                writer.publish(block)
        failures = {failure.id: failure for store in stores for failure in store.failures}
        for failure in failures.values():
            if failure.id not in writer.stored or not failure.audio_sha256:
                writer.fail(failure, audio_sha256=failure.audio_sha256)
    return Merged(FeatureStore(target), tuple(repeated))


def _require_compatible(stores: Sequence[FeatureStore]) -> list[str]:
    """Clips in more than one store; an error when these, or row names, contradict each other."""
    audio: dict[str, tuple[str, FeatureStore]] = {}
    owners: dict[str, str] = {}
    repeated: dict[str, None] = {}
    for store in stores:
        clips = dict(zip(store.column("clip_id"), store.column("audio_sha256"), strict=True))
        for clip, digest in clips.items():
            known, holder = audio.setdefault(clip, (digest, store))
            if known != digest:
                raise StoreError(
                    f"clip {clip!r} has different audio in {holder.path} and {store.path}",
                    remedy="Rename one of them, or extract both sources into one store",
                )
            if holder is not store:
                repeated[clip] = None
        for row, clip in zip(store.ids, store.column("clip_id"), strict=True):
            if owners.setdefault(row, clip) != clip:
                raise StoreError(f"row {row!r} belongs to clip {owners[row]!r} and to {clip!r}")
    return list(repeated)
