"""What a run will come to, judged before it begins: by headers, of some thousand clips at most."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import count, islice

from ..audio import array_samples, is_url, planned_samples, probe_audio
from ..errors import AudioError
from ..records import ClipFailure, Entry, Item, PlannedClip
from ..register import NameSet
from ..spec import SAMPLE_RATE
from .decoding import place_in
from .manifest import storable
from .planning import CHECKED, Plan
from .sources import InMemory, load_array

_DECODED = 16  # clips whose length only decoding or loading tells; the rest are taken for such


@dataclass(frozen=True, kw_only=True)
class Outlook:
    """What is to do, as far as names and headers tell.

    ``exact`` tells whether all of the source was looked at, else the figures are about right: the
    number of clips is counted roughly, and their length is that of the first. ``clips`` is None
    where the source does not say how many there are. ``present`` are clips whose ids a store
    holds, ``failures`` those of what was looked at that cannot be read.
    """

    clips: int | None
    seconds: float
    rows: int
    frames: int
    present: int
    failures: tuple[ClipFailure, ...]
    exact: bool


def look_ahead(
    plan: Plan,
    sizes: Callable[[PlannedClip], tuple[int, int]],
    *,
    channel: int | None,
    stored: NameSet,
    workers: int,
) -> Outlook:
    """Judge what a run will come to.

    Parameters
    ----------
    plan
        What to do.
    sizes
        Gives rows and frames of a clip.
    channel
        The channel to hear; None for the mean of all.
    stored
        Ids of clips that a store holds.
    workers
        Threads that read headers.
    """
    if plan.once:
        return Outlook(clips=None, seconds=0, rows=0, frames=0, present=0, failures=(), exact=False)
    named = list(islice(plan, CHECKED + 1))
    exact = len(named) <= CHECKED
    present = sum(entry.id in stored for entry in named if isinstance(entry, Entry))
    wanted = [item for item in named if not (exact and item.id in stored)]
    measure = _Measure(channel)
    with ThreadPoolExecutor(workers) as pool:
        found = list(pool.map(measure, wanted))
    failures = tuple(one for one in found if isinstance(one, ClipFailure))
    clips = [one for one in found if isinstance(one, PlannedClip) and one.samples]
    total = len(found) - len(failures)
    if not exact:
        present = len(stored)
        total = max(0, (plan.about() or 0) - present)
    scale = total / len(clips) if clips else 0.0
    known = [sizes(clip) for clip in clips]
    return Outlook(
        clips=total,
        seconds=scale * sum(clip.samples for clip in clips) / SAMPLE_RATE,
        rows=round(scale * sum(rows for rows, _ in known)),
        frames=round(scale * sum(frames for _, frames in known)),
        present=present,
        failures=failures,
        exact=exact and total == len(clips),
    )


def measured(plan: Plan, channel: int | None = None) -> Iterator[PlannedClip | ClipFailure]:
    """Give each clip of a plan with its length, by its header, or why it cannot be read.

    Parameters
    ----------
    plan
        What :func:`plan` made.
    channel
        The channel that will be heard; None for the mean of all.
    """
    return map(_Measure(channel, decoded=None), plan)


class _Measure:
    """Reads headers; a length that only decoding tells is 0 after the first few."""

    def __init__(self, channel: int | None, decoded: int | None = _DECODED) -> None:
        self._channel, self._decoded = channel, decoded
        self._turns = count(1)

    def __call__(self, item: Item) -> PlannedClip | ClipFailure:
        if isinstance(item, ClipFailure):
            return item
        clip = item.clip()
        try:
            if item.load is None:
                return self._file(item, clip)
            return self._array(item, clip)
        except AudioError as error:
            failure = clip.failure(error.kind, str(error))
            return replace(failure, file=storable(failure.file))

    def _file(self, entry: Entry, clip: PlannedClip) -> PlannedClip:
        if is_url(entry.file) and not self._may_decode():  # all of it would have to be fetched
            return clip
        header = probe_audio(entry.file, counted=False)
        if header.frames is None and self._may_decode():
            header = probe_audio(entry.file)
        place = place_in(entry, header.rate)
        clip = replace(clip, **place)  # type: ignore[arg-type]
        samples = planned_samples(header, start=clip.start, end=clip.end, channel=self._channel)
        return replace(clip, samples=samples)

    def _array(self, entry: Entry, clip: PlannedClip) -> PlannedClip:
        if not isinstance(entry.load, InMemory) and not self._may_decode():
            return clip
        wave, rate = load_array(entry, self._channel)
        return replace(clip, samples=array_samples(entry.id, wave, rate))

    def _may_decode(self) -> bool:
        return self._decoded is None or next(self._turns) <= self._decoded
