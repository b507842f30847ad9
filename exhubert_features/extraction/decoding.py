"""Reading and decoding in threads ahead of the encoder, bounded so that memory stays flat."""

from __future__ import annotations

import hashlib
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from threading import Condition, Lock
from typing import Any, BinaryIO

import numpy as np

from ..audio import (
    OpenedAudio,
    array_samples,
    hash_array,
    hash_file,
    header_of,
    open_audio,
    planned_samples,
    read_array,
    segment_bounds,
)
from ..audio.recording import Recording
from ..errors import AudioError
from ..records import ClipFailure, Entry, Item, PlannedClip
from ..spec import SAMPLE_RATE
from .manifest import storable
from .sources import load_array

AHEAD_CLIPS = 128  # the next batch of a GPU, and enough to outlast a slow disk
AHEAD_SAMPLES = 1200 * SAMPLE_RATE  # 77 MB: an hour-long file must not be joined by 127 others
_FILES_HASHED = 1024  # remembered, of those of which parts are read

Enter = Callable[[int], None]  # waits until there is room for so many samples
# A clip with its samples, or with why there are none; None: it is there already.
Read = tuple[PlannedClip, np.ndarray | ClipFailure | None]


class Reader:
    """Reads entries: each file is opened once, hashed, and decoded if that is still to do.

    Parameters
    ----------
    channel
        The channel to hear, from 0; None for the mean of all.
    has
        Tells by id and hash whether a clip is there already: it is then not decoded.
    admit
        Gives how many bytes the samples of a clip may take; an AudioError where there is no room
        for what becomes of it.
    """

    def __init__(
        self,
        channel: int | None,
        has: Callable[[str, str], bool],
        admit: Callable[[PlannedClip], int],
    ) -> None:
        self._channel, self._has, self._admit = channel, has, admit
        self._hashes = _Hashes()

    def __call__(self, item: Item, enter: Enter) -> Read:
        """Read one, or say why it cannot be."""
        if isinstance(item, ClipFailure):
            return _unread(item), item
        clip = _Clip(item.clip())
        try:
            wave = (self._file if item.load is None else self._array)(item, clip, enter)
            return clip.known, wave
        except AudioError as found:
            error = found
        except OSError as found:
            error = AudioError(f"{item.file} is gone ({found.strerror})", kind="missing")
        except MemoryError:
            error = AudioError(
                f"{item.file or item.id} does not fit into memory",
                remedy="Cut it into parts with start and end columns in a manifest",
                kind="memory",
            )
        failure = clip.known.failure(error.kind, str(error))
        return clip.known, replace(failure, file=storable(failure.file))

    def _file(self, entry: Entry, clip: _Clip, enter: Enter) -> np.ndarray | None:
        """Read a file, or a part of it; None when it is there already."""
        with open_audio(entry.file, None if entry.whole else self._hashes.of(entry.file)) as audio:
            if entry.whole and self._is_there(clip.learn(audio_sha256=audio.sha256)):
                return None
            with audio.opened() as recording:
                known = self._measure(entry, clip, audio, recording)
                if not entry.whole and self._is_there(known):
                    return None
                limit = self._admit(known)
                enter(known.samples)
                wave = audio.read(
                    recording, known.start, known.end, channel=self._channel, limit=limit
                )
        if not known.samples:  # only decoding could tell
            self._admit(clip.learn(samples=len(wave)))
            enter(len(wave))
        return wave

    def _measure(
        self, entry: Entry, clip: _Clip, audio: OpenedAudio, recording: Recording
    ) -> PlannedClip:
        """Learn from the header what a clip is."""
        header = header_of(recording)
        if header.frames is None and not entry.whole:
            header = replace(header, frames=audio.counted())
        place = clip.learn(**place_in(entry, header.rate))
        samples = planned_samples(header, start=place.start, end=place.end, channel=self._channel)
        if not entry.whole and header.frames is not None:
            # Of the bounds too, so that moving them is a change.
            bounds = segment_bounds(entry.file, header.frames, header.rate, place.start, place.end)
            text = " ".join(map(str, (audio.sha256, *bounds)))
            clip.learn(audio_sha256=hashlib.sha256(text.encode()).hexdigest())
        return clip.learn(samples=samples)

    def _array(self, entry: Entry, clip: _Clip, enter: Enter) -> np.ndarray | None:
        """Load a clip that is no file; None when it is there already."""
        wave, rate = load_array(entry, self._channel)
        samples = array_samples(entry.id, wave, rate)
        known = clip.learn(samples=samples, audio_sha256=hash_array(wave, rate))
        if self._is_there(known):
            return None
        self._admit(known)
        enter(samples)
        return read_array(entry.id, wave, rate)

    def _is_there(self, clip: PlannedClip) -> bool:
        return self._has(clip.id, clip.audio_sha256)


class _Clip:
    """What is known of a clip so far, also when reading it fails half way."""

    def __init__(self, known: PlannedClip) -> None:
        self.known = known

    def learn(self, **values: Any) -> PlannedClip:
        """Add to what is known."""
        self.known = replace(self.known, **values)
        return self.known


class _Hashes:
    """SHA-256 of files of which several parts are read, each hashed once; any thread may ask."""

    def __init__(self) -> None:
        self._locks: OrderedDict[tuple[object, ...], Lock] = OrderedDict()
        self._found: dict[tuple[object, ...], str] = {}
        self._lock = Lock()

    def of(self, path: str) -> Callable[[BinaryIO, tuple[int, ...]], str]:
        """Give what hashes this file, if it was not hashed as it is now."""
        return partial(self._hash, path)

    def _hash(self, path: str, raw: BinaryIO, stamp: tuple[int, ...]) -> str:
        key = (path, *stamp)
        with self._lock:
            lock = self._locks.setdefault(key, Lock())
            self._locks.move_to_end(key)
            if len(self._locks) > _FILES_HASHED:
                oldest, _ = self._locks.popitem(last=False)
                self._found.pop(oldest, None)
        with lock:
            found = self._found.get(key) or hash_file(raw)
            self._found[key] = found
        return found


def _unread(failure: ClipFailure) -> PlannedClip:
    """Give the clip that a failure tells of."""
    return PlannedClip(id=failure.id, file=failure.file, start=failure.start, end=failure.end)


def place_in(entry: Entry, rate: int) -> dict[str, float | None]:
    """Start and end of an entry in seconds, of a file of this rate."""
    if not entry.in_samples:
        return {"start": entry.start, "end": entry.end}
    return {"start": entry.start / rate, "end": None if entry.end is None else entry.end / rate}


def decode_ahead(
    items: Iterable[Item], read: Callable[[Item, Enter], Read], workers: int
) -> Iterator[Read]:
    """Clips with their samples, in order, read by threads while the encoder works.

    Threads and not processes: libsndfile and the resampler release the interpreter's lock, no
    samples have to cross to another process, and at 4 ms of CPU for a clip of 3 s (stereo flac
    at 44.1 kHz) two processes were no faster than two threads.
    """
    executor = ThreadPoolExecutor(workers, thread_name_prefix="decode")
    ahead: deque[Future[Read]] = deque()
    room = _Room()
    try:
        for number, item in enumerate(items):
            if len(ahead) >= AHEAD_CLIPS:
                yield room.leave(ahead.popleft())
            ahead.append(executor.submit(read, item, partial(room.enter, number)))
        while ahead:
            yield room.leave(ahead.popleft())
    finally:
        room.close()
        executor.shutdown(wait=False, cancel_futures=True)


class _Room:
    """How many samples may wait for the encoder; how many a clip has shows when it is opened.

    Whose turn it is never waits, and readers begin in order: so nobody waits for ever.
    """

    def __init__(self) -> None:
        self._changed = Condition()
        self._taken: dict[int, int] = {}  # samples by number of the item
        self._turn = 0
        self._closed = False

    def enter(self, number: int, samples: int) -> None:
        """Wait until there is room, or it is this item's turn."""
        with self._changed:
            self._changed.wait_for(
                lambda: (
                    self._closed
                    or number == self._turn
                    or sum(self._taken.values()) + samples <= AHEAD_SAMPLES
                )
            )
            if self._closed:
                raise CancelledError
            self._taken[number] = samples

    def leave(self, head: Future[Read]) -> Read:
        """Wait for the item whose turn it is, and make room."""
        found = head.result()
        with self._changed:
            self._taken.pop(self._turn, None)
            self._turn += 1
            self._changed.notify_all()
        return found

    def close(self) -> None:
        """Let nobody in any more."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
