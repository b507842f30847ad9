"""One audio file to mono float32 at 16 kHz, or an :class:`AudioError` saying why not.

A file of any length is read in the same way: decoded block by block, checked, brought to 16 kHz
and handed on. :func:`read_blocks` gives the blocks, :func:`read_audio` puts them together.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
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
from .resampling import resample_blocks, resampled_length

HASH_BLOCK = 1 << 20


@dataclass(frozen=True, kw_only=True)
class AudioFile:
    """What a file's header and bytes say; ``stamp`` (size, mtime) tells a later change."""

    path: str
    rate: int
    channels: int
    frames: int
    sha256: str
    stamp: tuple[int, int]


def probe_audio(path: str) -> AudioFile:
    """Check a file's header and hash its bytes.

    Only formats that do not say their length are decoded: those ffmpeg reads, and mp3 in free
    format.
    """
    with _open_recording(path) as recording, Path(path).open("rb") as raw:
        frames = recording.frames
        if frames is None:
            frames = sum(len(block) for block in recording.decode(0, TO_THE_END))
        status = os.fstat(raw.fileno())
        return AudioFile(
            path=path,
            rate=recording.rate,
            channels=recording.channels,
            frames=frames,
            sha256=_sha256(raw),
            stamp=(status.st_size, status.st_mtime_ns),
        )


def planned_samples(
    audio: AudioFile, *, start: float = 0.0, end: float | None = None, channel: int | None = None
) -> int:
    """Count the samples at 16 kHz that a clip will have, by its header; refuse what is unusable."""
    check_channel(audio.path, audio.channels, channel)
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
        m4a, mp4, aac, wma, amr, webm, mkv and mov; any rate and channels.
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
    limit = memory_limit() if limit is None else limit
    with _open_recording(path) as recording:
        samples = None
        if recording.frames is not None:
            first, stop = segment_bounds(path, recording.frames, recording.rate, start, end)
            samples = resampled_length(stop - first, recording.rate)
            check_length(path, samples)
        return collect(path, _read(recording, start, end, channel), samples, limit)


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
    try:
        _check_regular(path)
        with Path(path).open("rb") as raw, _open_by_content(path, raw) as recording:
            yield recording
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


def _sha256(raw: BinaryIO) -> str:
    digest = hashlib.sha256()
    while block := raw.read(HASH_BLOCK):
        digest.update(block)
    return digest.hexdigest()
