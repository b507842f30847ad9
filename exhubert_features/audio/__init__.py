"""Audio files and arrays to mono float32 at 16 kHz, or a named error."""

from .reading import (
    AudioFile,
    array_samples,
    audio_warnings,
    hash_array,
    planned_samples,
    probe_audio,
    read_array,
    read_audio,
    segment_bounds,
)

__all__ = [
    "AudioFile",
    "array_samples",
    "audio_warnings",
    "hash_array",
    "planned_samples",
    "probe_audio",
    "read_array",
    "read_audio",
    "segment_bounds",
]
