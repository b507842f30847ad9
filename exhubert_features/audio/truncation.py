"""Files shorter than their own header promises, which libsndfile opens without complaint."""

from __future__ import annotations

import os
import re
from typing import BinaryIO

# libsndfile notes in its log what a header promised and what the file's size allows.
PROMISE = re.compile(r"^\s*(?:data|SSND|BODY|riff|Data Size)\s*:\s*(\d+) \(should be (\d+)\)", re.M)
COUNT = re.compile(r"frame count (\d+) does not match value from 'ds64' chunk of (\d+)")
VOC = "Seems to be a truncated file"
NIST_FIELD = re.compile(rb"(sample_count|sample_n_bytes|channel_count) -i (\d+)")

UNKNOWN = 0x7FFF_0000  # streaming writers promise this or more, not knowing the length yet
SLACK = 16  # bytes; careless writers forget padding
ASF_PROPERTIES = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")
ASF_HEADER = 1 << 16  # the object with the length stands among the first
BOXES = 100_000  # looked at in an MPEG-4 file: 10 hours in pieces of half a second have fewer
OGG_TAIL = 65_307  # the largest Ogg page
OGG_END = 4  # flag of a stream's last page


def missing_data(raw: BinaryIO, kind: str, log: str) -> str:
    """Say what is missing of a file; nothing when it is whole.

    Parameters
    ----------
    raw
        The file.
    kind
        libsndfile's name of its format.
    log
        libsndfile's log of having opened it.
    """
    for promised, there in PROMISE.findall(log):
        if int(there) + SLACK < int(promised) < UNKNOWN:
            return f"{there} of {promised} bytes are there"
    for there, promised in COUNT.findall(log):
        if int(there) < int(promised):
            return f"{there} of {promised} samples are there"
    if VOC in log:
        return "its last block is incomplete"
    if kind == "NIST":
        return _missing_in_nist(raw)
    if kind == "OGG":
        return _missing_in_ogg(raw)
    return ""


def missing_in_boxes(raw: BinaryIO) -> str:
    """Say what is missing of an MPEG-4 or QuickTime file; nothing when it is whole.

    The file is a row of boxes, each beginning with its length and its name.
    """
    there = raw.seek(0, os.SEEK_END)
    place = 0
    for _ in range(BOXES):
        raw.seek(place)
        head = raw.read(16)
        size = int.from_bytes(head[:4], "big")
        if size == 1:
            size = int.from_bytes(head[8:16], "big")
        if len(head) < 8 or size < 8:  # the end, or a last box without a length
            return ""
        place += size
        if place > there:
            return f"{there} of {place} bytes are there"
    return ""


def missing_in_asf(raw: BinaryIO) -> str:
    """Say what is missing of a Windows Media file; nothing when it is whole."""
    there = raw.seek(0, os.SEEK_END)
    raw.seek(0)
    header = raw.read(ASF_HEADER)
    found = header.find(ASF_PROPERTIES)
    if found < 0 or found + 92 > len(header):
        return ""
    promised = int.from_bytes(header[found + 40 : found + 48], "little")
    streamed = header[found + 88] & 1  # written to a pipe: the length was not known
    return "" if streamed or promised <= there else f"{there} of {promised} bytes are there"


def _missing_in_nist(raw: BinaryIO) -> str:
    header = raw.read(1024)
    fields = {name: int(value) for name, value in NIST_FIELD.findall(header)}
    size = fields.get(b"sample_n_bytes", 0) * fields.get(b"channel_count", 1)
    promised = 1024 + fields.get(b"sample_count", 0) * size
    there = raw.seek(0, os.SEEK_END)
    # Compressed (shorten) files are smaller by right, but libsndfile does not open those.
    return f"{there} of {promised} bytes are there" if there + SLACK < promised else ""


def _missing_in_ogg(raw: BinaryIO) -> str:
    raw.seek(max(0, raw.seek(0, os.SEEK_END) - OGG_TAIL))
    tail = raw.read()
    page = tail.rfind(b"OggS")
    header = tail[page : page + 27]
    if page < 0 or len(header) < 27 or not header[5] & OGG_END:
        return "the stream's end is missing"
    sizes = tail[page + 27 : page + 27 + header[26]]
    complete = page + 27 + header[26] + sum(sizes) <= len(tail)
    return "" if complete else "its last page is incomplete"
