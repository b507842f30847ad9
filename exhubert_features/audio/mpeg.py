"""MPEG audio (mp3, mp2) frame by frame: how much there is, and what a header promises.

Most mp3 files begin with a frame that holds no sound but the number of frames to come (Xing,
Info or VBRI) and the encoder's delay. Without it a decoder can only guess the length from the
bit rate of the first frame: so the frames are counted here, from one header to the next.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import BinaryIO

RATES = (44_100, 48_000, 32_000)  # of MPEG 1; half of them in MPEG 2, a quarter in 2.5
KILOBITS = {  # by (MPEG 1, layer); 0 is free format, whose frames cannot be measured
    (True, 1): (0, 32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (True, 2): (0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 3): (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 1): (0, 32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, 2): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (False, 3): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
MPEG_1, MPEG_2, MPEG_25 = 3, 2, 0  # as a header writes them
TAGS = (b"TAG", b"APETAGEX", b"LYRICSBEGIN")  # what editors append; no sound follows
ID3_TAGS = 16  # more in one place are no tags but an attempt to keep us busy
CHUNKS = 1000  # of a wav, passed over in search of its sound
COUNT_SLACK = 1  # frames; some encoders count the header's own
JUNK = 1 << 16  # bytes between frames that are passed over; more, and the file is damaged


@dataclass(frozen=True)
class _FrameHeader:
    """The four bytes every frame begins with.

    Attributes
    ----------
    kind
        Version, layer, rate and whether it is mono: the same in all of a file.
    size
        Bytes of the frame; 0 in free format, which does not say.
    samples
        Samples of each channel.
    """

    kind: tuple[int, int, int, bool]
    size: int
    samples: int


@dataclass(frozen=True)
class MpegStream:
    """Where the sound of a file lies and how long it is.

    Attributes
    ----------
    runs
        Bytes of the frames to decode, half-open, one pair for each run without a gap.
    frames
        How many frames of sound there are; None where only decoding tells.
    promised
        How many the file's own header promises; None without one.
    trimmed
        Whether the header is right and ``runs`` begin with it, so that the decoder cuts off the
        encoder's delay and padding.
    samples
        Samples of one frame.
    junk
        Bytes that are no frame; beyond ``JUNK`` the scan ends there.
    """

    runs: tuple[tuple[int, int], ...]
    frames: int | None
    promised: int | None
    trimmed: bool
    samples: int
    junk: int

    @property
    def damage(self) -> str:
        """What is wrong with the file, in words; empty when nothing is."""
        if self.junk > JUNK:
            return f"more than {JUNK} bytes in it are no MPEG frames of one kind"
        frames, promised = self.frames, self.promised
        if promised is not None and frames is not None and frames + COUNT_SLACK < promised:
            return f"{frames} of {promised} frames are there"
        return ""


def scan_mpeg(raw: BinaryIO) -> MpegStream:
    """Walk over the frames of a file, in time that grows with its size alone.

    Parameters
    ----------
    raw
        An mp3 or mp2 file, or a wav with such sound inside.
    """
    start, size = _riff_data(raw)
    begin = after_id3(raw, start)
    first = _parse_header(read_at(raw, begin, 4))
    if first is None or not first.size:
        return MpegStream(((begin, size),), None, None, False, 1152, 0)
    counted, promised, trims = _promise(read_at(raw, begin, first.size), first)
    sound = begin + first.size if counted else begin
    runs: list[tuple[int, int]] = []
    frames = junk = 0
    place: int | None = sound
    while place is not None and junk <= JUNK:
        stop, count = _run(raw, place, size, first)
        runs += [(place, stop)] if count else []
        frames += count
        place, gap = _next_run(raw, stop, size, first)
        junk += gap
    trimmed = trims and promised == frames and runs[:1] == [(sound, runs[0][1])]
    if trimmed:
        runs[0] = (begin, runs[0][1])
    return MpegStream(tuple(runs), frames, promised, trimmed, first.samples, junk)


def after_id3(raw: BinaryIO, place: int = 0) -> int:
    """Find the first byte after the ID3 tags that begin at a place."""
    for _ in range(ID3_TAGS):
        tag = read_at(raw, place, 10)
        if len(tag) < 10 or tag[:3] != b"ID3":
            break
        length = 0
        for byte in tag[6:]:
            length = length << 7 | byte & 0x7F
        place += 10 + length + (10 if tag[5] & 0x10 else 0)
    return place


@lru_cache(maxsize=1024)
def _parse_header(head: bytes) -> _FrameHeader | None:
    """Read the (4,) bytes of a frame's header; None where they are none."""
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE0 != 0xE0:
        return None
    version, layer = head[1] >> 3 & 3, 4 - (head[1] >> 1 & 3)
    bitrate, rate, padding = head[2] >> 4, head[2] >> 2 & 3, head[2] >> 1 & 1
    if version not in (MPEG_1, MPEG_2, MPEG_25) or layer == 4 or bitrate == 15 or rate == 3:
        return None
    bits = KILOBITS[version == MPEG_1, layer][bitrate] * 1000
    hertz = RATES[rate] >> {MPEG_1: 0, MPEG_2: 1, MPEG_25: 2}[version]
    samples = 384 if layer == 1 else 576 if layer == 3 and version != MPEG_1 else 1152
    slot = 4 if layer == 1 else 1  # bytes
    size = (samples // 8 // slot * bits // hertz + padding) * slot if bits else 0
    return _FrameHeader((version, layer, rate, head[3] >> 6 == 3), size, samples)


def read_at(raw: BinaryIO, place: int, count: int) -> bytes:
    """Read up to ``count`` bytes from a place."""
    raw.seek(place)
    return raw.read(count)


def _riff_data(raw: BinaryIO) -> tuple[int, int]:
    """First byte of the sound in a wav, and the end of it; of another file all."""
    size = raw.seek(0, os.SEEK_END)
    if read_at(raw, 0, 4) != b"RIFF":
        return 0, size
    place = 12
    for _ in range(CHUNKS):
        name, length = read_at(raw, place, 4), int.from_bytes(raw.read(4), "little")
        place += 8
        if name == b"data" or place >= size:
            return place, min(place + length, size)
        place += length + length % 2
    return size, size


def _promise(content: bytes, first: _FrameHeader) -> tuple[bool, int | None, bool]:
    """Whether a first frame is one that counts, its count, and whether the decoder knows it."""
    version, _, _, mono = first.kind
    side = (17 if mono else 32) if version == MPEG_1 else (9 if mono else 17)
    for place in (4 + side, 6 + side):  # two bytes of checksum may come between
        if content[place : place + 4] in (b"Xing", b"Info"):
            has_count = content[place + 7 : place + 8] >= b"\1" and content[place + 7] & 1
            count = int.from_bytes(content[place + 8 : place + 12], "big")
            return True, count if has_count else None, True
    if content[36:40] == b"VBRI":
        return True, int.from_bytes(content[50:54], "big") or None, False
    return False, None, False


def _run(raw: BinaryIO, place: int, size: int, first: _FrameHeader) -> tuple[int, int]:
    """Follow frames without a gap: where they end and how many they are."""
    count = 0
    while found := _parse_header(read_at(raw, place, 4)):
        if found.kind != first.kind or not found.size or place + found.size > size:
            break
        place += found.size
        count += 1
    return place, count


def _next_run(raw: BinaryIO, place: int, size: int, first: _FrameHeader) -> tuple[int | None, int]:
    """Where frames go on after a gap (None at the end of the sound), and its bytes of junk.

    A frame that the end of the file cuts off is no sound, and no damage either: nothing
    promised it.
    """
    place = after_id3(raw, place)  # files put end to end have tags in the middle
    if place >= size:
        return None, 0
    rest = read_at(raw, place, 16)
    found = _parse_header(rest[:4])
    if found and found.kind == first.kind and found.size:
        return (place, 0) if place + found.size <= size else (None, 0)
    if rest.startswith(TAGS):
        return None, 0
    for candidate in _candidates(raw, place + 1):
        if _begins_frames(raw, candidate, size, first):
            return candidate, candidate - place
    if size - place <= JUNK or _only_zeros(raw, place):
        return None, 0
    return None, JUNK + 1


def _begins_frames(raw: BinaryIO, place: int, size: int, first: _FrameHeader) -> bool:
    """Whether a frame stands here with another behind it, or at the end of the file."""
    found = _parse_header(read_at(raw, place, 4))
    if found is None or found.kind != first.kind or not 0 < found.size <= size - place:
        return False
    follower = _parse_header(read_at(raw, place + found.size, 4))
    return place + found.size == size or (follower is not None and follower.kind == first.kind)


def _candidates(raw: BinaryIO, place: int) -> Iterator[int]:
    """Places within reach where a frame's first byte stands."""
    content = read_at(raw, place, JUNK)
    found = content.find(b"\xff")
    while found >= 0:
        yield place + found
        found = content.find(b"\xff", found + 1)


def _only_zeros(raw: BinaryIO, place: int) -> bool:
    """Whether nothing but zeros follows: recorders reserve more than they use."""
    raw.seek(place)
    while block := raw.read(1 << 20):
        if any(block):
            return False
    return True
