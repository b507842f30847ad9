"""A small file system in a file, and power cuts on it: what was not flushed is gone.

Needs Linux, root and loop devices; :func:`missing` says what there is not.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from pathlib import Path

_SHUTDOWN = 0x8004587D  # EXT4_IOC_SHUTDOWN
_WITHOUT_FLUSHING = (2).to_bytes(4, sys.byteorder)
# Nothing reaches the disk by itself, and nothing is flushed as a favour when a file is renamed
# over another: both are chances that other file systems do not give.
_OPTIONS = "loop,commit=300,noauto_da_alloc"


class Image:
    """An ext4 file system, mounted until :meth:`close`.

    Parameters
    ----------
    scratch
        Folder for the file and for the mount point.
    megabytes
        Size.

    Attributes
    ----------
    folder
        Where it is mounted.
    """

    def __init__(self, scratch: Path, megabytes: int = 1024) -> None:
        self._file = scratch / "disk.img"
        self.folder = scratch / "disk"
        self.folder.mkdir()
        with self._file.open("wb") as stream:
            stream.truncate(megabytes << 20)
        _run("mkfs.ext4", "-q", "-F", str(self._file))
        self._mount()

    def cut(self, *, names_first: bool = False) -> None:
        """Cut the power and start again: what was not flushed is lost.

        With ``names_first``, names and sizes of files have reached the disk just before, and
        their content has not: a file system may choose to write in that order.
        """
        if names_first:
            with (self.folder / "other").open("wb") as stream:
                os.fsync(stream.fileno())  # commits all changes of names, of whatever file
        descriptor = os.open(self.folder, os.O_RDONLY)
        try:
            fcntl.ioctl(descriptor, _SHUTDOWN, _WITHOUT_FLUSHING)
        finally:
            os.close(descriptor)
        self.close()
        self._mount()

    def flush(self) -> None:
        """Bring all that was written so far to the disk."""
        _run("sync", "-f", str(self.folder))

    def close(self) -> None:
        """Unmount."""
        _run("umount", str(self.folder))

    def _mount(self) -> None:
        _run("mount", "-o", _OPTIONS, str(self._file), str(self.folder))


def missing(scratch: Path) -> str:
    """What this machine lacks for power cuts; empty for nothing."""
    if not sys.platform.startswith("linux") or os.geteuid():
        return "power cuts are tried on a file system of their own, which needs Linux and root"
    for tool in ("mkfs.ext4", "mount", "umount"):
        if shutil.which(tool) is None:
            return f"power cuts need {tool}"
    try:
        folder = scratch / "try"
        folder.mkdir()
        image = Image(folder, megabytes=16)
        image.cut()
        image.close()
    except (OSError, subprocess.CalledProcessError) as error:
        return f"power cuts need to mount a file, which fails here: {error}"
    return ""


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)
