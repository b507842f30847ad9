"""Audio files and arrays to mono float32 at 16 kHz, or a named error."""

from .arrays import array_samples, hash_array, read_array
from .checks import audio_warnings, segment_bounds
from .memory import memory_limit
from .reading import (
    AudioFile,
    OpenedAudio,
    hash_file,
    header_of,
    open_audio,
    planned_samples,
    probe_audio,
    read_audio,
    read_blocks,
)
from .remote import check_scheme, is_url, list_urls

__all__ = [
    "AudioFile",
    "OpenedAudio",
    "array_samples",
    "audio_warnings",
    "check_scheme",
    "hash_array",
    "hash_file",
    "header_of",
    "is_url",
    "list_urls",
    "memory_limit",
    "open_audio",
    "planned_samples",
    "probe_audio",
    "read_array",
    "read_audio",
    "read_blocks",
    "segment_bounds",
]
