"""Check every byte of a store against what was written, and take out what is not right."""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DamagedStore, StoreError
from ..files import move_into_place, publish, write_error
from ..stamps import write_json
from .arrays import ShardReader
from .catalog import join_tables
from .folder import (
    QUARANTINE,
    SHARDS,
    STATE,
    list_folder,
    lost_shards,
    next_number,
    read_record,
    shard_files,
    shard_number,
    shard_path,
    tombstone_path,
    tombstones,
)
from .index import INDEX, forget_notes, load_catalog, note_path, read_index
from .journal import (
    FAILURES,
    JOURNAL,
    MANIFEST,
    Journal,
    description,
    no_store,
    note_state,
    now,
    read_description,
    renew_journal,
    scan_journal,
    stored_failure,
)
from .opening import CheckedShard, ShardTable, UnreadableStore, checked_shard


@dataclass(frozen=True)
class Damage:
    """One thing that is not as it was written."""

    path: Path
    kind: str  # "shard", "lost", "doubled", "foreign", "record", "plan", "state", "index", ...
    detail: str
    shard: int | None = None  # number of the shard concerned


@dataclass(frozen=True, kw_only=True)
class Verification:
    """What :func:`verify` found; no problems means that every byte is as it was written."""

    path: Path
    problems: tuple[Damage, ...]
    shards: int  # sound ones
    rows: int  # in these, replaced ones not counted
    described: dict[str, Any] | None  # fingerprint and provenance; None: nothing sound tells them
    deep: bool


def verify(path: str | Path, *, deep: bool = False) -> Verification:
    """Check a store: hashes, layout, gaps, doubled clips, journal, index.

    Parameters
    ----------
    path
        Folder or packed file.
    deep
        Also compare each vector with the checksum it got when it was extracted, and look for
        NaN and infinity.

    Returns
    -------
    Verification
        All that is wrong. What the system could not read is named, and is no damage.
    """
    store = Path(path)
    if not store.exists():
        raise no_store(store)
    found = _Check(store, deep)
    if store.is_dir():
        found.folder()
    else:
        found.shard(store, 0)
    return Verification(
        path=store,
        problems=tuple(found.problems),
        shards=len(found.tables),
        rows=len(join_tables(found.tables).live),
        described=found.described,
        deep=deep,
    )


class _Check:
    """What has been found so far."""

    def __init__(self, store: Path, deep: bool) -> None:
        self.store = store
        self.deep = deep
        self.problems: list[Damage] = []
        self.tables: list[ShardTable] = []
        self.described: dict[str, Any] | None = None

    def folder(self) -> None:
        """Give a whole folder."""
        store = self.store
        if not (store / MANIFEST).exists() and not (store / SHARDS).is_dir():
            raise StoreError(f"{store} is not a feature store: it has no {MANIFEST}")
        try:
            found = read_description(store)
            self.described = {name: found[name] for name in ("fingerprint", "provenance")}
        except StoreError as error:
            self._note(store / MANIFEST, "manifest", error)
        for file in list_folder(store / SHARDS):
            number = shard_number(file)
            if number is None:
                self._note(file, "foreign", "no file of a store has this name")
            else:
                self.shard(file, number)
        self.tables.sort(key=lambda table: table.place.number)
        self._lost()
        self._doubled()
        try:
            for path, reason in scan_journal(store, Journal()):
                self._note(path, "plan" if path.match("plan-*") else "record", reason)
        except StoreError as error:
            self._note(store / JOURNAL, "record", error)
        for number, path in sorted(tombstones(store).items()):
            try:
                read_record(path)
            except StoreError as error:
                self._note(path, "note", error, number)
        self._index()

    def shard(self, path: Path, number: int) -> None:
        """One shard: its bytes and layout and, if ``deep``, its numbers."""
        try:
            with checked_shard(path) as shard:
                self.described = self.described or shard.about()
                table = shard.table(number, self.described["fingerprint"])
                if self.deep:
                    self._numbers(shard, table)
                for failure in shard.failures():
                    stored_failure(failure)
            self.tables.append(table)
        except StoreError as error:
            self._note(path, "shard", error, number)

    def _note(
        self, path: Path, kind: str, detail: StoreError | str, shard: int | None = None
    ) -> None:
        kind = "unreadable" if isinstance(detail, UnreadableStore) else kind
        self.problems.append(Damage(path, kind, str(detail), shard))

    def _numbers(self, shard: CheckedShard, table: ShardTable) -> None:
        assert self.described
        reader = ShardReader(self.store, join_tables([table]), self.described["fingerprint"])
        crc32 = iter(shard.numbers("crc32", "<u4")) if shard.version == 1 else None
        for block in reader.blocks():
            starts = np.concatenate([[0], block.numbers["frame_end"]])
            for row, name in enumerate(block.text["id"]):
                frames = block.frames
                parts = [
                    block.pooled[row],
                    *([] if block.logits is None else [block.logits[row]]),
                    *([] if frames is None else [frames[:, starts[row] : starts[row + 1]]]),
                ]
                if crc32 and zlib.crc32(b"".join(p.tobytes() for p in parts)) != next(crc32):
                    raise DamagedStore(f"{shard.path}: row {name!r} does not match its checksum")
                if not all(np.isfinite(part).all() for part in parts):
                    raise DamagedStore(f"{shard.path}: row {name!r} holds NaN or infinity")

    def _lost(self) -> None:
        try:
            lost = lost_shards(self.store, shard_files(self.store))
        except StoreError as error:
            self._note(self.store / STATE, "state", error)
            return
        for number in lost:
            path = shard_path(self.store, number)
            self._note(path, "lost", "was published once and is gone", number)

    def _doubled(self) -> None:
        """Shards with a clip that was there already, with this very audio."""
        newest: dict[str, tuple[str, int]] = {}
        for table in self.tables:
            number = table.place.number
            clips = dict(zip(table.words("clip_id"), table.words("audio_sha256"), strict=True))
            for clip, audio in clips.items():
                before = newest.get(clip)
                if before and before[0] == audio:
                    detail = f"holds clip {clip!r}, as shard {before[1]} does"
                    self._note(shard_path(self.store, number), "doubled", detail, number)
                    break
            newest.update((clip, (audio, number)) for clip, audio in clips.items())

    def _index(self) -> None:
        self._contradicts(self.store / INDEX, self.tables)
        for table in self.tables:
            self._contradicts(note_path(self.store, table.place.number), [table])

    def _contradicts(self, path: Path, tables: list[ShardTable]) -> None:
        catalog, index = join_tables(tables), read_index(path)
        # An index of other shards is only old: readers see that and renew it.
        places = [shard.key for shard in catalog.shards]
        if index and [shard.key for shard in index.shards] == places and not index.equals(catalog):
            self._note(path, "index", "contradicts the shards")


def repair(found: Verification) -> None:
    """Mend what :func:`verify` found in a folder, if it is found a second time.

    Nothing is deleted but the index: damaged files move to ``quarantine/``, and a note there
    tells readers that the gap they leave is known. The clips that were in them are missing
    until the next extraction.

    Parameters
    ----------
    found
        What was found; files that the system could not read are left alone.

    Raises
    ------
    StoreError
        When nothing sound tells what the store is, it is a packed file, or links lead out of it.
    """
    store = found.path
    if store.is_file():
        raise StoreError(f"{store} is packed and cannot be repaired", remedy="Pack it again")
    if found.described is None:
        raise StoreError(
            f"neither {store / MANIFEST} nor any shard can be read",
            remedy="Extract again into a new folder",
        )
    for name in (SHARDS, FAILURES, QUARANTINE):
        if (store / name).is_symlink():
            raise StoreError(
                f"{store / name} is a link: files elsewhere are not moved",
                remedy="Put the folder it leads to in its place",
            )
    again = {(one.path, one.kind) for one in verify(store, deep=found.deep).problems}
    problems = [one for one in found.problems if (one.path, one.kind) in again]
    try:
        for name in (SHARDS, QUARANTINE):
            (store / name).mkdir(exist_ok=True)
        for problem in problems:
            _mend(store, problem)
        if any(problem.kind == "manifest" for problem in problems):
            write_json(store / MANIFEST, description(**found.described), replace=True)
        forget_notes(store)
    except OSError as error:
        raise write_error(store, error) from error
    catalog = load_catalog(store, found.described["fingerprint"])
    note_state(store, next_number(store, catalog.shards))


def _mend(store: Path, problem: Damage) -> None:
    path, kind = problem.path, problem.kind
    if kind == "unreadable" or kind == "index":
        return
    if problem.shard is not None:
        # The note first: a kill in between leaves a damaged shard, not an unexplained gap.
        note = {"reason": problem.detail, "when": now()}
        write_json(tombstone_path(store, problem.shard), note, replace=True)
    if path == store / JOURNAL and path.is_file() and not path.is_symlink():
        if list(scan_journal(store, Journal())):  # not mended for another of its lines
            _quarantine(store, JOURNAL, lambda target: publish(path.read_bytes(), target))
            renew_journal(store)
    elif kind in ("shard", "doubled"):
        _quarantine(store, path.name, lambda target: _move(path, target))
    elif problem.shard is None and os.path.lexists(path):
        _quarantine(store, f"{kind}-{path.name}", lambda target: _move(path, target))


def _quarantine(store: Path, name: str, put: Callable[[Path], bool]) -> None:
    """Put a file under a name that nothing in quarantine has."""
    for number in count():
        if put(store / QUARANTINE / (f"{name}.{number}" if number else name)):
            return


def _move(path: Path, target: Path) -> bool:
    """Move a file or link, itself; False when the target is taken."""
    moved = move_into_place(path, target)
    if moved:
        path.unlink(missing_ok=True)
    return moved
