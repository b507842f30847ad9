"""Audio files and arrays to mono float32 at 16 kHz, or a named error."""

from .arrays import array_samples, hash_array, read_array
from .checks import audio_warnings, segment_bounds
from .memory import memory_limit
from .reading import AudioFile, planned_samples, probe_audio, read_audio, read_blocks

__all__ = [
    "AudioFile",
    "array_samples",
    "audio_warnings",
    "hash_array",
    "memory_limit",
    "planned_samples",
    "probe_audio",
    "read_array",
    "read_audio",
    "read_blocks",
    "segment_bounds",
]
