"""What extraction costs beyond the encoder: reading, resampling, pooling, joining, storing."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import soundfile

from ..audio import read_audio
from ..encoder import Encoder
from ..extraction.batching import usual_size
from ..spec import SAMPLE_RATE, ExtractionSpec
from .store import peak_memory

ROUNDS = 10  # bare and whole by turns, each first in half of them: a busy minute hits both


@dataclass(frozen=True, kw_only=True)
class Overhead:
    """The same clips through the bare encoder and through extraction into a store.

    Bare is the encoder alone on waveforms in memory, keeping only logits; whole is planning,
    hashing, decoding, resampling, encoding, pooling all layers and storing. ``wall`` and
    ``cpu`` are the extra shares of the time, medians of the rounds; the second also counts
    what is hidden on other cores, and means something on a busy machine.
    """

    clips: int
    audio_seconds: float
    bare_seconds: float
    whole_seconds: float
    wall: float
    cpu: float
    memory: int  # bytes by which extraction's peak exceeds the bare encoder's


def bench_extract(folder: Path, encoder: Encoder, *, clips: int = 200) -> Overhead:
    """Measure with the default spec: the mean of every layer, and logits."""
    files = _write_clips(folder / "audio", clips)
    waves = [read_audio(str(file)) for file in files]
    size = usual_size(encoder.device, ExtractionSpec().window)
    _encode(encoder, waves[:size], size)  # the first pass allocates
    bare: list[tuple[float, float]] = []
    whole: list[tuple[float, float]] = []
    memory = peak_memory()
    rounds = min(ROUNDS, clips)
    for number in range(rounds):
        part = slice(number, None, rounds)
        turns = [
            (bare, partial(_encode, encoder, waves[part], size)),
            (whole, partial(_store_features, folder / f"store{number}", files[part], encoder)),
        ]
        for readings, action in turns if number % 2 else turns[::-1]:
            readings.append(_clock(action))
    alone, together = np.array(bare), np.array(whole)  # (rounds, 2): wall, cpu
    wall, cpu = np.median(together / alone - 1, axis=0)
    return Overhead(
        clips=clips,
        audio_seconds=sum(map(len, waves)) / SAMPLE_RATE,
        bare_seconds=float(alone[:, 0].sum()),
        whole_seconds=float(together[:, 0].sum()),
        wall=float(wall),
        cpu=float(cpu),
        memory=peak_memory() - memory,
    )


def _clock(action: Callable[[], object]) -> tuple[float, float]:
    """Wall and CPU seconds."""
    wall, cpu = time.perf_counter(), time.process_time()
    action()
    return time.perf_counter() - wall, time.process_time() - cpu


def _write_clips(folder: Path, count: int) -> list[Path]:
    """Clips of 1 to 3 s: half wav at 16 kHz, half stereo flac at 44.1 kHz."""
    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(0)
    files = []
    for index in range(count):
        name, rate, channels = ("wav", SAMPLE_RATE, 1) if index % 2 else ("flac", 44_100, 2)
        wave = generator.normal(0, 0.1, (int(generator.uniform(1, 3) * rate), channels))
        files.append(folder / f"{index:05d}.{name}")
        soundfile.write(files[-1], wave, rate)
    return files


def _encode(encoder: Encoder, waves: Sequence[np.ndarray], size: int) -> None:
    """Do the work that no extraction can do without."""
    for first in range(0, len(waves), size):
        encoder(list(waves[first : first + size]), layers=[0], together=True)


def _store_features(path: Path, files: Sequence[Path], encoder: Encoder) -> None:
    """All that ``exhubert extract`` does once the model is loaded."""
    encoder.extract(files).write(path)
