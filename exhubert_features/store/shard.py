"""One shard: rows of features as the bytes of an HDF5 file that carries its own SHA-256."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import platform
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from ..errors import DamagedStore, UsageError
from ..fingerprint import Fingerprint
from ..records import ClipFeatures
from ..version import __version__

FORMAT = "exhubert-features"
VERSION = 1
COLUMN_BYTES = 600  # of ids, paths, hashes and their index, per row
USER_BLOCK = 512  # the smallest HDF5 allows; holds the stamp that is checked before HDF5 opens
_MAGIC = b"exhubert-features shard\n"
_READ_SIZE = 1 << 20
_REPAIR = "Run `exhubert verify --repair` on the store, then extract again"

TEXT = {
    "id": "name of the row: the clip's id, or <clip>#0003 for window 3 of it",
    "clip_id": "id of the clip the row belongs to",
    "file": "audio file as it was named when extracted; empty for arrays in memory",
    "audio_sha256": "hash of the audio file's bytes (of the samples for arrays in memory)",
    "status": "ok, or warnings joined by commas",
    "meta": "further columns of the manifest, as JSON",
}
NUMBERS = {
    "start": ("<f8", "seconds", "start of the row inside the file"),
    "end": ("<f8", "seconds", "end of the row inside the file"),
    "samples": ("<i8", "samples at 16 kHz", "length of the row"),
    "frame_end": ("<i8", "frames", "where the row's frames end on the frame axis of `frames`"),
    "crc32": ("<u4", "", "CRC-32 of the row's pooled, logits and frames bytes, in that order"),
}
_README = (
    "Row k of every dataset belongs to id[k]. pooled[k, i, j] is layer layers[i], pool pools[j]; "
    "logits[k] follows classes; frames[i, frame_end[k-1]:frame_end[k]] is layer frame_layers[i]."
)


@dataclass(frozen=True)
class ShardRows:
    """Rows in memory: text and number columns by name, and the features.

    ``pooled`` is (N, L, P, D), ``logits`` (N, C) float32 or None, ``frames`` (F, T, D) with
    the rows' frames one after the other, or None.
    """

    text: dict[str, list[str]]
    numbers: dict[str, np.ndarray]
    pooled: np.ndarray
    logits: np.ndarray | None
    frames: np.ndarray | None

    def __len__(self) -> int:
        return len(self.pooled)

    def select(self, keep: Sequence[int] | np.ndarray) -> ShardRows:
        """The rows at positions ``keep``, in that order."""
        rows = np.asarray(keep, dtype=np.int64)
        ends = self.numbers["frame_end"]
        starts = np.concatenate([[0], ends[:-1]]).astype(np.int64)
        numbers = {name: column[rows] for name, column in self.numbers.items()}
        numbers["frame_end"] = np.cumsum((ends - starts)[rows])
        frames = None
        if self.frames is not None:
            parts = [self.frames[:, starts[row] : ends[row]] for row in rows]
            frames = np.concatenate([self.frames[:, :0], *parts], axis=1)
        return ShardRows(
            text={name: [column[row] for row in rows] for name, column in self.text.items()},
            numbers=numbers,
            pooled=self.pooled[rows],
            logits=None if self.logits is None else self.logits[rows],
            frames=frames,
        )


def gather(rows: Sequence[ClipFeatures]) -> ShardRows:
    """Rows of features, already in the store's dtype, as one block."""
    logits = [row.logits for row in rows if row.logits is not None]
    frames = [row.frames for row in rows if row.frames is not None]
    lengths = [0 if row.frames is None else row.frames.shape[1] for row in rows]
    return ShardRows(
        text={
            "id": [row.id for row in rows],
            "clip_id": [row.clip_id for row in rows],
            "file": [row.file for row in rows],
            "audio_sha256": [row.audio_sha256 for row in rows],
            "status": [",".join(row.warnings) or "ok" for row in rows],
            "meta": [json.dumps(dict(row.meta)) for row in rows],
        },
        numbers={
            "start": np.array([row.start for row in rows], dtype="<f8"),
            "end": np.array([row.end for row in rows], dtype="<f8"),
            "samples": np.array([row.samples for row in rows], dtype="<i8"),
            "frame_end": np.cumsum(lengths, dtype="<i8"),
            "crc32": np.array(
                [checksum(row.pooled, row.logits, row.frames) for row in rows], "<u4"
            ),
        },
        pooled=np.stack([row.pooled for row in rows]),
        logits=np.stack(logits) if logits else None,
        frames=np.concatenate(frames, axis=1) if frames else None,
    )


def checksum(*arrays: np.ndarray | None) -> int:
    """CRC-32 over the bytes of arrays, None left out."""
    value = 0
    for array in arrays:
        if array is not None:
            value = zlib.crc32(np.ascontiguousarray(array).data, value)
    return value


def attributes(fingerprint: Fingerprint, provenance: Mapping[str, Any]) -> dict[str, Any]:
    """What every shard says about itself, for any HDF5 tool."""
    software = {"python": platform.python_version(), "exhubert-features": __version__}
    for name in ("torch", "numpy", "h5py"):
        with contextlib.suppress(metadata.PackageNotFoundError):  # stores open without torch
            software[name] = metadata.version(name)
    return {
        "format": FORMAT,
        "version": VERSION,
        "readme": _README,
        "fingerprint": json.dumps(fingerprint.to_dict(), sort_keys=True),
        "provenance": json.dumps(provenance, sort_keys=True),
        "layers": np.array(fingerprint.layers, dtype="<i8"),
        "pools": list(fingerprint.spec.pools),
        "frame_layers": np.array(fingerprint.spec.frame_layers, dtype="<i8"),
        "classes": list(fingerprint.model.classes),
        "software": json.dumps(software),
        "machine": platform.machine(),
    }


def estimate_bytes(fingerprint: Fingerprint, clips: int, frames: int) -> int:
    """About how many bytes a store will take for so many rows and frames (at 50 a second)."""
    spec, model = fingerprint.spec, fingerprint.model
    value = np.dtype(spec.dtype).itemsize * model.hidden_size
    pooled = len(fingerprint.layers) * len(spec.pools) * value
    logits = 4 * len(model.classes) if spec.logits else 0
    return clips * (pooled + logits + COLUMN_BYTES) + frames * len(spec.frame_layers) * value


def encode(rows: ShardRows, described: Mapping[str, Any]) -> memoryview:
    """The bytes of the shard's HDF5 file, stamped. Equal rows give equal bytes."""
    image = io.BytesIO()
    arrays = {"pooled": rows.pooled, "logits": rows.logits, "frames": rows.frames}
    with h5py.File(image, "w", userblock_size=USER_BLOCK) as file:
        write_columns(file, rows.text, rows.numbers, described)
        for name, array in arrays.items():
            if array is not None:
                create_array(file, name, array.shape, array.dtype)[...] = array
    content = image.getbuffer()
    body = content[USER_BLOCK:]
    content[:USER_BLOCK] = stamp(len(content), hashlib.sha256(body).hexdigest())
    return content


def describe(path: Path) -> dict[str, Any]:
    """``fingerprint`` and ``provenance`` of a shard whose bytes were checked."""
    with h5py.File(path, "r", locking=False) as file:
        found = {name: json.loads(file.attrs[name]) for name in ("fingerprint", "provenance")}
    return {**found, "fingerprint": read_fingerprint(path, found["fingerprint"])}


def read_fingerprint(path: Path, data: Any) -> Fingerprint:
    """The fingerprint in a file of a store.

    Raises
    ------
    DamagedStore
        When it is none.
    """
    try:
        return Fingerprint.from_dict(data)
    except UsageError as error:
        raise DamagedStore(f"{path}: {error}", remedy=_REPAIR) from error


def write_columns(
    file: h5py.File,
    text: Mapping[str, list[str]],
    numbers: Mapping[str, np.ndarray],
    described: Mapping[str, Any],
) -> None:
    """Attributes and the columns of the table, each with its meaning."""
    file.attrs.update(described)
    for name, values in text.items():
        # Variable length: one id of 4,000 characters must not widen every other.
        encoded = [value.encode("utf-8", "surrogateescape") for value in values]
        dataset = file.create_dataset(name, (len(values),), dtype=h5py.string_dtype())
        dataset[...] = np.array(encoded, dtype=object)
        dataset.attrs["description"] = TEXT[name]
        dataset.dims[0].label = "row"
    for name, column in numbers.items():
        dtype, unit, description = NUMBERS[name]
        dataset = file.create_dataset(name, data=column.astype(dtype, copy=False))
        dataset.attrs.update({"description": description, "unit": unit})
        dataset.dims[0].label = "row"


def create_array(
    file: h5py.File, name: str, shape: tuple[int, ...], dtype: np.dtype
) -> h5py.Dataset:
    """An unfilled, contiguous dataset of features: its bytes lie in the file at one offset."""
    axes = {
        "pooled": ("row", "layer", "pool", "width"),
        "logits": ("row", "label"),
        "frames": ("layer", "frame", "width"),
    }[name]
    creation = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    creation.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    creation.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    dataset = file.create_dataset(name, shape, dtype, dcpl=creation)
    dataset.attrs["axes"] = ", ".join(axes)
    for axis, label in enumerate(axes):
        dataset.dims[axis].label = label
    return dataset


def stamp(length: int, digest: str) -> bytes:
    """The user block: what the file must be, readable with ``head``."""
    text = _MAGIC + f"version {VERSION}\nlength {length}\nsha256 {digest}\n".encode()
    return text.ljust(USER_BLOCK, b"\0")


def is_shard(path: Path) -> bool:
    """Whether a file begins like a shard of this package."""
    with path.open("rb") as file:
        return file.read(len(_MAGIC)) == _MAGIC


def digest_of(path: Path) -> str:
    """SHA-256 of everything behind the user block."""
    digest = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        file.seek(USER_BLOCK)
        while part := file.read(_READ_SIZE):
            digest.update(part)
    return digest.hexdigest()


def check_bytes(path: Path) -> None:
    """Compare a shard with its stamp, before HDF5 sees a byte of it.

    Raises
    ------
    DamagedStore
        When the file is missing, cut, foreign or changed.
    """
    try:
        length = path.stat().st_size
        with path.open("rb") as file:
            block = file.read(USER_BLOCK)
        digest = digest_of(path)
    except OSError as error:
        raise DamagedStore(f"{path} cannot be read: {error.strerror}", remedy=_REPAIR) from error
    if block == stamp(length, digest):
        return
    if not block.startswith(_MAGIC):
        raise DamagedStore(f"{path} is not a shard of a feature store", remedy=_REPAIR)
    if f"\nlength {length}\n".encode() not in block:
        raise DamagedStore(f"{path} is cut or grown: {length} bytes", remedy=_REPAIR)
    raise DamagedStore(f"{path} has changed: its SHA-256 does not match", remedy=_REPAIR)
