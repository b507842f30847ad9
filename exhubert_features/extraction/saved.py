"""Plans as files: one line an entry, and a checksum of all of them at the end."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO

from ..errors import UsageError
from ..files import move_into_place, sweep, temporary_file, write_all
from ..records import ClipFailure, Entry, Item

_FORMAT = {"format": "exhubert-plan", "version": 1}
_BLOCK = 1 << 20
_LINES = 4096  # written at a time
_LAST = 4096  # bytes in which the last line is
_REMEDY = "Save the plan anew"


def save_plan(entries: Iterable[Item], path: Path, dealt: int = 1) -> int:
    """Write entries to a file that appears when it is whole; give their number.

    Parameters
    ----------
    entries
        What to write.
    path
        The file; one that is there is replaced.
    dealt
        Of how many parts they are one: of those, parts have to be dealt in another way.
    """
    count, digest, block = 0, hashlib.sha256(), [_line(_FORMAT)]
    sweep(path.absolute().parent, path.name)
    with temporary_file(path.absolute()) as (descriptor, temporary):

        def write() -> None:
            content = b"".join(block)
            digest.update(content)
            write_all(descriptor, content)
            block.clear()

        for entry in entries:
            count += 1
            block.append(_line(_to_json(entry)))
            if len(block) >= _LINES:
                write()
        write()
        digest.update(_summed(count, dealt))
        parts = {} if dealt == 1 else {"dealt": dealt}
        write_all(descriptor, _line({"entries": count, **parts, "sha256": digest.hexdigest()}))
        os.fsync(descriptor)
        move_into_place(temporary, path.absolute(), replace=True)
    return count


class SavedPlan:
    """The entries in a file, read one by one; its bytes are compared with their checksum first.

    Parameters
    ----------
    path
        What :func:`save_plan` wrote.

    Attributes
    ----------
    dealt
        Of how many parts its entries are one.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            with path.open("rb") as stream:
                self._stamp = _stamp(stream)
                self._count, self.dealt, self._size = _check(stream, path)
        except OSError as error:
            raise UsageError(f"{path} cannot be read: {error.strerror or error}") from error

    def __iter__(self) -> Iterator[Item]:
        with self._path.open("rb") as stream:
            if _stamp(stream) != self._stamp:
                raise UsageError(f"{self._path} has changed since it was opened", remedy=_REMEDY)
            place = len(stream.readline())
            for line in stream:
                place += len(line)
                if place > self._size:
                    return
                yield _from_json(json.loads(line))

    def about(self) -> int:
        """Give how many entries there are."""
        return self._count


def _check(stream: BinaryIO, path: Path) -> tuple[int, int, int]:
    """Compare a file with its checksum; give its entries, parts, and the bytes that hold them."""
    size = stream.seek(0, os.SEEK_END)
    stream.seek(max(0, size - _LAST))
    last = stream.read().splitlines(keepends=True)[-1:]
    stream.seek(0)
    known = _is_ours(stream.readline(), path)
    try:
        said = json.loads(last[0])
        count, dealt, wanted = said["entries"], said.get("dealt", 1), said["sha256"]
    except (ValueError, LookupError, TypeError, AttributeError):
        known = False
    if not known or not last[0].endswith(b"\n"):
        raise UsageError(
            f"{path} is not a saved plan, or is cut off",
            expected="a file written by Plan.save",
            remedy=_REMEDY,
        )
    stream.seek(0)
    digest, left = hashlib.sha256(), size - len(last[0])
    while left and (block := stream.read(min(_BLOCK, left))):
        digest.update(block)
        left -= len(block)
    digest.update(_summed(count, dealt))
    if digest.hexdigest() != wanted:
        raise UsageError(f"{path} is not what was written", remedy=_REMEDY)
    return count, dealt, size - len(last[0])


def _is_ours(line: bytes, path: Path) -> bool:
    """Tell whether a file begins as a saved plan does; refuse one of another version."""
    try:
        header = json.loads(line)
    except ValueError:
        return False
    if header == _FORMAT:
        return True
    if isinstance(header, dict) and header.get("format") == _FORMAT["format"]:
        raise UsageError(
            f"{path} is a saved plan of version {header.get('version')}",
            expected=f"version {_FORMAT['version']}",
            remedy="Load it with the version of exhubert-features that wrote it, or save it anew",
        )
    return False


def _summed(count: int, dealt: int) -> bytes:
    """Give what of the last line goes into the checksum."""
    return (str(count) if dealt == 1 else f"{count} of {dealt}").encode()


def _to_json(entry: Item) -> Any:
    if isinstance(entry, ClipFailure):
        return asdict(entry)
    if entry.load is not None:
        raise UsageError(
            f"{entry.id!r} is in memory", expected="a plan of files", remedy="Write it to a file"
        )
    place = (entry.start, entry.end, entry.in_samples)
    return [entry.id, entry.file, *place, dict(entry.meta)]


def _from_json(data: Any) -> Item:
    if isinstance(data, dict):
        return ClipFailure(**data)
    name, file, start, end, in_samples, meta = data
    return Entry(id=name, file=file, start=start, end=end, in_samples=in_samples, meta=meta)


def _line(data: Any) -> bytes:
    return json.dumps(data, separators=(",", ":")).encode() + b"\n"


def _stamp(stream: BinaryIO) -> tuple[int, int]:
    status = os.fstat(stream.fileno())
    return status.st_size, status.st_mtime_ns
