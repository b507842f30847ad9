"""What lies in a corpus' folder."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..errors import CorpusError, UsageError
from ..files import read_regular
from ..suffixes import OTHER_VIDEO_SUFFIXES, SOUND_SUFFIXES, VIDEO_SUFFIXES

POINTER = b"version https://git-lfs"


@dataclass(frozen=True, kw_only=True)
class Tree:
    """Files below ``root``, as paths relative to it with forward slashes, sorted."""

    root: Path
    audio: tuple[str, ...]
    videos: tuple[str, ...]
    others: tuple[str, ...]

    def find(self, pattern: str) -> list[str]:
        """Files that are neither audio nor video and whose whole path fits."""
        rule = re.compile(pattern)
        return [name for name in self.others if rule.fullmatch(name)]


def walk(root: Path) -> Tree:
    """Everything below a folder but hidden files, among them the ``._name.wav`` of macOS."""
    if not root.is_dir():
        raise UsageError(
            f"{root} is {'no folder' if root.exists() else 'not there'}",
            expected="the folder that the corpus was unpacked to",
        )
    film = VIDEO_SUFFIXES | OTHER_VIDEO_SUFFIXES
    kinds: dict[str, list[str]] = {"audio": [], "video": [], "other": []}
    for path in _files(root):
        name = path.relative_to(root).as_posix()
        suffix = path.suffix.lower()
        kind = "audio" if suffix in SOUND_SUFFIXES else "other"
        kinds["video" if suffix in film else kind].append(name)
    audio, videos, others = (tuple(sorted(names)) for names in kinds.values())
    return Tree(root=root, audio=audio, videos=videos, others=others)


def read_text(path: Path) -> str:
    """Read a label file's text, in UTF-8 or else in the Western encoding of its time."""
    try:
        data = read_regular(path)
    except OSError as error:
        raise CorpusError(f"{path} cannot be read ({error.strerror})") from error
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("cp1252", errors="replace")


def damage(path: Path) -> str:
    """Say what is wrong with a file at first sight; nothing when nothing is."""
    try:
        if path.stat().st_size == 0:
            return "is empty: the archive was not unpacked whole"
        with path.open("rb") as stream:
            if stream.read(len(POINTER)) == POINTER:
                return "is a pointer of git LFS: `git lfs pull` fetches the audio"
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    return ""


def _files(root: Path) -> Iterator[Path]:
    failed: list[OSError] = []
    entered = {os.path.realpath(root)}
    for where, folders, names in os.walk(root, onerror=failed.append, followlinks=True):
        kept = []
        for name in sorted(folders):
            real = os.path.realpath(Path(where, name))
            if not name.startswith(".") and real not in entered:
                entered.add(real)
                kept.append(name)
        folders[:] = kept
        yield from (Path(where, name) for name in names if not name.startswith("."))
    if failed:
        raise UsageError(f"{failed[0].filename} cannot be listed ({failed[0].strerror})")
