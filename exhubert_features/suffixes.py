"""Which files hold sound, by the ends of their names."""

from __future__ import annotations

# What no library here reads becomes a failure that says so, because a recording left out without
# a word is worse.
SOUND_SUFFIXES = frozenset(
    (
        *(".wav", ".wave", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".aifc"),
        *(".au", ".snd", ".caf", ".w64", ".rf64", ".voc", ".nist", ".sph"),
        *(".m4a", ".aac", ".wma", ".amr"),
    )
)
# Videos whose sound is read where ffmpeg is installed, and others that corpora come as.
VIDEO_SUFFIXES = frozenset((".mp4", ".webm", ".mkv", ".mov"))
OTHER_VIDEO_SUFFIXES = frozenset((".avi", ".flv"))
