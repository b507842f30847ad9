"""How much memory a clip may take, known before it is decoded."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from ..errors import AudioError
from ..spec import SAMPLE_RATE

SHARE = 2  # a clip may take one half: the windows of it and the states take their part
FALLBACK = 4 << 30  # bytes, where the system does not say what is free
SAMPLE_BYTES = 4
UNLIMITED = 1 << 60  # bytes; cgroups write "no limit" as some number beyond
# Of control groups: where they are, what one may take, what it has taken, for both versions.
CGROUPS = (
    ("/sys/fs/cgroup", "memory.max", "memory.current"),
    ("/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes"),
)
FILE_PAGES = ("active_file", "inactive_file")


def memory_limit() -> int:
    """Bytes that the samples of one clip may take: half of what is free to this process."""
    free = (_free_in_machine(), _free_in_container(), _free_by_ulimit())
    known = [amount for amount in free if amount is not None]
    return max(0, min(known)) // SHARE if known else FALLBACK


def _check_memory(name: str, samples: int, limit: int) -> None:
    """Refuse a clip of more samples at 16 kHz than fit into ``limit`` bytes."""
    if samples * SAMPLE_BYTES > limit:
        raise AudioError(
            f"{name} has {samples / SAMPLE_RATE / 60:.0f} minutes of audio or more, which take "
            f"{samples * SAMPLE_BYTES / 1e6:.0f} MB of memory",
            expected=f"at most {limit / 1e6:.0f} MB for one clip",
            remedy="Cut it into parts with start and end columns in a manifest",
            kind="memory",
        )


def collect(name: str, blocks: Iterable[np.ndarray], samples: int | None, limit: int) -> np.ndarray:
    """Put (n,) float32 blocks together, never taking more than ``limit`` bytes.

    Parameters
    ----------
    name
        The clip, for the error.
    blocks
        Its samples at 16 kHz.
    samples
        How many they will be; None where only the last block tells.
    limit
        Bytes for the result.
    """
    if samples is None:
        return _collect_unknown(name, blocks, limit)
    _check_memory(name, samples, limit)
    wave = np.empty(samples, np.float32)
    place = 0
    for block in blocks:
        wave[place : place + len(block)] = block
        place += len(block)
    return wave[:place]


def _collect_unknown(name: str, blocks: Iterable[np.ndarray], limit: int) -> np.ndarray:
    parts: list[np.ndarray] = []
    samples = 0
    for block in blocks:
        samples += len(block)
        _check_memory(name, samples, limit // 2)  # the parts, and what they are put together to
        parts.append(block)
    return np.concatenate(parts) if parts else np.zeros(0, np.float32)


def _free_in_machine() -> int | None:
    free = re.search(r"^MemAvailable:\s*(\d+) kB", _text("/proc/meminfo"), re.M)
    return int(free[1]) * 1024 if free else None


def _free_in_container() -> int | None:
    """Tell what the tightest of the process' control groups leaves: a container, a job's share."""
    paths = [line.split(":", 2)[2:] for line in _text("/proc/self/cgroup").splitlines()]
    inside = {Path("/"), *(Path(path) for line in paths for path in line)}
    folders = {folder for path in inside for folder in (path, *path.parents)}
    free = [
        _free_in_group(f"{root}/{folder}", limit_file, taken_file)
        for root, limit_file, taken_file in CGROUPS
        for folder in folders
    ]
    return min((amount for amount in free if amount is not None), default=None)


def _free_in_group(folder: str, limit_file: str, taken_file: str) -> int | None:
    limit, taken = (_text(f"{folder}/{name}").strip() for name in (limit_file, taken_file))
    if not (limit.isdigit() and taken.isdigit() and int(limit) < UNLIMITED):
        return None
    # Files that were read stay in memory as long as nobody wants it, and count as taken.
    stat: dict[str, str] = dict(re.findall(r"^(\w+) (\d+)$", _text(f"{folder}/memory.stat"), re.M))
    kept = sum(int(stat.get(f"total_{name}") or stat.get(name, "0")) for name in FILE_PAGES)
    return int(limit) - max(0, int(taken) - kept)


def _free_by_ulimit() -> int | None:
    """Tell how much ``ulimit -v`` leaves; it counts address space and not memory."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    pages = _text("/proc/self/statm").split()
    if limit == resource.RLIM_INFINITY or not pages:
        return None
    return limit - int(pages[0]) * os.sysconf("SC_PAGE_SIZE")


def _text(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""
