"""Audio of listed clips for a page: a link to the file, or the sound itself."""

from __future__ import annotations

import base64
import io
import os
from pathlib import Path
from urllib.parse import quote

from .content import Mistake

_TYPES = {".wav": "audio/wav", ".flac": "audio/flac", ".mp3": "audio/mpeg", ".ogg": "audio/ogg",
          ".opus": "audio/ogg", ".m4a": "audio/mp4"}  # fmt: skip


def audio_address(clip: Mistake, folder: Path, *, embed: bool) -> str:
    """Return what ``<audio src>`` needs to play a clip; empty where its file is gone.

    Parameters
    ----------
    folder
        Of the page: links are relative to it where the file lies on the same disk, so that
        folder and audio can be moved together.
    embed
        Put the sound into the address itself: the page can then be sent to others.
    """
    file = Path(clip.file)
    if not clip.file or not file.is_file():
        return ""
    if embed:
        kind, content = _sound(file, clip)
        return f"data:{kind};base64,{base64.b64encode(content).decode()}"
    part = f"#t={clip.start:.3f},{clip.end:.3f}" if clip.end > clip.start else ""
    try:
        relative = os.path.relpath(file.resolve(), folder.resolve())
    except ValueError:  # another drive
        return file.resolve().as_uri() + part
    return quote(relative.replace(os.sep, "/")) + part


def _sound(file: Path, clip: Mistake) -> tuple[str, bytes]:
    """Type and bytes: the part as FLAC, or the file as it is where it cannot be cut."""
    import soundfile

    try:
        with soundfile.SoundFile(file) as stream:
            rate = stream.samplerate
            start = min(round(clip.start * rate), stream.frames)
            stop = min(round(clip.end * rate), stream.frames) if clip.end else stream.frames
            stream.seek(start)
            wave = stream.read(max(stop - start, 0), dtype="float32")
    except soundfile.SoundFileError:
        return _TYPES.get(file.suffix.lower(), "audio/wav"), file.read_bytes()
    cut = io.BytesIO()
    soundfile.write(cut, wave, rate, format="FLAC", subtype="PCM_16")
    return "audio/flac", cut.getvalue()
