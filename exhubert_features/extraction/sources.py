"""Files, folders, manifests or arrays to a plan: every clip with its length and its hash."""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..audio import (
    AudioFile,
    array_samples,
    hash_array,
    planned_samples,
    probe_audio,
    segment_bounds,
)
from ..errors import AudioError, UsageError
from ..records import ClipFailure, PlannedClip
from ..spec import SAMPLE_RATE
from .manifest import MANIFEST_SUFFIXES, Entry, read_manifest

Array = np.ndarray | tuple[np.ndarray, int]
Source = str | Path | Sequence[str | Path] | Mapping[str, Array]

# Taken from folders. The last line libsndfile does not read: those become failures that say
# so, because a recording left out without a word is worse.
AUDIO_SUFFIXES = {
    *(".wav", ".wave", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".aifc"),
    *(".au", ".snd", ".caf", ".w64", ".rf64", ".voc", ".nist", ".sph"),
    *(".m4a", ".aac", ".wma", ".amr", ".webm"),
}
# Control characters, and the surrogates that stand for bytes which are no UTF-8.
UNSTORABLE = re.compile("[\x00-\x1f\x7f\ud800-\udfff]")


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What to do: clips with unique ids, and those that cannot be done, with the reason.

    ``stamps`` is each file's (size, mtime) when it was hashed, ``arrays`` holds the clips in
    memory, ``left_out`` counts files in folders whose names are not those of audio.
    """

    clips: tuple[PlannedClip, ...]
    rejected: tuple[ClipFailure, ...]
    stamps: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    arrays: Mapping[str, tuple[np.ndarray, int]] = field(default_factory=dict)
    left_out: int = 0


def plan_clips(
    source: Source,
    *,
    channel: int | None = None,
    data_root: str | Path | None = None,
    workers: int | None = None,
) -> Plan:
    """Find every clip of a source, read its header and hash its bytes.

    Parameters
    ----------
    source
        A file, folder or manifest, several of them, or arrays in memory by id, each (N,) at
        16 kHz or a pair (array, rate).
    channel
        The channel that will be read, to refuse files without it.
    data_root
        Takes the place of ``{data_root}`` in SpeechBrain manifests.
    workers
        Threads that hash; None suits the machine.
    """
    threads = worker_count(workers)
    if channel is not None and channel < 0:
        raise UsageError(f"channel is {channel}", expected="0 for the first, 1, ...")
    if isinstance(source, Mapping):
        return _plan_arrays(source)
    paths = [source] if isinstance(source, str | Path) else list(source)
    if not paths:
        raise UsageError("no input at all", expected="files, folders or manifests")
    if not any(os.path.lexists(path) for path in paths):
        raise UsageError(f"{', '.join(map(str, paths))} does not exist")
    left_out: list[Path] = []
    root = None if data_root is None else str(data_root)
    entries = [entry for path in paths for entry in _entries(Path(path), root, left_out)]
    if not entries:
        raise UsageError(
            f"no audio in {', '.join(map(str, paths))}", expected="files such as .wav or .flac"
        )
    files = sorted({entry.file for entry in entries if isinstance(entry, Entry)})
    with ThreadPoolExecutor(max_workers=threads) as pool:
        probed = dict(zip(files, pool.map(_probe, files), strict=True))
    ids = _Ids()
    planned = [
        entry if isinstance(entry, ClipFailure) else _plan(entry, probed[entry.file], channel, ids)
        for entry in entries
    ]
    return Plan(
        clips=tuple(clip for clip in planned if isinstance(clip, PlannedClip)),
        rejected=tuple(clip for clip in planned if isinstance(clip, ClipFailure)),
        stamps={
            file: found.stamp for file, found in probed.items() if isinstance(found, AudioFile)
        },
        left_out=len(left_out),
    )


def worker_count(workers: int | None) -> int:
    """Threads to use: those asked for, or one for each processor up to eight."""
    if workers is None:
        return min(8, os.cpu_count() or 1)
    if workers < 1:
        raise UsageError(f"workers is {workers}", expected="at least 1")
    return workers


def _entries(
    path: Path, data_root: str | None, left_out: list[Path]
) -> Iterator[Entry | ClipFailure]:
    """Clips that one input names. A file is known by its path, a folder's by the path inside."""
    if path.is_dir():
        yield from _folder_entries(path, left_out)
    elif path.suffix.lower() in MANIFEST_SUFFIXES:
        yield from read_manifest(path, data_root)
    else:
        yield Entry(id=path.as_posix(), file=str(path))


def _folder_entries(folder: Path, left_out: list[Path]) -> Iterator[Entry | ClipFailure]:
    unreadable: list[OSError] = []
    seen = {os.path.realpath(folder)}
    for where, folders, names in os.walk(folder, onerror=unreadable.append, followlinks=True):
        folders[:] = sorted(name for name in folders if _enter(Path(where, name), seen))
        for name in sorted(names):
            path = Path(where, name)
            # Hidden: among others the ._name.wav that macOS leaves beside every name.wav.
            if path.suffix.lower() in AUDIO_SUFFIXES and not name.startswith("."):
                yield Entry(id=path.relative_to(folder).as_posix(), file=str(path))
            else:
                left_out.append(path)
    for error in unreadable:
        file = os.fspath(error.filename)
        reason = f"the folder {file} cannot be listed ({error.strerror})"
        yield ClipFailure(id=file, file=file, kind="permission", reason=reason)


def _enter(folder: Path, seen: set[str]) -> bool:
    """Whether to walk a folder: not a hidden one, and none twice, as links may form circles."""
    real = os.path.realpath(folder)
    if folder.name.startswith(".") or real in seen:
        return False
    seen.add(real)
    return True


def _probe(file: str) -> AudioFile | AudioError:
    try:
        return probe_audio(file)
    except AudioError as error:
        return error


def _plan(
    entry: Entry, found: AudioFile | AudioError, channel: int | None, ids: _Ids
) -> PlannedClip | ClipFailure:
    try:
        ids.claim(entry.id)
        if isinstance(found, AudioError):
            raise found
        unit = found.rate if entry.in_samples else 1
        start, end = entry.start / unit, None if entry.end is None else entry.end / unit
        samples = planned_samples(found, start=start, end=end, channel=channel)
    except AudioError as error:
        return failure(ids.name_failure(entry.id, error), entry.file, error)
    return PlannedClip(
        id=entry.id,
        file=entry.file,
        start=start,
        end=end,
        samples=samples,
        audio_sha256=_clip_sha256(found, start, end),
        meta=entry.meta,
    )


def _clip_sha256(audio: AudioFile, start: float, end: float | None) -> str:
    """The file's hash; for a part of it the bounds too, so that moving them is a change."""
    if not start and end is None:
        return audio.sha256
    first, last = segment_bounds(audio.path, audio.frames, audio.rate, start, end)
    return hashlib.sha256(f"{audio.sha256} {first} {last}".encode()).hexdigest()


def _plan_arrays(source: Mapping[str, Array]) -> Plan:
    clips: list[PlannedClip] = []
    rejected: list[ClipFailure] = []
    arrays: dict[str, tuple[np.ndarray, int]] = {}
    ids = _Ids()
    for name, given in source.items():
        array, rate = given if isinstance(given, tuple) else (given, SAMPLE_RATE)
        try:
            ids.claim(name)
            samples = array_samples(name, array, rate)
        except AudioError as error:
            rejected.append(failure(ids.name_failure(name, error), "", error))
            continue
        arrays[name] = (np.asarray(array), int(rate))
        clips.append(PlannedClip(id=name, samples=samples, audio_sha256=hash_array(array, rate)))
    return Plan(clips=tuple(clips), rejected=tuple(rejected), arrays=arrays)


def failure(name: str, file: str, error: AudioError) -> ClipFailure:
    """The record of a clip that cannot become features."""
    return ClipFailure(id=name, file=_printable(file), kind=error.kind, reason=str(error))


class _Ids:
    """Ids taken so far."""

    def __init__(self) -> None:
        self._seen: Counter[Any] = Counter()

    def claim(self, name: str) -> None:
        """Refuse an id that no store could hold, or that another clip has."""
        if not isinstance(name, str) or not name or UNSTORABLE.search(name):
            raise AudioError(
                f"the id {name!r} cannot be stored",
                expected="text without control characters",
                remedy="Rename the file, or give ids in a manifest",
                kind="id",
            )
        self._seen[name] += 1
        if self._seen[name] > 1:
            raise AudioError(
                f"the id {name!r} is there {self._seen[name]} times",
                expected="one clip for each id",
                remedy="Give ids in a manifest, or the folder that holds all inputs",
                kind="duplicate",
            )

    def name_failure(self, name: str, error: AudioError) -> str:
        """A name for the failure that does not shadow the clip that has the id by right."""
        return f"{name} ({self._seen[name]})" if error.kind == "duplicate" else _printable(name)


def _printable(text: str) -> str:
    """Undecodable and control characters as escapes."""
    return UNSTORABLE.sub(lambda found: ascii(found[0])[1:-1], str(text))
