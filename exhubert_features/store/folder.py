"""Names of the files of a store's folder, and which of them there are."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import Any

from ..errors import DamagedStore
from ..files import IrregularFile, RegularFile
from ..stamps import read_json
from .opening import REPAIR, Key, ShardFile, read_error, stamped_digest

SHARDS = "shards"
QUARANTINE = "quarantine"
STATE = "state.json"
_DIGITS = 8  # a number of more is no shard's: they are taken one by one
_LOST_NAMED = 1000  # of a store that misses millions, no more are listed


def shard_path(store: Path, number: int) -> Path:
    """Where shard ``number`` of a store lies; a packed store is its own only shard."""
    return store if store.is_file() else store / SHARDS / f"{number:06d}.h5"


def tombstone_path(store: Path, number: int) -> Path:
    """Give the note that shard ``number`` was taken out by a repair."""
    return store / QUARANTINE / f"{number:06d}.json"


def tombstones(store: Path) -> dict[int, Path]:
    """Give the notes of all shards that repairs took out."""
    paths = ((_number(path, ".json"), path) for path in list_folder(store / QUARANTINE))
    return {number: path for number, path in paths if number is not None}


def shard_number(path: Path) -> int | None:
    """Give number of a shard file by its name, None for any other file."""
    return _number(path, ".h5")


def _number(path: Path, suffix: str) -> int | None:
    digits = path.stem.isascii() and path.stem.isdecimal() and len(path.stem) <= _DIGITS
    number = int(path.stem) if digits else -1
    return number if path.name == f"{number:06d}{suffix}" else None


def list_folder(folder: Path) -> list[Path]:
    """Files in a folder, sorted; none when it is absent.

    Raises
    ------
    StoreError
        When it cannot be listed: what is in it is not known then.
    """
    try:
        return sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except FileNotFoundError:
        return []
    except OSError as error:
        raise read_error(folder, error) from error


def shard_files(store: Path) -> dict[int, Path]:
    """Give the shards of a store, by number."""
    paths = ((shard_number(path), path) for path in list_folder(store / SHARDS))
    return {number: path for number, path in paths if number is not None}


def lost_shards(store: Path, present: Iterable[int]) -> list[int]:
    """Numbers of shards that were published once, and are neither there nor quarantined.

    Writers take numbers without gaps, and note at the end how many there are.
    """
    there = {*present, *tombstones(store)}
    state = read_record(store / STATE)
    noted = state.get("shards") if state else 0
    if type(noted) is not int or noted < 0:
        raise DamagedStore(f"{store / STATE} notes {noted!r} shards", remedy=REPAIR)
    stop = max([noted, *(number + 1 for number in there)], default=0)
    missing = (number for number in range(stop) if number not in there)
    # A folder listing is no snapshot: look again before calling a shard lost.
    lost = (
        number
        for number in missing
        if not shard_path(store, number).exists() and not tombstone_path(store, number).exists()
    )
    return list(islice(lost, _LOST_NAMED))


def read_record(path: Path) -> dict[str, Any]:
    """JSON data of a store, empty when the file is absent.

    Raises
    ------
    DamagedStore
        When it is not what was written.
    """
    try:
        return read_json(path)
    except FileNotFoundError:
        return {}
    except IrregularFile as error:
        raise DamagedStore(f"{path} is no regular file", remedy=REPAIR) from error
    except OSError as error:
        raise read_error(path, error) from error


def next_number(store: Path, shards: Iterable[ShardFile]) -> int:
    """Give the number after every shard there is and every one a repair took out."""
    return max([*(shard.number for shard in shards), *tombstones(store)], default=-1) + 1


def shard_keys(store: Path) -> list[Key]:
    """Give number, size, time of change and digest of each shard, in order.

    Raises
    ------
    DamagedStore
        When one is missing.
    """
    keys = []
    for number, path in sorted(shard_files(store).items()):
        with contextlib.suppress(FileNotFoundError):  # a repair came between: lost, or noted
            keys.append(shard_key(number, path))
    if lost := lost_shards(store, [number for number, *_ in keys]):
        many = f"at least {len(lost)}" if len(lost) == _LOST_NAMED else len(lost)
        raise DamagedStore(
            f"{store} has lost {many} shards, the first is {shard_path(store, lost[0])}",
            remedy="Run `exhubert verify --repair` on it, then extract again",
        )
    return keys


def shard_key(number: int, path: Path) -> Key:
    """Give what tells whether a shard is the one that was checked.

    Raises
    ------
    FileNotFoundError
        When there is none.
    """
    try:
        with RegularFile(path) as file:
            status = os.fstat(file.fileno())
            return number, status.st_size, status.st_mtime_ns, stamped_digest(file)
    except FileNotFoundError:
        raise
    except OSError:
        return number, 0, 0, 0  # like none that was checked: checking it will tell
