"""A source to a plan: every clip with its length and its hash, every hopeless one with why."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property
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
from .manifest import UNSTORABLE, Entry, storable
from .parts import Part
from .sources import LazyClip, Source, read_source, with_rate

MOST_CHANNELS = 64  # an array with more is something else, a matrix of features for example


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What to do, in the order of the source: clips, and failures with the reason.

    ``stamps`` is each file's (size, mtime) when it was hashed, ``arrays`` holds the clips in
    memory, ``lazy`` those to load, ``left_out`` counts files in folders whose names are not those
    of audio.
    """

    planned: tuple[PlannedClip | ClipFailure, ...]
    stamps: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    arrays: Mapping[str, tuple[np.ndarray, int]] = field(default_factory=dict)
    lazy: Mapping[str, LazyClip] = field(default_factory=dict)
    left_out: int = 0

    @cached_property
    def clips(self) -> tuple[PlannedClip, ...]:
        """The clips to do; their ids are unique."""
        return tuple(clip for clip in self.planned if isinstance(clip, PlannedClip))

    @cached_property
    def rejected(self) -> tuple[ClipFailure, ...]:
        """Clips that cannot be done, and why."""
        return tuple(clip for clip in self.planned if isinstance(clip, ClipFailure))

    def part(self, number: int, count: int) -> Plan:
        """Keep part ``number`` of ``count`` (from 1): the clips whose ids fall into it."""
        part = Part(number, count)
        planned = tuple(clip for clip in self.planned if part.holds(clip.id))
        return replace(self, planned=planned)


def plan_clips(
    source: Source,
    *,
    channel: int | None = None,
    data_root: str | Path | None = None,
    workers: int | None = None,
    part: Part | None = None,
) -> Plan:
    """Find every clip of a source, read its header and hash its bytes.

    Parameters
    ----------
    source
        See :func:`exhubert_features.extraction.sources.read_source`.
    channel
        The channel that will be read, to refuse files without it.
    data_root
        Takes the place of ``{data_root}`` in manifests, and holds relative files that are not
        beside them.
    workers
        Threads that hash; None suits the machine.
    part
        Only the clips of this part; others are not opened.
    """
    if channel is not None and channel < 0:
        raise UsageError(f"channel is {channel}", expected="0 for the first, 1, ...")
    named = read_source(source, data_root)
    if named.arrays:
        arrays = named.arrays
        if part is not None:
            arrays = {name: array for name, array in arrays.items() if part.holds(name)}
        return _plan_arrays(arrays, channel)
    if named.lazy:
        lazy = [clip for clip in named.lazy if part is None or part.holds(clip.id)]
        return _plan_lazy(lazy, channel, worker_count(workers))
    entries = [entry for entry in named.entries if part is None or part.holds(entry.id)]
    plan = plan_entries(entries, channel=channel, workers=workers)
    return replace(plan, left_out=named.left_out)


def plan_entries(
    entries: Sequence[Entry | ClipFailure],
    *,
    channel: int | None = None,
    workers: int | None = None,
) -> Plan:
    """Read the header and hash the bytes of every file that entries name.

    Parameters
    ----------
    entries
        What a source names, as :func:`exhubert_features.extraction.sources.read_source` tells.
    channel, workers
        See :func:`plan_clips`.
    """
    files = sorted({entry.file for entry in entries if isinstance(entry, Entry)})
    with ThreadPoolExecutor(max_workers=worker_count(workers)) as pool:
        probed = dict(zip(files, pool.map(_probe, files), strict=True))
    ids = _Ids()
    return Plan(
        planned=tuple(
            entry
            if isinstance(entry, ClipFailure)
            else _plan_entry(entry, probed[entry.file], channel, ids)
            for entry in entries
        ),
        stamps={
            file: found.stamp for file, found in probed.items() if isinstance(found, AudioFile)
        },
    )


def plan_ids(entries: Iterable[Entry | ClipFailure]) -> Iterator[Entry | ClipFailure]:
    """Give entries, those whose id cannot be stored or is taken as failures; opens no file.

    Parameters
    ----------
    entries
        See :func:`plan_entries`.
    """
    ids = _Ids()
    for entry in entries:
        if isinstance(entry, ClipFailure):
            yield entry
            continue
        try:
            ids.claim(entry.id)
        except AudioError as error:
            start, end = (0.0, None) if entry.in_samples else (entry.start, entry.end)
            yield ids.failure(entry.id, error, file=entry.file, start=start, end=end)
        else:
            yield entry


def worker_count(workers: int | None) -> int:
    """Choose how many threads: those asked for, or one for each processor up to eight."""
    if workers is None:
        return min(8, os.cpu_count() or 1)
    if workers < 1:
        raise UsageError(f"workers is {workers}", expected="at least 1")
    return workers


def _probe(file: str) -> AudioFile | AudioError:
    try:
        return probe_audio(file)
    except AudioError as error:
        return error


def _plan_entry(
    entry: Entry, found: AudioFile | AudioError, channel: int | None, ids: _Ids
) -> PlannedClip | ClipFailure:
    start, end = 0.0, None  # in samples of a file that cannot be read, they are not known
    try:
        if not entry.in_samples:
            start, end = entry.start, entry.end
        ids.claim(entry.id)
        if isinstance(found, AudioError):
            raise found
        if entry.in_samples:
            start = entry.start / found.rate
            end = None if entry.end is None else entry.end / found.rate
        samples = planned_samples(found, start=start, end=end, channel=channel)
    except AudioError as error:
        return ids.failure(entry.id, error, file=entry.file, start=start, end=end)
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
    """Hash the file; for a part of it the bounds too, so that moving them is a change."""
    if not start and end is None:
        return audio.sha256
    first, stop = segment_bounds(audio.path, audio.frames, audio.rate, start, end)
    return hashlib.sha256(f"{audio.sha256} {first} {stop}".encode()).hexdigest()


def _plan_arrays(arrays: Mapping[str, tuple[np.ndarray, int]], channel: int | None) -> Plan:
    planned: list[PlannedClip | ClipFailure] = []
    kept: dict[str, tuple[np.ndarray, int]] = {}
    ids = _Ids()
    for name, (array, rate) in arrays.items():
        try:
            ids.claim(name)
            wave = _one_channel(name, array, channel)
            samples = array_samples(name, wave, rate)
        except AudioError as error:
            planned.append(ids.failure(name, error))
            continue
        kept[name] = (wave, rate)
        planned.append(PlannedClip(id=name, samples=samples, audio_sha256=hash_array(wave, rate)))
    return Plan(planned=tuple(planned), arrays=kept)


def _plan_lazy(clips: Sequence[LazyClip], channel: int | None, threads: int) -> Plan:
    ids = _Ids()

    def measure(clip: LazyClip) -> tuple[int, str] | AudioError:
        try:
            wave, rate = load_lazy(clip, channel)
            return array_samples(clip.id, wave, rate), hash_array(wave, rate)
        except AudioError as error:
            return error

    def plan(clip: LazyClip, found: tuple[int, str] | AudioError) -> PlannedClip | ClipFailure:
        try:
            ids.claim(clip.id)
            if isinstance(found, AudioError):
                raise found
        except AudioError as error:
            return ids.failure(clip.id, error)
        known = {name: str(value) for name, value in clip.labels.items() if value is not None}
        return PlannedClip(id=clip.id, samples=found[0], audio_sha256=found[1], meta=known)

    with ThreadPoolExecutor(max_workers=threads) as pool:
        planned = tuple(map(plan, clips, pool.map(measure, clips)))
    first = {clip.id: clip for clip in reversed(clips)}  # of several of one id the first is done
    return Plan(planned=planned, lazy=first)


def load_lazy(clip: LazyClip, channel: int | None) -> tuple[np.ndarray, int]:
    """Load a clip: its samples (N,) and their rate; an AudioError says what went wrong.

    Parameters
    ----------
    clip
        What to load.
    channel
        The channel to hear, from 0; None for the mean of all.
    """
    try:
        wave, rate = with_rate(clip.id, clip.load())
    except UsageError as error:
        raise AudioError(str(error), kind="dtype") from error
    except (OSError, RuntimeError, ValueError, LookupError) as error:
        raise AudioError(
            f"{clip.id} could not be loaded ({type(error).__name__}: {error})", kind="unreadable"
        ) from error
    return _one_channel(clip.id, wave, channel), rate


def _one_channel(name: str, array: np.ndarray, channel: int | None) -> np.ndarray:
    """(N,) out of (N,), (N, C) or (C, N): the channel asked for, or the mean of all."""
    if array.ndim != 2 or min(array.shape) > MOST_CHANNELS:
        channels = [array]  # of any other shape it is refused when its samples are counted
    else:
        channels = list(array if array.shape[0] < array.shape[1] else array.T)
    if channel is not None and channel >= len(channels):
        raise AudioError(
            f"{name} has no channel {channel}",
            expected=f"0 to {len(channels) - 1}, as it has {len(channels)}",
            kind="channel",
        )
    if len(channels) == 1 or channel is not None:
        return channels[channel or 0]
    if not np.issubdtype(array.dtype, np.floating):
        return channels[0]  # refused when its samples are counted; the mean would not be
    with np.errstate(over="ignore", invalid="ignore"):  # refused by name when it is read
        return np.mean(channels, axis=0)


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

    def failure(
        self,
        name: str,
        error: AudioError,
        *,
        file: str = "",
        start: float = 0.0,
        end: float | None = None,
    ) -> ClipFailure:
        """Record a clip that cannot even be planned, under a name that shadows no other clip's."""
        twice = error.kind == "duplicate"
        return ClipFailure(
            id=f"{name} ({self._seen[name]})" if twice else storable(name),
            file=storable(file),
            start=start,
            end=end,
            kind=error.kind,
            reason=str(error),
        )
