"""A whole store in one HDF5 file for sharing: a single shard that also keeps the failures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py

from ..errors import StoreError
from .ledger import StoredFailure, check_version
from .shard import check_bytes, is_shard


def read_packed(path: Path) -> tuple[dict[str, Any], tuple[StoredFailure, ...]]:
    """Manifest and failures of a packed store, its bytes checked before HDF5 opens them."""
    if not is_shard(path):
        raise StoreError(
            f"{path} is not a feature store",
            expected="a folder written by `exhubert extract` or a file written by `exhubert pack`",
        )
    check_bytes(path)
    with h5py.File(path, "r", locking=False) as file:
        check_version(path, file.attrs["format"], int(file.attrs["version"]))
        lines = file["failures"].asstr()[:] if "failures" in file else []
        return (
            {name: json.loads(file.attrs[name]) for name in ("fingerprint", "provenance")},
            tuple(StoredFailure(**json.loads(line)) for line in lines),
        )
