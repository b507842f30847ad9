"""Stores out of stores: one file for sharing, one store out of several."""

from __future__ import annotations

import io
import json
import math
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from ..errors import DamagedStore, StoreError
from ..files import RegularFile, move_into_place, sweep, temporary_file, write_all
from .features import FeatureStore
from .folder import list_folder
from .journal import clip_key, require_same
from .opening import digest_of
from .shard import (
    COLUMN_BYTES,
    NUMBERS,
    TEXT,
    USER_BLOCK,
    ShardRows,
    create_array,
    create_text,
    describe,
    dtype_of,
    shapes,
    stamp,
    write_columns,
)
from .writer import Writer


@dataclass(frozen=True)
class Merged:
    """A merged store, and the clips that more than one source held (kept once)."""

    store: FeatureStore
    repeated: tuple[str, ...]


def pack(source: str | Path, destination: str | Path) -> FeatureStore:
    """Write a store as one HDF5 file of the same format: a single shard with the failures.

    HDF5 lays the file out in memory, and the bytes go to the disk with ``os.write``: HDF5
    itself crashes on a full disk, and hides other errors. What arrived is read back and compared
    before it gets its name.

    Parameters
    ----------
    source
        The store.
    destination
        A file that does not exist.

    Raises
    ------
    StoreError
        When the file exists, or the disk is too small.
    """
    store, path = FeatureStore(source), Path(destination)
    if path.exists():
        raise StoreError(f"{path} exists", remedy="Delete it or choose another name")
    frames = store.frame_counts()
    wanted = shapes(store.fingerprint, len(store), int(frames.sum()))
    types = {name: dtype_of(name, store.fingerprint) for name in wanted}
    with temporary_file(path) as (descriptor, temporary):
        sweep(path.parent, path.name)
        need = sum(math.prod(shape) * types[name].itemsize for name, shape in wanted.items())
        need += (1 << 20) + 2 * COLUMN_BYTES * len(store)
        if need > (free := shutil.disk_usage(path.parent).free):
            raise StoreError(f"{path} needs {need:,} bytes", expected=f"at most {free:,} free")
        image = _Layout()
        with h5py.File(image, "w", userblock_size=USER_BLOCK) as file:
            numbers = {name: np.array(store.column(name)) for name in NUMBERS}
            columns = {name: store.column(name) for name in TEXT}
            write_columns(file, columns, numbers | {"frame_end": np.cumsum(frames)})
            describe(file, store.fingerprint, store.provenance)
            create_text(file, "failures", [json.dumps(asdict(one)) for one in store.failures])
            arrays = [create_array(file, name, wanted[name], types[name]) for name in wanted]
            image.close_for(file)
            offsets = {name: _allocate(array) for name, array in zip(wanted, arrays, strict=True)}
        write_all(descriptor, image.getbuffer())
        _write_blocks(descriptor, store.blocks(), wanted, offsets)
        with RegularFile(temporary) as written:
            length, digest = os.fstat(descriptor).st_size, digest_of(written)
        os.pwrite(descriptor, stamp(length, digest), 0)
        os.fsync(descriptor)
        _compare(FeatureStore(temporary), store)
        if not move_into_place(temporary, path):
            raise StoreError(f"{path} exists", remedy="Delete it or choose another name")
    return FeatureStore(path)


class _Layout(io.BytesIO):
    """An HDF5 file without its large arrays: what is written behind the columns is dropped."""

    _end: float = math.inf

    def close_for(self, file: h5py.File) -> None:
        """Take no more than what the file comes to now; later only that may change."""
        file.flush()
        self._end = len(self.getbuffer())

    def write(self, data: Any) -> int:
        """As any file, up to the end."""
        return super().write(data) if self.tell() < self._end else len(data)


def _allocate(array: h5py.Dataset) -> int:
    """Have HDF5 give an array its place, and tell which."""
    if not array.size:
        return -1
    array[(0,) * array.ndim] = 0
    return array.id.get_offset()


def _write_blocks(
    descriptor: int,
    blocks: Iterable[ShardRows],
    wanted: Mapping[str, tuple[int, ...]],
    offsets: Mapping[str, int],
) -> None:
    row = frame = 0
    for block in blocks:
        for name, array in block.arrays().items():
            # Rows follow one another; frames do so within each layer.
            layered = name.startswith("frames")
            for layer, part in enumerate(array if layered else [array]):
                if part.size:
                    place = layer * wanted[name][1] + frame if layered else row
                    os.lseek(descriptor, offsets[name] + place * part[:1].nbytes, os.SEEK_SET)
                    write_all(descriptor, np.ascontiguousarray(part).reshape(-1).view("u1").data)
        row += len(block)
        frame += 0 if block.frames is None else block.frames.shape[1]


def _compare(written: FeatureStore, store: FeatureStore) -> None:
    """Refuse a copy that is not what was copied; its arrays are compared as they are read."""
    same = [written.column(name) == store.column(name) for name in (*TEXT, "start", "end")]
    rows = sum(len(block) for block in written.blocks())
    if not all(same) or rows != len(store) or written.failures != store.failures:
        raise DamagedStore(f"the copy of {store.path} is not what was copied", remedy="Try again")


def merge(sources: Sequence[str | Path], destination: str | Path) -> Merged:
    """One store with the clips of several.

    A clip that several hold with equal audio is kept once.

    Parameters
    ----------
    sources
        Stores of one fingerprint.
    destination
        A folder: a store of that fingerprint, or a new one.

    Raises
    ------
    StoreError
        When two have different audio for one clip; nothing is written then.
    """
    stores = [FeatureStore(source) for source in sources]
    if not stores:
        raise StoreError("nothing to merge", expected="at least one store")
    # One that knows its model's config leads: others may not know theirs.
    leader = min(stores, key=lambda one: one.fingerprint.model.config_sha256 is None)
    for other in stores:
        require_same(other.path, other.fingerprint, leader.fingerprint)
    target = Path(destination)
    present = [FeatureStore(target)] if target.is_dir() and list_folder(target) else []
    repeated = _require_compatible([*present, *stores])
    with Writer(target, leader.fingerprint, stores[0].provenance) as writer:
        for store in stores:
            for block in store.blocks():
                writer.publish(block)
        failures = {clip_key(one.id, one.file): one for store in stores for one in store.failures}
        for failure in failures.values():
            if failure.id not in writer.stored or not failure.audio_sha256:
                writer.fail(failure)
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
