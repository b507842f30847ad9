"""Check every byte of a store against what was written, and take out what is not right."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from ..errors import DamagedStore, StoreError
from ..files import read_json
from ..fingerprint import Fingerprint
from .catalog import (
    INDEX,
    SHARDS,
    STATE,
    ShardTable,
    join_tables,
    lost_shards,
    read_index,
    read_table,
    shard_number,
    shard_path,
    tombstones,
)
from .ledger import (
    FAILURES,
    MANIFEST,
    failure_path,
    no_store,
    read_failure,
    read_manifest,
    read_plan,
)
from .packed import read_packed, require_packed
from .reading import ShardReader
from .shard import NUMBERS, TEXT, checksum, describe


@dataclass(frozen=True)
class Problem:
    """One thing that is not as it was written."""

    path: Path
    kind: str  # "shard", "lost", "doubled", "foreign", "record", "plan", "state", "index", ...
    detail: str
    shard: int | None = None  # number of the shard concerned


@dataclass(frozen=True, kw_only=True)
class Verification:
    """What :func:`verify` found; no problems means that every byte is as it was written."""

    path: Path
    problems: tuple[Problem, ...]
    shards: int  # sound ones
    rows: int  # in these, replaced ones not counted
    described: dict[str, Any] | None  # fingerprint and provenance; None: nothing sound tells them


def verify(path: str | Path, *, deep: bool = False) -> Verification:
    """Check a store: hashes, layout, gaps, doubled clips, records, index.

    Parameters
    ----------
    path
        Folder or packed file.
    deep
        Also compare each row with the checksum it got when it was extracted, and look for NaN
        and infinity.
    """
    store = Path(path)
    if store.is_file():
        return _verify_packed(store, deep)
    if not store.is_dir():
        raise no_store(store)
    if not (store / MANIFEST).exists() and not (store / SHARDS).is_dir():
        raise StoreError(f"{store} is not a feature store: it has no {MANIFEST}")
    problems: list[Problem] = []
    described = None
    try:
        manifest = read_manifest(store)
        described = {name: manifest[name] for name in ("fingerprint", "provenance")}
    except (StoreError, KeyError) as error:
        problems.append(Problem(store / MANIFEST, "manifest", str(error)))
    tables: list[ShardTable] = []
    for file in sorted((store / SHARDS).glob("[!.]*")):
        number = shard_number(file)
        if number is None:
            problems.append(Problem(file, "foreign", "no file of a store has this name"))
            continue
        try:
            table = read_table(file, number)
            described = described or describe(file)
            _check_shard(store, table, described["fingerprint"], deep)
            tables.append(table)
        except DamagedStore as error:
            problems.append(Problem(file, "shard", str(error), number))
    tables.sort(key=lambda table: table.place.number)
    problems += _lost(store)
    problems += _doubled(store, tables)
    problems += _records(store)
    catalog = join_tables(tables)
    index = read_index(store / INDEX)
    # An index of other shards is only old: readers see that and renew it.
    places = [shard[:3] for shard in catalog.shards]
    if index and [shard[:3] for shard in index.shards] == places and not index.equals(catalog):
        problems.append(Problem(store / INDEX, "index", "contradicts the shards"))
    return Verification(
        path=store,
        problems=tuple(problems),
        shards=len(tables),
        rows=len(catalog.live),
        described=described,
    )


def _verify_packed(path: Path, deep: bool) -> Verification:
    problems, rows, described = [], 0, None
    try:
        require_packed(path)
        table = read_table(path, 0)
        described, _ = read_packed(path)
        _check_shard(path, table, described["fingerprint"], deep)
        rows = table.place.rows
    except StoreError as error:
        problems.append(Problem(path, "shard", str(error), 0))
    return Verification(
        path=path,
        problems=tuple(problems),
        shards=1 - len(problems),
        rows=rows,
        described=described,
    )


def _check_shard(store: Path, table: ShardTable, fingerprint: Fingerprint, deep: bool) -> None:
    """Layout and, if ``deep``, the numbers of a shard whose bytes are as they were written."""
    place = table.place
    path = shard_path(store, place.number)
    if describe(path)["fingerprint"].difference(fingerprint):
        raise DamagedStore(f"{path} is of another fingerprint than the store")
    counts = {len(table.text[name]) for name in TEXT} | {len(table.numbers[n]) for n in NUMBERS}
    if counts != {place.rows}:
        raise DamagedStore(f"{path} has columns of {sorted(counts)} rows")
    spec = fingerprint.spec
    with h5py.File(path, "r", locking=False) as file:
        pooled = (place.rows, len(fingerprint.layers), len(spec.pools), place.width)
        if file["pooled"].shape != pooled or file["pooled"].dtype != spec.dtype:
            raise DamagedStore(f"{path} has pooled {file['pooled'].shape}, expected {pooled}")
    ends = table.numbers["frame_end"]
    if (np.diff(ends, prepend=0) < 0).any() or (ends[-1] if place.rows else 0) != place.frames:
        raise DamagedStore(f"{path} has frame ends that do not rise to {place.frames}")
    if deep:
        _check_numbers(store, table, fingerprint)


def _check_numbers(store: Path, table: ShardTable, fingerprint: Fingerprint) -> None:
    path = shard_path(store, table.place.number)
    reader = ShardReader(store, join_tables([table]), fingerprint)
    for _, block in reader.blocks(0):
        starts = np.concatenate([[0], block.numbers["frame_end"]])
        for row, name in enumerate(block.text["id"]):
            span = slice(int(starts[row]), int(starts[row + 1]))
            parts = (
                block.pooled[row],
                None if block.logits is None else block.logits[row],
                None if block.frames is None else block.frames[:, span],
            )
            if checksum(*parts) != block.numbers["crc32"][row]:
                raise DamagedStore(f"{path}: row {name!r} does not match its checksum")
            if not all(np.isfinite(part).all() for part in parts if part is not None):
                raise DamagedStore(f"{path}: row {name!r} holds NaN or infinity")


def _lost(store: Path) -> Iterator[Problem]:
    present = [shard_number(file) for file in (store / SHARDS).glob("[!.]*")]
    try:
        lost = lost_shards(store, [number for number in present if number is not None])
    except (DamagedStore, KeyError, ValueError) as error:
        yield Problem(store / STATE, "state", str(error))
        return
    for number in lost:
        yield Problem(shard_path(store, number), "lost", "was published once and is gone", number)


def _doubled(store: Path, tables: list[ShardTable]) -> Iterator[Problem]:
    """Shards with a clip that was there already, with this very audio."""
    newest: dict[str, tuple[str, int]] = {}
    for table in tables:
        number = table.place.number
        clips = dict(zip(table.text["clip_id"], table.text["audio_sha256"], strict=True))
        for clip, audio in clips.items():
            before = newest.get(clip)
            if before and before[0] == audio:
                detail = f"holds clip {clip!r}, as shard {before[1]} does"
                yield Problem(shard_path(store, number), "doubled", detail, number)
                break
        newest.update((clip, (audio, number)) for clip, audio in clips.items())


def _records(store: Path) -> Iterator[Problem]:
    """Failure records, plans and notes of repairs that are not what was written."""
    for path in sorted((store / FAILURES).glob("[!.]*")):
        try:
            if failure_path(store, read_failure(path)) != path:
                yield Problem(path, "record", "is the record of another clip")
        except (DamagedStore, TypeError) as error:
            yield Problem(path, "record", str(error))
    for path in sorted(store.glob("plan-*")):
        try:
            read_plan(path)
        except DamagedStore as error:
            yield Problem(path, "plan", str(error))
    for number, path in sorted(tombstones(store).items()):
        try:
            read_json(path)
        except DamagedStore as error:
            yield Problem(path, "note", str(error), number)
