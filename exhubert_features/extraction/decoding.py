"""Decoding in threads ahead of the encoder, bounded so that memory stays flat."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np

from ..audio import hash_array, read_array, read_audio
from ..errors import AudioError
from ..records import PlannedClip
from ..spec import SAMPLE_RATE
from .planning import Plan, load_lazy
from .sources import LazyClip

AHEAD_CLIPS = 128  # the next batch of a GPU, and enough to outlast a slow disk
AHEAD_SAMPLES = 1200 * SAMPLE_RATE  # 77 MB: an hour-long file must not be joined by 127 others

Decoded = np.ndarray | AudioError


def load_clip(clip: PlannedClip, plan: Plan, channel: int | None, limit: int) -> Decoded:
    """Read a planned clip's samples at 16 kHz, or say why there are none.

    ``limit`` is how many bytes they may take.
    """
    try:
        if clip.id in plan.arrays:
            return read_array(clip.id, *plan.arrays[clip.id])
        if clip.id in plan.lazy:
            return _load_again(clip, plan.lazy[clip.id], channel)
        wave = read_audio(clip.file, start=clip.start, end=clip.end, channel=channel, limit=limit)
        status = Path(clip.file).stat()
        if (status.st_size, status.st_mtime_ns) != plan.stamps[clip.file]:
            return AudioError(
                f"{clip.file} has changed since this run began",
                expected="the bytes that were hashed",
                remedy="Run the same command again",
                kind="changed",
            )
    except AudioError as error:
        return error
    except OSError as error:
        return AudioError(f"{clip.file} is gone ({error.strerror})", kind="missing")
    except MemoryError:
        return AudioError(
            f"{clip.file or clip.id} does not fit into memory",
            remedy="Cut it into parts with start and end columns in a manifest",
            kind="memory",
        )
    return wave


def _load_again(clip: PlannedClip, lazy: LazyClip, channel: int | None) -> Decoded:
    """Load what was planned, unless it has become something else."""
    wave, rate = load_lazy(lazy, channel)
    if hash_array(wave, rate) != clip.audio_sha256:
        return AudioError(
            f"{clip.id} was loaded twice and was not the same",
            expected="the samples that were hashed",
            remedy="Take what is random out of its function",
            kind="changed",
        )
    return read_array(clip.id, wave, rate)


def decode_ahead(
    clips: Iterable[PlannedClip], load: Callable[[PlannedClip], Decoded], workers: int
) -> Iterator[tuple[PlannedClip, Decoded]]:
    """Clips with their samples, in order, decoded by threads while the encoder works.

    Threads and not processes: libsndfile and the resampler release the interpreter's lock, no
    samples have to cross to another process, and at 4 ms of CPU for a clip of 3 s (stereo flac
    at 44.1 kHz) two processes were no faster than two threads.
    """
    executor = ThreadPoolExecutor(workers, thread_name_prefix="decode")
    ahead: deque[tuple[PlannedClip, Future[Decoded]]] = deque()
    samples = 0
    try:
        for clip in clips:
            while ahead and (len(ahead) >= AHEAD_CLIPS or samples + clip.samples > AHEAD_SAMPLES):
                done, future = ahead.popleft()
                samples -= done.samples
                yield done, future.result()
            ahead.append((clip, executor.submit(load, clip)))
            samples += clip.samples
        while ahead:
            done, future = ahead.popleft()
            yield done, future.result()
    finally:
        executor.shutdown(wait=False, cancel_futures=True)
