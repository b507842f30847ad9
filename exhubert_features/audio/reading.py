"""One audio file or array to mono float32 at 16 kHz, or an :class:`AudioError` saying why not."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import soundfile

from ..errors import AudioError
from ..spec import MINIMUM_SAMPLES, SAMPLE_RATE
from .resampling import resample, resampled_length
from .truncation import missing_data

RATES = range(1_000, 768_001)  # outside, a header is broken: telephone tape to studio converters
BLOCK_VALUES = 1 << 20  # decoded at a time; a header that lies about its length allocates nothing
HASH_BLOCK = 1 << 20
SILENCE = 1e-4  # peak around the mean, -80 dB: under the last bits of a 16-bit recording
LOUDEST = 1e12  # squares of more overflow the float32 variance of a clip
SEGMENT_SLACK = 0.01  # seconds; annotations are rounded
MP3_SLACK = 1152  # samples; encoders count their padding of one MPEG frame differently


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
    """Check a file's header and hash its bytes, without decoding it."""
    with _open_audio(path) as audio, Path(path).open("rb") as raw:
        status = os.fstat(raw.fileno())
        return AudioFile(
            path=path,
            rate=audio.samplerate,
            channels=audio.channels,
            frames=audio.frames,
            sha256=_sha256(raw),
            stamp=(status.st_size, status.st_mtime_ns),
        )


def read_audio(
    path: str, *, start: float = 0.0, end: float | None = None, channel: int | None = None
) -> np.ndarray:
    """Decode a file, or ``start`` to ``end`` seconds of it.

    Parameters
    ----------
    path
        Anything libsndfile reads: wav, flac, ogg, mp3, ...; any rate and channels.
    start, end
        Seconds; ``end`` is None for the end of the file.
    channel
        The channel to take; None for the mean of all.

    Returns
    -------
    (N,) float32 at 16 kHz, finite, at least one frame long.
    """
    with _open_audio(path) as audio:
        _check_channel(path, audio.channels, channel)
        first, last = segment_bounds(path, audio.frames, audio.samplerate, start, end)
        wave = _decode(path, audio, first, last, channel)
        return _finish(path, wave, audio.samplerate)


def read_array(name: str, array: np.ndarray, rate: int = SAMPLE_RATE) -> np.ndarray:
    """The same for (N,) floating-point samples in memory."""
    array_samples(name, array, rate)
    with np.errstate(over="ignore"):  # becomes infinite, which is refused by name below
        return _finish(name, np.array(array, dtype=np.float32), rate)


def array_samples(name: str, array: np.ndarray, rate: int = SAMPLE_RATE) -> int:
    """Samples at 16 kHz that an array will have; an AudioError if its kind is unusable."""
    wave = np.asarray(array)
    if wave.ndim != 1:
        raise AudioError(
            f"{name} has shape {wave.shape}",
            expected="one channel, shape (samples,)",
            remedy="Average or choose a channel",
            kind="channel",
        )
    if not np.issubdtype(wave.dtype, np.floating):
        raise AudioError(
            f"{name} holds {wave.dtype}",
            expected="floating point in -1 .. 1",
            remedy="Divide 16-bit integers by 32768",
            kind="dtype",
        )
    _check_rate(name, rate)
    samples = resampled_length(len(wave), rate)
    check_length(name, samples)
    return samples


def hash_array(array: np.ndarray, rate: int = SAMPLE_RATE) -> str:
    """SHA-256 of the samples as float32, and of their rate where it is not 16 kHz."""
    with np.errstate(over="ignore"):
        digest = hashlib.sha256(np.asarray(array, dtype="<f4").tobytes())
    if rate != SAMPLE_RATE:
        digest.update(f" at {rate} Hz".encode())
    return digest.hexdigest()


def planned_samples(
    audio: AudioFile, *, start: float = 0.0, end: float | None = None, channel: int | None = None
) -> int:
    """Samples at 16 kHz that a clip will have, going by the header; an AudioError if unusable."""
    _check_channel(audio.path, audio.channels, channel)
    first, last = segment_bounds(audio.path, audio.frames, audio.rate, start, end)
    samples = resampled_length(last - first, audio.rate)
    check_length(audio.path, samples)
    return samples


def segment_bounds(
    path: str, frames: int, rate: int, start: float, end: float | None
) -> tuple[int, int]:
    """Seconds to [first, last) at the file's own rate."""
    if frames == 0:
        raise AudioError(f"{path} holds no samples", expected="audio", kind="empty")
    first = round(start * rate)
    last = frames if end is None else round(end * rate)
    if not 0 <= first < min(last, frames) or last > frames + SEGMENT_SLACK * rate:
        raise AudioError(
            f"{path} has no part from {start:g} to {'its end' if end is None else f'{end:g}'} s",
            expected=f"0 <= start < end <= {frames / rate:.3f} s",
            kind="segment",
        )
    return first, min(last, frames)


def check_length(name: str, samples: int) -> None:
    """Refuse fewer 16 kHz samples than the first frame needs."""
    if samples < MINIMUM_SAMPLES:
        raise AudioError(
            f"{name} has {samples} samples at {SAMPLE_RATE} Hz",
            expected=f"at least {MINIMUM_SAMPLES} (one frame, 25 ms)",
            remedy="Leave the clip out or join it with its neighbour",
            kind="empty" if samples == 0 else "too_short",
        )


def audio_warnings(wave: np.ndarray) -> tuple[str, ...]:
    """What is odd about usable audio: ("silent",) or nothing."""
    return ("silent",) if float(np.ptp(wave)) < 2 * SILENCE else ()


@contextmanager
def _open_audio(path: str) -> Iterator[soundfile.SoundFile]:
    """Open a file whose header can be believed."""
    try:
        _check_regular(path)
        with Path(path).open("rb") as raw, _by_content(raw) as audio:
            _check_rate(path, audio.samplerate)
            missing = missing_data(Path(path), audio.format, audio.extra_info)
            if missing:
                raise _truncated(path, missing)
            yield audio
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


def _by_content(raw: BinaryIO) -> soundfile.SoundFile:
    """Open by descriptor: libsndfile then cannot go by a misleading file name."""
    return soundfile.SoundFile(raw.fileno(), closefd=False)


def _check_regular(path: str) -> None:
    """Refuse folders, and pipes and devices, which would block for ever."""
    status = Path(path).stat()
    if not stat.S_ISREG(status.st_mode):
        folder = stat.S_ISDIR(status.st_mode)
        raise AudioError(
            f"{path} is {'a folder' if folder else 'no regular file'}",
            expected="an audio file",
            kind="directory" if folder else "unreadable",
        )
    if status.st_size == 0:
        raise AudioError(f"{path} is an empty file", expected="audio", kind="empty")


def _check_rate(name: str, rate: float) -> None:
    if rate not in RATES:
        raise AudioError(
            f"{name} says it has {rate} samples a second",
            expected=f"a whole number between {RATES[0]} and {RATES[-1]}",
            kind="rate",
        )


def _check_channel(path: str, channels: int, channel: int | None) -> None:
    if channel is not None and not 0 <= channel < channels:
        raise AudioError(
            f"{path} has no channel {channel}",
            expected=f"0 to {channels - 1}, as it has {channels}",
            kind="channel",
        )


def _decode(
    path: str, audio: soundfile.SoundFile, first: int, last: int, channel: int | None
) -> np.ndarray:
    """Mono samples [first, last) at the file's own rate."""
    # Seeking into an mp3 starts the decoder cold, so its first samples would differ.
    begin = first if audio.seekable() and audio.format != "MP3" else 0
    blocks: list[np.ndarray] = []
    position = begin
    try:
        if begin:
            audio.seek(begin)
        while position < last:
            wanted = min(last - position, max(1, BLOCK_VALUES // audio.channels))
            block = audio.read(wanted, dtype="float32", always_2d=True)
            blocks.append(_to_mono(block, channel))
            position += len(block)
            if len(block) < wanted:
                break
    except soundfile.LibsndfileError as error:
        raise _truncated(path, f"decoding stops ({error.error_string.rstrip('.')})") from error
    slack = MP3_SLACK if audio.format == "MP3" else 0
    if position + slack < last:
        raise _truncated(path, f"{position} of the {last} samples are there")
    return np.concatenate(blocks)[first - begin :]


def _to_mono(block: np.ndarray, channel: int | None) -> np.ndarray:
    if block.shape[1] == 1 or channel is not None:
        return block[:, channel or 0]
    with np.errstate(over="ignore", invalid="ignore"):  # refused by name once it is not finite
        return block.mean(axis=1)


def _finish(name: str, wave: np.ndarray, rate: int) -> np.ndarray:
    """Validate mono samples and bring them to 16 kHz."""
    if not np.isfinite(wave).all():
        where = int(np.flatnonzero(~np.isfinite(wave))[0])
        raise AudioError(
            f"{name} has {wave[where]} at sample {where}",
            expected="finite samples",
            remedy="Repair or leave out the clip",
            kind="nan",
        )
    check_length(name, resampled_length(len(wave), rate))
    loudest = max(float(wave.max()), -float(wave.min()))
    if loudest > LOUDEST:
        raise AudioError(
            f"{name} has a sample of {loudest:.3g}",
            expected="samples around -1 .. 1",
            kind="range",
        )
    return resample(np.ascontiguousarray(wave), rate)


def _truncated(path: str, detail: str) -> AudioError:
    return AudioError(
        f"{path} is cut off or damaged: {detail}",
        expected="as much audio as its header promises",
        remedy="Copy or download it again",
        kind="truncated",
    )


def _sha256(raw: BinaryIO) -> str:
    digest = hashlib.sha256()
    while block := raw.read(HASH_BLOCK):
        digest.update(block)
    return digest.hexdigest()
