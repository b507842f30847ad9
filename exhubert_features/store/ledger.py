"""The small files beside the shards: what the store is, what was asked for, what failed."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..errors import DamagedStore, FingerprintMismatch, StoreError
from ..files import publish, read_json, remove_orphans, write_error, write_json
from ..fingerprint import Fingerprint
from ..records import ClipFailure, PlannedClip
from .catalog import QUARANTINE, SHARDS, STATE
from .shard import FORMAT, VERSION, read_fingerprint

MANIFEST = "store.json"
FAILURES = "failures"
LAYOUT = (
    "shards/NNNNNN.h5: immutable HDF5 files, numbered without gaps. failures/: clips without "
    "features, and why. plan-*.jsonl: the clips each run was asked for. state.json: how many "
    "shards the last run left. index.npz: derived, may be deleted. quarantine/: what a repair "
    "took out."
)


@dataclass(frozen=True, kw_only=True)
class StoredFailure(ClipFailure):
    """A clip without features, as the store remembers it."""

    audio_sha256: str = ""  # empty when the clip could not even be planned
    attempts: int = 1
    when: str = ""  # of the last attempt, UTC


def create_store(store: Path, fingerprint: Fingerprint, provenance: Mapping[str, Any]) -> None:
    """Make a folder a store of this fingerprint, or make sure that it is one."""
    try:
        store.mkdir(parents=True, exist_ok=True)
        foreign = [path.name for path in store.iterdir() if not path.name.startswith(".")]
        if MANIFEST not in foreign:
            if foreign:
                raise StoreError(
                    f"{store} is a folder with other files in it ({sorted(foreign)[0]}, ...)",
                    expected="a feature store, or a new or empty folder",
                )
            write_json(store / MANIFEST, manifest(fingerprint, provenance))
        for name in (SHARDS, FAILURES, QUARANTINE):
            (store / name).mkdir(exist_ok=True)
            remove_orphans(store / name)
        remove_orphans(store)
    except OSError as error:
        raise write_error(store, error) from error
    require_same(store, read_manifest(store)["fingerprint"], fingerprint)


def manifest(fingerprint: Fingerprint, provenance: Mapping[str, Any]) -> dict[str, Any]:
    """Content of ``store.json``."""
    return {
        "format": FORMAT,
        "version": VERSION,
        "layout": LAYOUT,
        "fingerprint": fingerprint.to_dict(),  # decides the numbers: another one is refused
        "provenance": provenance,  # where the first writer found the model, and the like
    }


def no_store(path: Path) -> StoreError:
    """What to raise where nothing is."""
    return StoreError(
        f"there is no store at {path}",
        expected="a folder written by `exhubert extract` or a file written by `exhubert pack`",
        remedy="Check the path",
    )


def read_manifest(store: Path) -> dict[str, Any]:
    """Content of the ``store.json`` of a folder."""
    path = store / MANIFEST
    if not path.is_file():
        raise StoreError(
            f"{store} is not a feature store: it has no {MANIFEST}",
            expected="a folder or packed .h5 file written by `exhubert extract`",
        )
    data = read_json(path)
    check_version(path, data.get("format"), data.get("version"))
    return {**data, "fingerprint": read_fingerprint(path, data.get("fingerprint"))}


def check_version(path: Path, name: object, version: object) -> None:
    """Refuse formats this code does not know."""
    if name != FORMAT or version != VERSION:
        raise StoreError(
            f"{path} is of format {name} version {version}",
            expected=f"{FORMAT} version {VERSION}",
            remedy="Open it with the package version that wrote it",
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
    if not path.exists() or read_json(path)["shards"] != shards:
        write_json(path, {"shards": shards, "when": now()}, replace=True)


def now() -> str:
    """UTC time, to the second."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def write_plan(store: Path, clips: Iterable[PlannedClip]) -> None:
    """Keep what a run was asked for, unless an earlier plan says the same of a clip."""
    known = read_plans(store)
    lines = [
        json.dumps(
            {
                "id": clip.id,
                "audio_sha256": clip.audio_sha256,
                "samples": clip.samples,
                "file": clip.file,
            }
        )
        for clip in clips
        if known.get(clip.id) != clip.audio_sha256
    ]
    if lines:
        content = "".join(line + "\n" for line in lines).encode()
        number = len(list(store.glob("plan-*.jsonl"))) + 1
        publish(content, store / f"plan-{number:04d}-{_content_key(content)}.jsonl")


def read_plans(store: Path) -> dict[str, str]:
    """Clip id -> audio hash last asked for, over all plans."""
    wanted: dict[str, str] = {}
    for path in sorted(store.glob("plan-*.jsonl")):
        wanted |= read_plan(path)
    return wanted


def read_plan(path: Path) -> dict[str, str]:
    """Clip id -> audio hash of one plan, whose name is the hash of its content."""
    content = path.read_bytes()
    if _content_key(content) != path.stem.rpartition("-")[2]:
        raise DamagedStore(
            f"{path} is not what was written: its hash does not match its name",
            remedy="Run `exhubert verify --repair` on the store",
        )
    clips = [json.loads(line) for line in content.splitlines()]
    return {clip["id"]: clip["audio_sha256"] for clip in clips}


def _content_key(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def failure_path(store: Path, failure: ClipFailure) -> Path:
    """One file for each clip: two sources with one id (a duplicate) are two clips."""
    name = f"{failure.id}\0{failure.file}".encode("utf-8", "surrogateescape")
    return store / FAILURES / f"{_content_key(name)}.json"


def write_failure(store: Path, failure: ClipFailure, *, audio_sha256: str = "") -> Path:
    """Record a failure; trying the same clip again counts up."""
    path = failure_path(store, failure)
    attempts = 1 + (read_failure(path).attempts if path.exists() else 0)
    data = asdict(failure) | {"audio_sha256": audio_sha256, "attempts": attempts, "when": now()}
    write_json(path, data, replace=True)
    return path


def read_failure(path: Path) -> StoredFailure:
    """One failure record."""
    return StoredFailure(**read_json(path))


def read_failures(store: Path) -> dict[Path, StoredFailure]:
    """All failure records of a store folder, by file."""
    return {path: read_failure(path) for path in sorted((store / FAILURES).glob("*.json"))}
