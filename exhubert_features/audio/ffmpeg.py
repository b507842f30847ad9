"""The formats of phones and browsers (m4a, mp4, webm, wma, amr, ...), decoded by ffmpeg.

libsndfile does not read them. ffmpeg writes its samples as Sun AU to a pipe: 24 bytes with rate
and channels, then 32-bit floats. What it reads is fixed by the file's first bytes and not left to
its guess, as some formats it knows (playlists) open other files.
"""

from __future__ import annotations

import re
import shutil
import struct
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Thread
from typing import IO, BinaryIO

import numpy as np

from ..errors import AudioError
from .checks import check_rate
from .mpeg import after_id3, read_at
from .recording import BLOCK_VALUES, Recording, after, truncated
from .truncation import missing_in_asf, missing_in_boxes

NAMES = {
    "mov": "MPEG-4 or QuickTime (m4a, mp4, mov, 3gp)",
    "matroska": "Matroska (webm, mkv)",
    "asf": "Windows Media (wma)",
    "amr": "AMR",
    "aac": "AAC",
}
BOXES = {b"ftyp", b"moov", b"mdat", b"wide"}  # that MPEG-4 and QuickTime files begin with
ASF = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")
EBML = b"\x1a\x45\xdf\xa3"
CPU_SECONDS = "1200"  # a file of 60 hours takes half as long; one that is made to hang ends here
ALLOCATION = str(1 << 30)  # bytes at once
AU = struct.Struct(">4s5I")  # magic, place of the samples, their bytes, encoding, rate, channels
AU_FLOAT = 6
MESSAGE = 4096  # bytes of complaints kept
ADDRESS = re.compile(r"\[[^\]]* @ 0x[0-9a-f]+\] ")


def ffmpeg_format(raw: BinaryIO) -> str:
    """Tell ffmpeg's word for the format of a file, by its bytes; empty if it is none of ours."""
    head = read_at(raw, 0, 16)
    if head[4:8] in BOXES:
        return "mov"
    if head.startswith(EBML):
        return "matroska"
    if head == ASF:
        return "asf"
    if head.startswith(b"#!AMR"):
        return "amr"
    return "aac" if _is_adts(raw, after_id3(raw)) else ""


@contextmanager
def open_with_ffmpeg(path: str, raw: BinaryIO, kind: str) -> Iterator[Recording]:
    """Start ffmpeg on a file; it is stopped when the recording is closed.

    Parameters
    ----------
    path
        The file.
    raw
        The same, opened.
    kind
        ffmpeg's name of its format.
    """
    program = shutil.which("ffmpeg")
    if program is None:
        raise AudioError(
            f"{path} is {NAMES[kind]}, for which there is no ffmpeg on the PATH",
            expected="wav, flac, ogg, mp3 or another format of libsndfile",
            remedy="Install ffmpeg, or convert the file to flac",
            kind="needs_ffmpeg",
        )
    promises = {"mov": missing_in_boxes, "asf": missing_in_asf}
    missing = promises[kind](raw) if kind in promises else ""
    if missing:
        raise truncated(path, missing)
    process = subprocess.Popen(
        _arguments(program, path, kind), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None and process.stderr is not None
    complaints = _Complaints(process.stderr)
    try:
        yield _recording(path, process, process.stdout, complaints)
    finally:
        process.kill()
        process.wait()
        complaints.thread.join()
        process.stdout.close()
        process.stderr.close()


def _arguments(program: str, path: str, kind: str) -> list[str]:
    return [
        *(program, "-nostdin", "-hide_banner", "-loglevel", "error", "-xerror"),
        *("-timelimit", CPU_SECONDS, "-max_alloc", ALLOCATION),
        *("-threads", "1", "-protocol_whitelist", "file", "-f", kind, "-i", f"file:{path}"),
        *("-map", "0:a:0", "-codec:a", "pcm_f32be", "-f", "au", "pipe:1"),
    ]


class _Complaints:
    """What ffmpeg writes to its error output, read as it comes so that it never waits."""

    def __init__(self, pipe: IO[bytes]) -> None:
        self._text = b""
        self.thread = Thread(target=self._read, args=(pipe,), daemon=True)
        self.thread.start()

    def _read(self, pipe: IO[bytes]) -> None:
        while block := pipe.read1(MESSAGE):  # type: ignore[attr-defined]
            self._text += block[: MESSAGE - len(self._text)]

    def first(self) -> str:
        """Return the first line, once ffmpeg has ended; empty if it had nothing to complain of."""
        self.thread.join()
        lines = ADDRESS.sub("", self._text.decode("utf-8", "replace")).strip().splitlines()
        return lines[0].rstrip(".") if lines else ""


def _recording(
    path: str, process: subprocess.Popen[bytes], pipe: IO[bytes], complaints: _Complaints
) -> Recording:
    header = pipe.read(AU.size)
    if len(header) < AU.size:
        raise AudioError(
            f"{path} cannot be read as audio ({complaints.first() or 'ffmpeg gives nothing'})",
            expected="a file with a stream of audio that ffmpeg decodes",
            kind="unreadable",
        )
    magic, place, _, encoding, rate, channels = AU.unpack(header)
    check_rate(path, rate)
    if magic != b".snd" or encoding != AU_FLOAT or channels < 1 or place < AU.size:
        raise AudioError(f"{path}: ffmpeg does not write Sun AU", kind="unreadable")
    pipe.read(place - AU.size)

    def decode(start: int, stop: int) -> Iterator[np.ndarray]:
        return after(start, _samples(pipe, channels, stop, ended))

    def ended() -> None:
        code, complaint = process.wait(), complaints.first()
        if code or complaint:
            raise truncated(path, f"decoding stops ({complaint or f'exit code {code}'})")

    return Recording(path=path, rate=rate, channels=channels, frames=None, decode=decode)


def _samples(
    pipe: IO[bytes], channels: int, stop: int, ended: Callable[[], None]
) -> Iterator[np.ndarray]:
    """Read samples [0, stop), fewer where the file ends before: (n, channels) float32."""
    size = max(1, BLOCK_VALUES // channels)
    for place in range(0, stop, size):
        wanted = min(stop - place, size)
        content = pipe.read(wanted * channels * 4)
        frames = len(content) // (channels * 4)
        values = np.frombuffer(content, ">f4", frames * channels).astype(np.float32)
        yield values.reshape(frames, channels)
        if frames < wanted:
            ended()
            return


def _is_adts(raw: BinaryIO, place: int) -> bool:
    """Whether two frames of AAC stand one behind the other."""
    head = read_at(raw, place, 7)
    if len(head) < 7 or head[0] != 0xFF or head[1] & 0xF6 != 0xF0:
        return False
    size = (head[3] & 3) << 11 | head[4] << 3 | head[5] >> 5
    behind = read_at(raw, place + size, 2)
    return size >= 7 and (len(behind) < 2 or (behind[0] == 0xFF and behind[1] & 0xF6 == 0xF0))
