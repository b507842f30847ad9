"""Files that are either whole or not there."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import functools
import glob
import hashlib
import io
import os
import platform
import secrets
import shutil
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from .errors import MissingDependency, StoreError

try:
    import fcntl
except ModuleNotFoundError as error:
    raise MissingDependency(
        "exhubert_features does not run on Windows itself: it has no locks that end with their "
        "process, and no folder can be synced there, so that a store could be lost",
        expected="Linux or macOS",
        remedy="Use it in WSL: `wsl --install`",
    ) from error

# A temporary of another machine, which no lock tells about, is swept when it is this old. Clocks
# of machines that share a disk may differ by hours, and a leftover costs nothing but space.
LEASE_SECONDS = 86_400.0

# What file systems without hard links answer to link().
_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}
_HERE = -100  # AT_FDCWD
_NO_REPLACE = 1  # RENAME_NOREPLACE
_EXCHANGE = 2  # RENAME_EXCHANGE


def publish(
    content: bytes | memoryview, final: Path, *, replace: bool = False, sweeping: bool = True
) -> bool:
    """Write a file so that no reader, kill or power cut ever meets half of it.

    Exclusive temporary beside it, fsync, hard link (first writer wins; with ``replace`` the
    last one does), fsync of the folder.

    Parameters
    ----------
    content
        All of the file.
    final
        Its name.
    replace
        Take the place of a file of that name.
    sweeping
        Delete what killed writers of the same name have left first; for that the whole folder
        is listed.

    Returns
    -------
    bool
        False when another writer published ``final`` first; its content stands.
    """
    if sweeping:
        sweep(final.parent, final.name)
    with temporary_file(final) as (descriptor, temporary):
        write_all(descriptor, content)
        os.fsync(descriptor)
        return move_into_place(temporary, final, replace=replace)


@contextlib.contextmanager
def temporary_file(final: Path) -> Iterator[tuple[int, Path]]:
    """Open a file beside ``final``: its descriptor and path; gone afterwards, if not moved.

    It is locked as long as it is open, so that a sweep sees that its writer lives.

    Raises
    ------
    StoreError
        For whatever the system refuses meanwhile, naming ``final``.
    """
    temporary = _temporary_for(final)
    try:
        descriptor = _create_locked(temporary)
        try:
            yield descriptor, temporary
        finally:
            os.close(descriptor)
    except OSError as error:
        raise write_error(final, error) from error
    finally:
        with contextlib.suppress(OSError):  # what cannot be deleted goes with the next sweep
            temporary.unlink()


@contextlib.contextmanager
def temporary_folder(final: Path, *, replace: bool = False) -> Iterator[Path]:
    """Make a folder beside ``final`` that takes its name once all in it is on the disk.

    What killed writers of ``final`` left behind goes first. With ``replace`` a folder that has
    the name goes, but no sooner than the new one is there.

    Raises
    ------
    OSError
        Whatever the system refuses.
    """
    make_folder(final.parent)
    sweep(final.parent, final.name)
    temporary = _temporary_for(final)
    temporary.mkdir()
    descriptor = os.open(temporary, os.O_RDONLY)
    try:
        _lock(descriptor)
        yield temporary
        name_folder(temporary, final, replace=replace)
    finally:
        os.close(descriptor)
        shutil.rmtree(temporary, ignore_errors=True)


def name_folder(source: Path, final: Path, *, replace: bool = False) -> None:
    """Give a finished folder its name, once all that is in it has reached the disk.

    With ``replace``, one that has the name is left under the name of ``source`` for the caller
    to delete: a power cut meets the old folder or the new one.

    Raises
    ------
    OSError
        Whatever the system refuses.
    """
    _sync_tree(source)
    if replace and final.exists():
        _exchange(source, final)
    else:
        source.rename(final)
    sync_folder(final.parent)


def _exchange(source: Path, target: Path) -> None:
    """Let two folders swap names."""
    if _rename(source, target, _EXCHANGE) == 0:
        return
    aside = _temporary_for(target)  # here a kill can leave the old folder under this name
    target.rename(aside)
    source.rename(target)
    aside.rename(source)


def _sync_tree(folder: Path) -> None:
    """Make all that is in a folder survive a power cut, and the folder's own list of names."""
    for where, _, names in os.walk(folder, topdown=False):
        for name in names:
            with Path(where, name).open("rb") as stream:
                os.fsync(stream.fileno())
        sync_folder(Path(where))


def _temporary_for(final: Path) -> Path:
    return final.with_name(f".{final.name}.{_machine()}-{secrets.token_hex(4)}.tmp")


def _create_locked(path: Path) -> int:
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
        _lock(descriptor)
        if os.fstat(descriptor).st_nlink:  # no sweep came between
            return descriptor
        os.close(descriptor)


def _lock(descriptor: int) -> None:
    with contextlib.suppress(OSError):  # no locks here: its age protects it
        fcntl.flock(descriptor, fcntl.LOCK_EX)


def write_all(descriptor: int, content: bytes | memoryview) -> None:
    """``os.write`` until nothing is left: a full disk is an OSError here, not a crash."""
    rest = memoryview(content)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def move_into_place(temporary: Path, final: Path, *, replace: bool = False) -> bool:
    """Give a finished, synced temporary its final name; False when that name is taken."""
    try:
        if replace:
            temporary.replace(final)
        else:
            _name_first(temporary, final)
    except FileExistsError:
        return False
    sync_folder(final.parent)
    return True


def _name_first(temporary: Path, final: Path) -> None:
    """Name a file in one step that fails when the name is taken."""
    try:
        os.link(temporary, final)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        _rename_first(temporary, final)


def _rename_first(source: Path, target: Path) -> None:
    code = _rename(source, target, _NO_REPLACE)
    if code in (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP):
        raise StoreError(
            f"the file system of {target} has neither hard links nor exclusive renames: two "
            "writers could take each other's place there",
            remedy="Write to another disk, and copy the result",
        )
    if code:
        raise OSError(code, os.strerror(code), str(target))


def _rename(source: Path, target: Path, flags: int) -> int:
    """Rename as only Linux can; the error's number, 0 for none."""
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is None:
        return errno.ENOSYS
    failed = rename(_HERE, os.fsencode(source), _HERE, os.fsencode(target), flags)
    return ctypes.get_errno() if failed else 0


def make_folder(folder: Path) -> None:
    """Make a folder, with those above it, so that their names survive a power cut."""
    if not folder.is_dir():
        make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        sync_folder(folder.parent)


def sync_folder(folder: Path) -> None:
    """Make names in a folder survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_error(path: Path, error: OSError) -> StoreError:
    """Make the StoreError for a failed write, with what the user can do."""
    remedy = "Check that the folder exists and is writable"
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        remedy = "Free some space and run the same command again: it goes on where it stopped"
    return StoreError(f"{path} cannot be written: {error.strerror or error}", remedy=remedy)


def sweep(folder: Path, name: str | None = None, *, sparing: str = "") -> None:
    """Delete temporaries whose writers are dead: those of one name, or all in a folder but one's.

    One that cannot be deleted is in nobody's way, and goes with a later sweep.
    """
    pattern = ".*.tmp" if name is None else f".{glob.escape(name)}.*.tmp"
    for path in folder.glob(pattern):
        with contextlib.suppress(OSError):  # finished, or swept by another
            spared = sparing and path.name.startswith(f".{sparing}.")
            if not spared and _is_abandoned(path):
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def abandoned_files(final: Path) -> dict[Path, bool]:
    """List what killed writers have left of a file of this name, and whether they surely are dead.

    Of a writer on another machine, whose lock may not show here, nobody can be sure for a day.
    """
    found = {}
    for path in final.parent.glob(f".{glob.escape(final.name)}.*.tmp"):
        with contextlib.suppress(OSError):  # its writer has ended meanwhile
            if (fate := _fate_of_writer(path)) != "alive":
                found[path] = fate == "dead"
    return found


def _is_abandoned(temporary: Path) -> bool:
    return _fate_of_writer(temporary) == "dead"


def _fate_of_writer(temporary: Path) -> Literal["alive", "unknown", "dead"]:
    ours = temporary.name.split(".")[-2].startswith(f"{_machine()}-")
    flags = os.O_NONBLOCK | os.O_NOFOLLOW
    try:
        descriptor = os.open(temporary, os.O_RDWR | flags)  # NFS locks no other
    except OSError:  # a folder, or another user's
        descriptor = os.open(temporary, os.O_RDONLY | flags)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return "alive"
    except OSError:
        ours = False
    finally:
        modified = os.fstat(descriptor).st_mtime
        os.close(descriptor)
    return "dead" if ours or time.time() - modified > LEASE_SECONDS else "unknown"


@functools.cache
def _machine() -> str:
    """Tell running systems apart: locks are seen within one."""
    try:
        name = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii")
    except OSError:
        name = platform.node()
    return hashlib.sha256(name.encode()).hexdigest()[:8]


class IrregularFile(OSError):
    """A folder, a FIFO, a device: nothing to read bytes from."""


class RegularFile(io.FileIO):
    """A file open for reading that remembers what the system refused.

    HDF5, which reads through it, does not tell a failing disk from a damaged file. A FIFO,
    which would block, and a device, which never ends, are refused.

    Raises
    ------
    OSError
        When it cannot be opened, or is no regular file.
    """

    failure: OSError | None = None

    def __init__(self, path: Path) -> None:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise IrregularFile(errno.EINVAL, "it is no regular file", str(path))
        super().__init__(descriptor)

    def readinto(self, buffer: Any) -> int:
        """Read into a writable buffer; how many bytes."""
        try:
            return super().readinto(buffer) or 0
        except OSError as error:
            self.failure = error
            raise


def read_regular(path: Path) -> bytes:
    """All bytes of a regular file."""
    with RegularFile(path) as file:
        return file.readall()
