"""One audio file to mono float32 at 16 kHz, or an :class:`AudioError` saying why not.

A file of any length is read in the same way: decoded block by block, checked, brought to 16 kHz
and handed on. :func:`read_blocks` gives the blocks, :func:`read_audio` puts them together, and
:func:`open_audio` is for those who want to know the hash of the very bytes that they decode.
"""

from __future__ import annotations

import hashlib
import io
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

import numpy as np
import soundfile

from ..errors import AudioError
from .checks import check_blocks, check_channel, check_length, segment_bounds
from .ffmpeg import ffmpeg_format, open_with_ffmpeg
from .libsndfile import open_with_libsndfile
from .memory import collect, memory_limit
from .recording import TO_THE_END, Recording, truncated
from .remote import local_copy
from .resampling import resample_blocks, resampled_length

IN_MEMORY = 32 << 20  # bytes: three minutes of a CD, and a few files of that size at a time
_HASH_BLOCK = 1 << 20


@dataclass(frozen=True, kw_only=True)
class AudioFile:
    """What a file's header says; ``frames`` is None where only decoding to the end tells."""

    path: str
    rate: int
    channels: int
    frames: int | None


class OpenedAudio:
    """A file whose bytes are known by their hash, to be decoded, or not; see :func:`open_audio`.

    Attributes
    ----------
    sha256
        Of all its bytes.
    """

    def __init__(self, path: str, raw: BinaryIO, sha256: str, status: os.stat_result) -> None:
        self.path = path
        self.sha256 = sha256
        self._raw = raw
        self._stamp = _stamp(status)

    def opened(self) -> AbstractContextManager[Recording]:
        """Open it for decoding."""
        return _open_by_content(self.path, self._raw)

    def counted(self) -> int:
        """Decode all of it to see how many samples each channel has."""
        with self.opened() as recording:
            return _count_frames(recording)

    def read(
        self,
        recording: Recording,
        start: float = 0.0,
        end: float | None = None,
        *,
        channel: int | None = None,
        limit: int | None = None,
    ) -> np.ndarray:
        """Decode what :meth:`opened` gave, as :func:`read_audio` does."""
        wave = _read_whole(recording, start, end, channel, limit)
        if _stamp(Path(self.path).stat()) != self._stamp:
            raise AudioError(
                f"{self.path} was changed while it was read",
                expected="the bytes that were hashed",
                remedy="Run the same command again",
                kind="changed",
            )
        return wave


@contextmanager
def open_audio(
    path: str, sha256: Callable[[BinaryIO, tuple[int, ...]], str] | None = None
) -> Iterator[OpenedAudio]:
    """Open a file, once, and hash it.

    Up to 32 MB are read once, into memory, and decoded from there. A larger file is hashed and
    then read again by its decoder, as is one that ffmpeg decodes: should it change meanwhile,
    decoding it is an AudioError of kind "changed".

    Parameters
    ----------
    path
        As for :func:`read_audio`.
    sha256
        What hashes an opened file, given also what tells a change of it, where several parts of
        one file are read and it shall be hashed once; the file is then not read into memory.
    """
    with local_copy(path) as local, _named_errors(local):
        _check_regular(local)
        with Path(local).open("rb") as raw:
            status = os.fstat(raw.fileno())
            if sha256 is not None:
                yield OpenedAudio(local, raw, sha256(raw, _stamp(status)), status)
            elif status.st_size > IN_MEMORY:
                yield OpenedAudio(local, raw, hash_file(raw), status)
            else:
                content = raw.read()
                digest = hashlib.sha256(content).hexdigest()
                yield OpenedAudio(local, io.BytesIO(content), digest, status)


def probe_audio(path: str, *, counted: bool = True) -> AudioFile:
    """Read a file's header.

    Parameters
    ----------
    path
        As for :func:`read_audio`.
    counted
        Whether to decode what does not say its length, to count it: formats that ffmpeg reads,
        and mp3 in free format.
    """
    with _open_recording(path) as recording:
        found = header_of(recording)
        if found.frames is None and counted:
            found = replace(found, frames=_count_frames(recording))
        return found


def header_of(recording: Recording) -> AudioFile:
    """Give what the header of an opened file says."""
    return AudioFile(
        path=recording.path,
        rate=recording.rate,
        channels=recording.channels,
        frames=recording.frames,
    )


def _count_frames(recording: Recording) -> int:
    return sum(len(block) for block in recording.decode(0, TO_THE_END))


def planned_samples(
    audio: AudioFile | Recording,
    *,
    start: float = 0.0,
    end: float | None = None,
    channel: int | None = None,
) -> int:
    """Count the samples at 16 kHz that a clip will have, by its header; refuse what is unusable.

    0 where the header does not tell.
    """
    check_channel(audio.path, audio.channels, channel)
    if audio.frames is None:
        return 0
    first, stop = segment_bounds(audio.path, audio.frames, audio.rate, start, end)
    samples = resampled_length(stop - first, audio.rate)
    check_length(audio.path, samples)
    return samples


def read_audio(
    path: str,
    *,
    start: float = 0.0,
    end: float | None = None,
    channel: int | None = None,
    limit: int | None = None,
) -> np.ndarray:
    """Decode a file, or ``start`` to ``end`` seconds of it.

    Parameters
    ----------
    path
        Anything libsndfile reads (wav, flac, ogg, mp3, ...) and, where ffmpeg is on the PATH,
        m4a, mp4, aac, wma, amr, webm, mkv and mov; any rate and channels. A URL is fetched by
        fsspec (extra ``[remote]``) into a temporary file first.
    start, end
        Seconds; ``end`` is None for the end of the file.
    channel
        The channel to take; None for the mean of all.
    limit
        Bytes the result may take, or an AudioError of kind "memory" before anything is decoded;
        None for half of the memory that is free now.

    Returns
    -------
    (N,) float32 at 16 kHz, finite, at least one frame long.
    """
    with _open_recording(path) as recording:
        return _read_whole(recording, start, end, channel, limit)


def read_blocks(
    path: str, *, start: float = 0.0, end: float | None = None, channel: int | None = None
) -> Iterator[np.ndarray]:
    """Decode a file piece by piece, in memory that does not grow with its length.

    Put together, the blocks are the same to the last bit as what :func:`read_audio` returns for
    the same arguments. An error may come after some blocks: only at its end is a file known to
    be whole, so use nothing of it before the last block.

    Parameters
    ----------
    path, start, end, channel
        As for :func:`read_audio`.

    Returns
    -------
    Blocks of (n,) float32 at 16 kHz, each some seconds long, of different lengths.
    """
    with _open_recording(path) as recording:
        yield from _read(recording, start, end, channel)


def _read_whole(
    recording: Recording, start: float, end: float | None, channel: int | None, limit: int | None
) -> np.ndarray:
    path, samples = recording.path, None
    if recording.frames is not None:
        first, stop = segment_bounds(path, recording.frames, recording.rate, start, end)
        samples = resampled_length(stop - first, recording.rate)
        check_length(path, samples)
    limit = memory_limit() if limit is None else limit
    return collect(path, _read(recording, start, end, channel), samples, limit)


def _read(
    recording: Recording, start: float, end: float | None, channel: int | None
) -> Iterator[np.ndarray]:
    check_channel(recording.path, recording.channels, channel)
    mono = _decode(recording, start, end, channel)
    checked = check_blocks(recording.path, mono, recording.rate)
    return resample_blocks(checked, recording.rate)


def _decode(
    recording: Recording, start: float, end: float | None, channel: int | None
) -> Iterator[np.ndarray]:
    """Mono blocks at the file's own rate, all of those wanted or an error."""
    path, rate, frames = recording.path, recording.rate, recording.frames
    first, stop = segment_bounds(path, TO_THE_END if frames is None else frames, rate, start, end)
    place = 0 if frames is None else first
    for block in recording.decode(place, stop):
        wanted = block[max(0, first - place) :]
        place += len(block)
        if len(wanted):
            yield _to_mono(wanted, channel)
    if place < stop and frames is None:  # now the end is known, so the part can be judged
        _, stop = segment_bounds(path, place, rate, start, end)
    if place < stop:
        raise truncated(path, f"{place} of the {stop} samples are there")


def _to_mono(block: np.ndarray, channel: int | None) -> np.ndarray:
    if block.shape[1] == 1 or channel is not None:
        return block[:, channel or 0]
    with np.errstate(over="ignore", invalid="ignore"):  # refused by name once it is not finite
        return block.mean(axis=1)


@contextmanager
def _open_recording(path: str) -> Iterator[Recording]:
    """Open a file whose header can be believed."""
    with local_copy(path) as local, _named_errors(local):
        _check_regular(local)
        with Path(local).open("rb") as raw, _open_by_content(local, raw) as recording:
            yield recording


@contextmanager
def _named_errors(path: str) -> Iterator[None]:
    """Turn what a library or the system says into an AudioError that names the file."""
    try:
        yield
    except soundfile.LibsndfileError as error:
        raise AudioError(
            f"{path} cannot be read as audio ({error.error_string.rstrip('.')})",
            expected="wav, flac, ogg, mp3 or another format of libsndfile",
            remedy="Convert it, for example with ffmpeg",
            kind="unreadable",
        ) from error
    except OSError as error:
        kinds = {FileNotFoundError: "missing", PermissionError: "permission"}
        raise AudioError(
            f"{path} cannot be opened ({error.strerror or error})",
            expected="a readable audio file",
            kind=kinds.get(type(error), "unreadable"),
        ) from error


def _open_by_content(path: str, raw: BinaryIO) -> AbstractContextManager[Recording]:
    """Choose the library by the file's first bytes, as names mislead."""
    kind = ffmpeg_format(raw)
    return open_with_ffmpeg(path, raw, kind) if kind else open_with_libsndfile(path, raw)


def _check_regular(path: str) -> None:
    """Refuse folders, and pipes and devices, which would block for ever."""
    try:
        status = Path(path).stat()
    except ValueError as error:  # a NUL or half a character in the name
        raise AudioError(f"{path!r} cannot be the name of a file", kind="missing") from error
    if not stat.S_ISREG(status.st_mode):
        folder = stat.S_ISDIR(status.st_mode)
        raise AudioError(
            f"{path} is {'a folder' if folder else 'no regular file'}",
            expected="an audio file",
            kind="directory" if folder else "unreadable",
        )
    if status.st_size == 0:
        raise AudioError(f"{path} is an empty file", expected="audio", kind="empty")


def hash_file(raw: BinaryIO) -> str:
    """SHA-256 of an opened file, from its beginning."""
    digest = hashlib.sha256()
    raw.seek(0)
    while block := raw.read(_HASH_BLOCK):
        digest.update(block)
    return digest.hexdigest()


def _stamp(status: os.stat_result) -> tuple[int, ...]:
    return status.st_size, status.st_mtime_ns
