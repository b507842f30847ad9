"""Take damaged files out of a store, so that the next extraction makes them anew."""

from __future__ import annotations

from pathlib import Path

from ..errors import StoreError
from ..files import write_error, write_json
from .catalog import INDEX, QUARANTINE, SHARDS, load_catalog, next_number, tombstone_path
from .ledger import FAILURES, MANIFEST, manifest, note_state, now
from .verify import Problem, Verification


def repair(found: Verification) -> None:
    """Mend what :func:`verify` found in a folder.

    Nothing is deleted but the index: damaged files move to ``quarantine/``, and a note there
    tells readers that the gap they leave is known. The clips that were in them are missing
    until the next extraction.

    Raises
    ------
    StoreError
        When nothing sound tells what the store is, or the store is a packed file.
    """
    store = found.path
    if store.is_file():
        raise StoreError(f"{store} is packed and cannot be repaired", remedy="Pack it again")
    if found.described is None:
        raise StoreError(
            f"neither {store / MANIFEST} nor any shard can be read",
            remedy="Extract again into a new folder",
        )
    try:
        for name in (SHARDS, FAILURES, QUARANTINE):
            (store / name).mkdir(exist_ok=True)
        for problem in found.problems:
            _mend(store, problem)
        if any(problem.kind == "manifest" for problem in found.problems):
            write_json(store / MANIFEST, manifest(**found.described), replace=True)
        (store / INDEX).unlink(missing_ok=True)
    except OSError as error:
        raise write_error(store, error) from error
    note_state(store, next_number(store, load_catalog(store).shards))


def _mend(store: Path, problem: Problem) -> None:
    if problem.shard is not None:
        # The note first: a kill in between leaves a damaged shard, not an unexplained gap.
        note = {"reason": problem.detail, "when": now()}
        write_json(tombstone_path(store, problem.shard), note, replace=True)
    if problem.kind in ("shard", "doubled"):
        problem.path.replace(store / QUARANTINE / problem.path.name)
    elif problem.shard is None and problem.kind != "index" and problem.path.exists():
        problem.path.replace(store / QUARANTINE / f"{problem.kind}-{problem.path.name}")
