"""Files that are either whole or not there, and small JSON files that carry their own hash."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import secrets
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .errors import DamagedStore, StoreError

# A temporary lives for the seconds it takes to write one file; one this old has no writer left.
LEASE_SECONDS = 3600.0

# What file systems without hard links answer to link().
_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}


def publish(content: bytes | memoryview, final: Path, *, replace: bool = False) -> bool:
    """Write a file so that no reader, kill or power cut ever meets half of it.

    Exclusive temporary beside it, fsync, hard link (first writer wins; with ``replace`` the
    last one does), fsync of the folder.

    Returns
    -------
    bool
        False when another writer published ``final`` first; its content stands.
    """
    temporary = temporary_for(final)
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        try:
            write_all(descriptor, content)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        return move_into_place(temporary, final, replace=replace)
    except OSError as error:
        raise write_error(final, error) from error
    finally:
        discard(temporary)


def discard(temporary: Path) -> None:
    """Delete a temporary if it is there; one that cannot be deleted goes after its lease."""
    with contextlib.suppress(OSError):
        temporary.unlink()


def temporary_for(final: Path) -> Path:
    """A hidden name in the same folder that no other writer uses."""
    return final.with_name(f".{final.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")


def write_all(descriptor: int, content: bytes | memoryview) -> None:
    """``os.write`` until nothing is left: a full disk is an OSError here, not a crash."""
    rest = memoryview(content)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def move_into_place(temporary: Path, final: Path, *, replace: bool = False) -> bool:
    """Give a finished, synced temporary its final name; False when that name is taken."""
    if replace:
        temporary.replace(final)
    else:
        try:
            os.link(temporary, final)
        except FileExistsError:
            return False
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            # Without hard links there is no atomic "first wins": one writer at a time there.
            if final.exists():
                return False
            temporary.rename(final)
    sync_folder(final.parent)
    return True


def sync_folder(folder: Path) -> None:
    """Make names in a folder survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_error(path: Path, error: OSError) -> StoreError:
    """The StoreError for a failed write, with what the user can do."""
    remedy = "Check that the folder exists and is writable"
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        remedy = "Free some space and run the same command again: it goes on where it stopped"
    return StoreError(f"{path} cannot be written: {error.strerror or error}", remedy=remedy)


def remove_orphans(folder: Path, *, lease: float = LEASE_SECONDS) -> int:
    """Delete temporaries whose writer must be dead; how many there were."""
    removed = 0
    for path in folder.glob(".*.tmp"):
        try:
            if time.time() - path.stat().st_mtime > lease:
                path.unlink()
                removed += 1
        except FileNotFoundError:
            continue  # another writer cleaned it up, or finished it
    return removed


def canonical(data: Mapping[str, Any]) -> str:
    """One spelling of JSON data, for hashing and comparing."""
    return json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=True)


def write_json(path: Path, data: Mapping[str, Any], *, replace: bool = False) -> bool:
    """Publish JSON data with its SHA-256 inside, so that one flipped byte shows."""
    stamped = {**data, "sha256": hashlib.sha256(canonical(data).encode()).hexdigest()}
    return publish(json.dumps(stamped, indent=1, ensure_ascii=True).encode(), path, replace=replace)


def read_json(path: Path) -> dict[str, Any]:
    """What :func:`write_json` wrote.

    Raises
    ------
    DamagedStore
        When the content no longer matches its hash.
    """
    try:
        data = json.loads(path.read_bytes())
        stamp = data.pop("sha256")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _damaged(path) from error
    if stamp != hashlib.sha256(canonical(data).encode()).hexdigest():
        raise _damaged(path)
    return data


def _damaged(path: Path) -> DamagedStore:
    return DamagedStore(
        f"{path} is not what was written: its hash does not match",
        remedy="Run `exhubert verify --repair` on the store",
    )
