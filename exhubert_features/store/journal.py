"""What a store is (`store.json`), and what happened to it (`journal.jsonl`)."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import io
import json
import os
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from ..errors import DamagedStore, FingerprintMismatch, StoreError
from ..files import (
    IrregularFile,
    RegularFile,
    make_folder,
    move_into_place,
    sweep,
    sync_folder,
    temporary_file,
    write_all,
    write_error,
)
from ..fingerprint import Fingerprint
from ..records import ClipFailure
from ..register import NameSet
from ..stamps import stamped, unstamped, write_json
from .folder import QUARANTINE, SHARDS, STATE, list_folder, read_record
from .index import RECENT
from .opening import REPAIR, check_version, read_error, read_fingerprint
from .shard import FORMAT, VERSION

MANIFEST = "store.json"
JOURNAL = "journal.jsonl"
IN_HAND = "in-hand"  # see flight.py
FAILURES, PLANS = "failures", "plan-*.jsonl"  # where version 1 kept what the journal says
LAYOUT = (
    "shards/NNNNNN.h5: immutable HDF5 files, numbered without gaps. journal.jsonl: the clips each "
    "run was asked for, those that failed and why, one event a line. state.json: how many shards "
    "the last run left. index.npz, recent/: derived, may be deleted. quarantine/: what a repair "
    "took out."
)
ASKED_AT_ONCE = 8192  # clips in one event, 400 KB
_SPARE_EVENTS = 100  # that a journal may have beyond what they come to
_WORDS = ("id", "file", "kind", "reason", "audio_sha256", "when")

Key = tuple[str, str]


@dataclass(frozen=True, kw_only=True)
class StoredFailure(ClipFailure):
    """A clip without features, as the store remembers it."""

    attempts: int = 1
    when: str = ""  # of the last attempt, UTC


@dataclass
class Journal:
    """What all events come to; of clips asked for it only keeps how many, they may be millions."""

    failures: dict[Key, StoredFailure] = field(default_factory=dict)
    events: int = 0
    asked: int = 0
    on_planned: Callable[[Mapping[str, str]], None] | None = None  # gets clips asked for, in order

    def take(self, event: Mapping[str, Any]) -> None:
        """Add one event."""
        self.events += 1
        match event:
            case {"event": "planned", "clips": dict(clips)}:
                self.ask(clips)
            case {"event": "mended", "id": str(name), "file": str(file)}:
                self.failures.pop(clip_key(name, file), None)
            case {"event": "renewed"}:  # what follows says all that came before, also elsewhere
                self.failures = {}
            case {"event": "failed", **values}:
                self.add_failure(stored_failure(values))
            case _:
                raise ValueError("it is no event")

    def ask(self, clips: Mapping[str, str]) -> None:
        """Count clips that are asked for: the audio hash by id, empty while it was not known."""
        self.asked += len(clips)
        if self.on_planned is not None:
            self.on_planned(clips)

    def add_failure(self, failure: StoredFailure) -> None:
        """Remember a failure; attempts add up."""
        key = clip_key(failure.id, failure.file)
        before = self.failures.pop(key, None)
        attempts = failure.attempts + (before.attempts if before else 0)
        self.failures[key] = StoredFailure(**asdict(failure) | {"attempts": attempts})


def clip_key(name: str, file: str) -> Key:
    """Give what a clip is recognised by: two sources with one id (a duplicate) are two clips."""
    # Failures hold escapes for bytes of file names that are no UTF-8.
    return name, file.encode("utf-8", "backslashreplace").decode()


def stored_failure(values: Mapping[str, Any]) -> StoredFailure:
    """Give a failure out of JSON data; ValueError when it is none."""
    try:
        failure = StoredFailure(**values)
    except TypeError as error:
        raise ValueError("it is no record of a failure") from error
    words = all(isinstance(getattr(failure, name), str) for name in _WORDS)
    if not words or not isinstance(failure.attempts, int):
        raise ValueError("it is no record of a failure")
    return failure


def failed(failure: ClipFailure) -> dict[str, Any]:
    """Give the event that a clip failed."""
    return {"event": "failed", "when": now(), **asdict(failure)}


def mended(failure: ClipFailure) -> dict[str, Any]:
    """Give the event that a clip that had failed is stored now."""
    return {"event": "mended", "id": failure.id, "file": failure.file, "when": now()}


def planned(clips: Mapping[str, str]) -> dict[str, Any]:
    """Give the event that clips are asked for: the audio hash by id, empty where not known."""
    return {"event": "planned", "clips": dict(clips), "when": now()}


def now() -> str:
    """UTC time, to the second."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def append_events(store: Path, events: Iterable[Mapping[str, Any]]) -> None:
    """Write events behind all others, and to the disk; any number of writers may.

    A line that a power cut tore is cut off first: what it tells of is done again anyway.
    """
    content, path = _lines(events), store / JOURNAL
    if not content:
        return
    try:
        with _locked(path) as descriptor:
            size = _cut_torn_line(descriptor)
            try:
                write_all(descriptor, content)
                os.fsync(descriptor)
            except OSError:
                os.ftruncate(descriptor, size)
                raise
            if not size:
                sync_folder(store)
    except OSError as error:
        raise write_error(path, error) from error


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[int]:
    """Give the journal, open for appending; others wait, where the file system knows locks."""
    while True:
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK
        descriptor = os.open(path, flags, 0o666)
        try:
            with contextlib.suppress(OSError):
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            ours = os.fstat(descriptor)
            if not stat.S_ISREG(ours.st_mode):
                raise StoreError(f"{path} is no regular file", remedy="Delete it")
            if path.exists() and os.path.samestat(ours, path.stat()):  # not replaced meanwhile
                yield descriptor
                return
        finally:
            os.close(descriptor)


def _cut_torn_line(descriptor: int) -> int:
    size = os.fstat(descriptor).st_size
    if size and os.pread(descriptor, 1, size - 1) != b"\n":
        size = os.pread(descriptor, size, 0).rfind(b"\n") + 1
        os.ftruncate(descriptor, size)
    return size


def read_journal(
    store: Path, on_planned: Callable[[Mapping[str, str]], None] | None = None
) -> Journal:
    """Give what happened to a store folder.

    Parameters
    ----------
    store
        The folder.
    on_planned
        Gets the clips that were asked for, some thousand at a time, in the order of time.

    Raises
    ------
    DamagedStore
        When a line is not what was written.
    """
    journal = Journal(on_planned=on_planned)
    for place, problem in scan_journal(store, journal):
        raise DamagedStore(f"{place}: {problem}", remedy="Run `exhubert verify --repair` on it")
    return journal


def scan_journal(store: Path, journal: Journal) -> Iterator[tuple[Path, str]]:
    """Fill a journal; gives each file, with the reason, of which a line cannot be used."""
    for path in sorted(store.glob(PLANS)):
        content = _read(path)
        if hashlib.sha256(content).hexdigest()[:16] != path.stem.rpartition("-")[2]:
            yield path, "its hash does not match its name"
            continue
        clips = [json.loads(line) for line in content.splitlines()]
        journal.ask({clip["id"]: clip["audio_sha256"] for clip in clips})
    for path in list_folder(store / FAILURES):
        try:
            journal.add_failure(stored_failure(unstamped(_read(path))))
        except ValueError as error:
            yield path, str(error)
    for number, line in enumerate(_journal_lines(store), start=1):
        try:
            journal.take(unstamped(line))
        except ValueError as error:
            yield store / JOURNAL, f"line {number}: {error}"


def _journal_lines(store: Path) -> Iterator[bytes]:
    """Lines of the journal; one that has no end was never written whole."""
    with _opened(store / JOURNAL) as stream:
        yield from (line[:-1] for line in stream if line.endswith(b"\n"))


def _read(path: Path) -> bytes:
    with _opened(path) as stream:
        return stream.read()


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    """Open a file of a store; one that is absent is empty."""
    try:
        with contextlib.ExitStack() as opened:
            try:
                raw = opened.enter_context(RegularFile(path))
            except FileNotFoundError:
                yield io.BytesIO()
            else:
                yield opened.enter_context(io.BufferedReader(raw))
    except IrregularFile as error:
        raise DamagedStore(f"{path} is no regular file", remedy=REPAIR) from error
    except OSError as error:
        raise read_error(path, error) from error


def compact_journal(store: Path) -> None:
    """Write the journal anew when most of its events have become one another's past."""
    journal = read_journal(store)
    kept = len(journal.failures) + journal.asked // ASKED_AT_ONCE
    if journal.events > 2 * kept + _SPARE_EVENTS:
        renew_journal(store)


def renew_journal(store: Path) -> None:
    """Write the shortest journal that comes to the same, without lines that cannot be used."""
    path = store / JOURNAL
    names, clips = NameSet(), dict[str, str]()
    sweep(store, JOURNAL)
    with _locked(path), temporary_file(path) as (descriptor, temporary):

        def write(events: Iterable[Mapping[str, Any]]) -> None:
            write_all(descriptor, _lines(events))

        def ask(more: Mapping[str, str]) -> None:
            # Of a clip whose audio was not known yet, one note is enough.
            new = {name: audio for name, audio in more.items() if audio or names.add(name)}
            if len(clips) + len(new) > ASKED_AT_ONCE:
                write([planned(clips)])
                clips.clear()
            clips.update(new)

        write([{"event": "renewed", "when": now()}])
        journal = Journal(on_planned=ask)
        for _ in scan_journal(store, journal):
            pass
        write([planned(clips)])
        write({"event": "failed", **asdict(failure)} for failure in journal.failures.values())
        os.fsync(descriptor)
        move_into_place(temporary, path, replace=True)


def _lines(events: Iterable[Mapping[str, Any]]) -> bytes:
    return "".join(json.dumps(stamped(event)) + "\n" for event in events).encode()


def create_store(store: Path, fingerprint: Fingerprint, provenance: Mapping[str, Any]) -> None:
    """Make a folder a store of this fingerprint, or make sure that it is one."""
    try:
        make_folder(store)
        present = [path.name for path in list_folder(store)]
        if MANIFEST not in present:
            if present:
                raise StoreError(
                    f"{store} is a folder with other files in it ({present[0]}, ...)",
                    expected="a feature store, or a new or empty folder",
                )
            write_json(store / MANIFEST, description(fingerprint, provenance))
        for name in (SHARDS, QUARANTINE, RECENT):
            make_folder(store / name)
            sweep(store / name)
        sweep(store, sparing=IN_HAND)  # it tells of clips that killed
    except OSError as error:
        raise write_error(store, error) from error
    require_same(store, read_description(store)["fingerprint"], fingerprint)


def renew_description(store: Path, fingerprint: Fingerprint) -> None:
    """Let `store.json` say all that is known by now, before shards are added to an old store."""
    found = read_description(store)
    require_same(store, found["fingerprint"], fingerprint)
    if found["version"] < VERSION or found["fingerprint"].model.config_sha256 is None:
        write_json(store / MANIFEST, description(fingerprint, found["provenance"]), replace=True)


def description(fingerprint: Fingerprint, provenance: Mapping[str, Any]) -> dict[str, Any]:
    """Content of ``store.json``."""
    return {
        "format": FORMAT,
        "version": VERSION,
        "layout": LAYOUT,
        "fingerprint": fingerprint.to_dict(),  # decides the numbers: another one is refused
        "provenance": dict(provenance),  # where the first writer found the model, and the like
    }


def read_description(store: Path) -> dict[str, Any]:
    """Content of the ``store.json`` of a folder."""
    path = store / MANIFEST
    data = read_record(path)
    if not data:
        raise StoreError(
            f"{store} is not a feature store: it has no {MANIFEST}",
            expected="a folder or packed .h5 file written by `exhubert extract`",
        )
    check_version(path, data.get("format"), data.get("version"))
    if not isinstance(data.get("provenance"), dict):
        raise DamagedStore(f"{path} has no provenance", remedy=REPAIR)
    return {**data, "fingerprint": read_fingerprint(path, data.get("fingerprint"))}


def no_store(path: Path) -> StoreError:
    """Give what to raise where nothing is."""
    return StoreError(
        f"there is no store at {path}",
        expected="a folder written by `exhubert extract` or a file written by `exhubert pack`",
        remedy="Check the path",
    )


def require_same(store: Path, found: Fingerprint, wanted: Fingerprint) -> None:
    """Refuse to mix features made with different weights or settings."""
    if differences := found.difference(wanted):
        raise FingerprintMismatch(
            f"{store} was made with other weights or settings: {'; '.join(differences)}",
            remedy="Use the settings of the store (`exhubert inspect`) or write to another folder",
        )


def note_state(store: Path, shards: int) -> None:
    """Remember how many shards there are: a later loss of the last one is then seen."""
    path = store / STATE
    if read_record(path).get("shards") != shards:
        write_json(path, {"shards": shards, "when": now()}, replace=True)
