"""The formats libsndfile reads (wav, flac, ogg, mp3, ...), opened by content."""

from __future__ import annotations

import io
import os
import threading
from bisect import bisect_right
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import accumulate
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import soundfile

from .checks import check_rate
from .mpeg import MpegStream, read_at, scan_mpeg
from .recording import BLOCK_VALUES, Recording, after, truncated
from .truncation import missing_data

STRETCH = 64  # more than the ratio of the largest bit rate of an mp3 to the smallest
TAG_BYTES = 128  # of an ID3 tag of version 1, which stands at the end


@contextmanager
def open_with_libsndfile(path: str, raw: BinaryIO) -> Iterator[Recording]:
    """Open a file whose header can be believed."""
    raw.seek(0)
    watched = _WatchedFile(raw)
    with _open(watched) as audio:
        check_rate(path, audio.samplerate)
        with _once_more(path, raw) as other:
            missing = missing_data(other, audio.format, audio.extra_info)
        if missing:
            raise truncated(path, missing)
        if not audio.subtype.startswith("MPEG"):  # mp3 and mp2, also inside a wav
            yield _recording(path, audio, watched)
            return
    stream = scan_mpeg(raw)
    if stream.damage:
        raise truncated(path, stream.damage)
    content = _JoinedRuns(raw, stream.runs, 1 if stream.trimmed else STRETCH)
    with _open(content) as audio:
        yield _mpeg_recording(path, audio, stream, content)


@contextmanager
def _once_more(path: str, raw: BinaryIO) -> Iterator[BinaryIO]:
    """Give what a decoder reads from a second time, with a place of its own."""
    if isinstance(raw, io.BytesIO):
        yield io.BytesIO(raw.getvalue())  # the same bytes, not copied
    else:
        with Path(path).open("rb") as other:
            yield other


# Why a file could not be opened, libsndfile tells in one place for all threads.
_OPENING = threading.Lock()


@contextmanager
def _open(content: _WatchedFile | _JoinedRuns) -> Iterator[soundfile.SoundFile]:
    """Open what libsndfile reads; what the system refused goes before what it makes of that."""
    try:
        with _OPENING:
            audio = soundfile.SoundFile(content)
        with audio:
            content.check()
            yield audio
    except soundfile.LibsndfileError:
        content.check()
        raise


class _Watched:
    """Something to read from that keeps what the system refuses.

    libsndfile takes an error for the end of the file, in a header for one that says less.
    """

    error: OSError | None = None

    def check(self) -> None:
        """Raise what was kept."""
        if self.error:
            raise self.error


class _WatchedFile(_Watched):
    """A whole file; without its name, which may mislead."""

    def __init__(self, raw: BinaryIO) -> None:
        self._raw = raw
        self.tell = raw.tell

    def seek(self, offset: int, whence: int) -> None:
        """Move, unless that leads before the beginning, as damaged headers do."""
        with suppress(OSError, ValueError):
            self._raw.seek(offset, whence)

    def readinto(self, buffer: Any) -> int:
        """Read up to as many bytes as the buffer has; how many."""
        try:
            return self._raw.readinto(buffer)  # type: ignore[attr-defined]
        except OSError as error:
            self.error = error
            return 0


class _JoinedRuns(_Watched):
    """Parts of a file put together, that say they are longer than they are.

    libsndfile reads an mp3 no further than to the length that its decoder guesses from the
    size of the file; told one that is far too large, it reads to the real end.

    Parameters
    ----------
    raw
        The file.
    runs
        Its bytes that are there, half-open.
    stretch
        How many times their length to claim.
    """

    def __init__(self, raw: BinaryIO, runs: tuple[tuple[int, int], ...], stretch: int) -> None:
        self._raw, self._runs = raw, runs
        self._ends = list(accumulate(stop - start for start, stop in runs))
        self._size = self._ends[-1] if runs else 0
        self._claimed = self._size * stretch
        self._place = 0

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move; the end is where it is claimed to be."""
        bases = {os.SEEK_CUR: self._place, os.SEEK_END: self._claimed}
        self._place = max(0, bases.get(whence, 0) + offset)
        return self._place

    def tell(self) -> int:
        """Say where the next byte comes from."""
        return self._place

    def read(self, count: int) -> bytes:
        """Read up to ``count`` bytes, none after the real end."""
        if self._place >= self._size:
            # The decoder looks for a tag where it takes the end to be, and insists on bytes.
            in_tail = self._place >= self._claimed - TAG_BYTES
            return bytes(min(count, max(0, self._claimed - self._place))) if in_tail else b""
        parts = []
        try:
            while count > 0 and self._place < self._size:
                index = bisect_right(self._ends, self._place)
                left = self._ends[index] - self._place
                part = read_at(self._raw, self._runs[index][1] - left, min(count, left))
                if not part:
                    break
                parts.append(part)
                self._place += len(part)
                count -= len(part)
        except OSError as error:
            self.error = error
        return b"".join(parts)


def _recording(path: str, audio: soundfile.SoundFile, content: _WatchedFile) -> Recording:
    def decode(start: int, stop: int) -> Iterator[np.ndarray]:
        begin = start if audio.seekable() else 0
        yield from after(start - begin, _blocks(path, audio, begin, stop, content))

    return Recording(
        path=path,
        rate=audio.samplerate,
        channels=audio.channels,
        frames=audio.frames,
        decode=decode,
    )


def _mpeg_recording(
    path: str, audio: soundfile.SoundFile, stream: MpegStream, content: _JoinedRuns
) -> Recording:
    counted = None if stream.frames is None else stream.frames * stream.samples
    frames = audio.frames if stream.trimmed else counted

    def decode(start: int, stop: int) -> Iterator[np.ndarray]:
        # From the beginning: seeking starts the decoder cold, so its first samples would differ.
        yield from after(start, _blocks(path, audio, 0, stop, content))

    return Recording(
        path=path, rate=audio.samplerate, channels=audio.channels, frames=frames, decode=decode
    )


def _blocks(
    path: str, audio: soundfile.SoundFile, start: int, stop: int, content: _Watched
) -> Iterator[np.ndarray]:
    """Read samples [start, stop), fewer where the file ends before: (n, channels) float32."""
    size = max(1, BLOCK_VALUES // audio.channels)
    try:
        if audio.tell() != start:
            audio.seek(start)
        for place in range(start, stop, size):
            wanted = min(stop - place, size)
            block = audio.read(wanted, dtype="float32", always_2d=True)
            content.check()
            yield block
            if len(block) < wanted:
                break
    except soundfile.LibsndfileError as error:
        content.check()
        raise truncated(path, f"decoding stops ({error.error_string.rstrip('.')})") from error
