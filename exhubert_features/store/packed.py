"""A whole store in one HDF5 file for sharing: a single shard that also keeps the failures."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from ..errors import StoreError
from ..files import discard, move_into_place, temporary_for, write_all, write_error
from .ledger import StoredFailure, check_version
from .shard import (
    COLUMN_BYTES,
    USER_BLOCK,
    ShardRows,
    create_array,
    describe,
    digest_of,
    is_shard,
    stamp,
    write_columns,
)

Shapes = Mapping[str, tuple[tuple[int, ...], np.dtype]]


def require_packed(path: Path) -> None:
    """Refuse files that are no packed store, before they are hashed."""
    if not is_shard(path):
        raise StoreError(
            f"{path} is not a feature store",
            expected="a folder written by `exhubert extract` or a file written by `exhubert pack`",
        )


def read_packed(path: Path) -> tuple[dict[str, Any], tuple[StoredFailure, ...]]:
    """Manifest and failures of a packed store whose bytes were checked."""
    with h5py.File(path, "r", locking=False) as file:
        check_version(path, file.attrs["format"], int(file.attrs["version"]))
        lines = file["failures"].asstr()[:] if "failures" in file else []
    return describe(path), tuple(StoredFailure(**json.loads(line)) for line in lines)


def write_packed(
    path: Path,
    blocks: Iterable[ShardRows],
    *,
    text: Mapping[str, list[str]],
    numbers: Mapping[str, np.ndarray],
    shapes: Shapes,
    described: Mapping[str, Any],
    failures: Iterable[StoredFailure],
) -> None:
    """Write the shard of all rows, block by block, and give it its name when it is whole.

    HDF5 writes the columns and lays out the arrays; their bytes go in with ``os.write``,
    because HDF5 crashes the process on a full disk. That is also why free space is asked first.
    """
    temporary = temporary_for(path)
    try:
        need = sum(int(np.prod(shape)) * dtype.itemsize for shape, dtype in shapes.values())
        need += (1 << 20) + 2 * COLUMN_BYTES * len(text["id"])
        free = shutil.disk_usage(path.parent).free
        if need > free:
            raise StoreError(f"{path} needs {need:,} bytes", expected=f"at most {free:,} free")
        with h5py.File(temporary, "x", userblock_size=USER_BLOCK) as file:
            write_columns(file, text, numbers, described)
            lines = [json.dumps(asdict(failure)) for failure in failures]
            file.create_dataset("failures", data=lines or None, shape=(len(lines),), dtype=_TEXT)
            offsets = {
                name: create_array(file, name, shape, dtype).id.get_offset()
                for name, (shape, dtype) in shapes.items()
            }
        descriptor = os.open(temporary, os.O_RDWR)
        try:
            _write_blocks(descriptor, blocks, shapes, offsets)
            length = os.fstat(descriptor).st_size
            os.lseek(descriptor, 0, os.SEEK_SET)
            write_all(descriptor, stamp(length, digest_of(temporary)))
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        if not move_into_place(temporary, path):
            raise StoreError(f"{path} exists", remedy="Delete it or choose another name")
    except OSError as error:
        raise write_error(path, error) from error
    finally:
        discard(temporary)


_TEXT = h5py.string_dtype()


def _write_blocks(
    descriptor: int,
    blocks: Iterable[ShardRows],
    shapes: Shapes,
    offsets: Mapping[str, int | None],
) -> None:
    def write(array: np.ndarray, offset: int) -> None:
        os.lseek(descriptor, offset, os.SEEK_SET)
        write_all(descriptor, np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)

    row = frame = 0
    for block in blocks:
        for name in ("pooled", "logits", "frames"):
            array, offset = getattr(block, name), offsets.get(name)
            if array is None or offset is None:
                continue
            if name != "frames":
                write(array, offset + row * array[:1].nbytes)
                continue
            for layer, part in enumerate(array):
                place = layer * shapes[name][0][1] + frame
                write(part, offset + place * part[:1].nbytes)
        row += len(block)
        frame += 0 if block.frames is None else block.frames.shape[1]
