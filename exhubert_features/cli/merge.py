"""``exhubert merge A B ... -o C``: one store out of several."""

from __future__ import annotations

import argparse
from pathlib import Path

from .wording import printable, some

SHOWN = 10  # repeated clips named


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "stores", metavar="STORE", nargs="+", type=Path, help="folders or packed files"
    )
    parser.add_argument(
        "-o", "--output", metavar="STORE", type=Path, required=True, help="a folder"
    )


def run(options: argparse.Namespace) -> int:
    """Merge, and name the clips that several held."""
    from ..store import FeatureStore, merge

    merged = merge(options.stores, options.output)
    print(printable(f"{options.output}: {len(merged.store):,} rows"))
    if merged.repeated:
        names = some(merged.repeated, SHOWN)
        print(f"in more than one store, kept once: {len(merged.repeated):,} clips ({names})")
    for source in options.stores:
        if pending := FeatureStore(source).pending:
            left = f"{len(pending):,} clips of {source}"
            print(printable(f"note: {left} are still to be extracted"))
    return 0
