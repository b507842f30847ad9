"""``exhubert pack STORE FILE.h5``: one HDF5 file out of a store, for sharing."""

from __future__ import annotations

import argparse
from pathlib import Path

from .wording import printable


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("store", metavar="STORE", type=Path, help="a folder")
    parser.add_argument("file", metavar="FILE.h5", type=Path, help="a new file")


def run(options: argparse.Namespace) -> int:
    """Pack, and say what came out."""
    from ..store import FeatureStore, pack

    packed = pack(options.store, options.file)
    print(printable(f"{options.file}: {len(packed):,} rows, {packed.stored_bytes:,} bytes"))
    if pending := FeatureStore(options.store).pending:
        left = f"{len(pending):,} clips of {options.store}"
        print(printable(f"note: {left} are still to be extracted"))
    return 0
