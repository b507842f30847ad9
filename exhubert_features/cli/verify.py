"""``exhubert verify STORE``: check every byte of a store, repair it if asked."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from .wording import count, printable, some

if TYPE_CHECKING:
    from ..store import FeatureStore, Verification

SHOWN = 20  # clips named


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("store", metavar="STORE", type=Path, help="a folder or a packed .h5 file")
    parser.add_argument(
        "--deep",
        action="store_true",
        help="also each vector against its checksum from extraction, and for NaN and infinity",
    )
    parser.add_argument(
        "--repair",
        action="store_true",
        help="move what is damaged to quarantine/, so that the next extract makes it anew",
    )
    parser.epilog = "Exit code 4 when damage was found, also when it was repaired."


def run(options: argparse.Namespace) -> int:
    """Verify, report, repair."""
    from ..errors import DamagedStore
    from ..store import FeatureStore, repair, verify

    found = verify(options.store, deep=options.deep)
    _show(found)
    if not found.problems:
        _show_pending(FeatureStore(options.store))
        return 0
    if options.repair:
        repair(found)
        if left := verify(options.store, deep=options.deep).problems:
            print(f"{len(left)} problems remain after the repair")
        else:
            print(printable(f"repaired: what was damaged is in {options.store / 'quarantine'}"))
            _show_pending(FeatureStore(options.store))
    else:
        print("run again with --repair to take it out, then extract again")
    return DamagedStore.exit_code


def _show(found: Verification) -> None:
    for problem in found.problems:
        print(printable(f"{problem.kind}: {problem.path}: {problem.detail}"))
    state = f"{len(found.problems)} problems" if found.problems else "all is well"
    sound = f"{count(found.rows, 'row')} in {count(found.shards, 'sound shard')}"
    print(printable(f"{found.path}: {state}; {sound}"))


def _show_pending(store: FeatureStore) -> None:
    if pending := store.pending:
        names = some(pending, SHOWN)
        print(f"the next extract of the same source will make {len(pending):,} clips: {names}")
