"""Hundreds of mutilated audio files: each becomes a feature or a failure with a name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from exhubert_features import audio
from exhubert_features.checkpoint.saving import write_random_checkpoint
from exhubert_features.encoder import load_encoder
from exhubert_features.errors import AudioError
from exhubert_features.records import ClipFailure, ClipFeatures
from exhubert_features.spec import ExtractionSpec

MUTANTS = 480
DATA = Path(__file__).parent / "data" / "audio"
KINDS = {
    *("unreadable", "empty", "nan", "range", "truncated", "too_short", "rate", "channel"),
    *("memory", "not_finite", "needs_ffmpeg"),
}
SOURCES = [
    ("wav", "PCM_16", 16_000, 1),
    ("wav", "FLOAT", 44_100, 2),
    ("wav", "ULAW", 8_000, 1),
    ("wav", "IMA_ADPCM", 22_050, 1),
    ("wav", "PCM_24", 48_000, 6),
    ("flac", "PCM_16", 16_000, 1),
    ("flac", "PCM_24", 44_100, 2),
    ("ogg", "VORBIS", 16_000, 1),
    ("ogg", "OPUS", 48_000, 2),
    ("mp3", "MPEG_LAYER_III", 16_000, 1),
    ("mp3", "MPEG_LAYER_III", 44_100, 2),
    ("aiff", "PCM_16", 22_050, 1),
    ("au", "PCM_16", 8_000, 1),
]
MADE = [  # by other encoders: without a header that counts, and what ffmpeg reads
    *("lame_variable_bare.mp3", "lame_free_bare.mp3", "sox_constant_bare.mp3", "ffmpeg.mp2"),
    *("lossy.m4a", "lossless.mkv", "lossy.webm", "lossy.wma", "lossy.aac", "noise.amr"),
]
Mutation = Callable[[bytearray, np.random.Generator], bytes]


def flip_header(content: bytearray, generator: np.random.Generator) -> bytes:
    for place in generator.integers(0, min(64, len(content)), generator.integers(1, 5)):
        content[place] = generator.integers(256)
    return bytes(content)


def flip_anywhere(content: bytearray, generator: np.random.Generator) -> bytes:
    for place in generator.integers(0, len(content), generator.integers(1, 40)):
        content[place] = generator.integers(256)
    return bytes(content)


def extreme_field(content: bytearray, generator: np.random.Generator) -> bytes:
    """A rate, channel count or length of 0, 1, 17, -1 or the like."""
    place = int(generator.integers(4, min(48, len(content) - 4)))
    value = int(generator.choice([0, 1, 17, 999, 44_101, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF]))
    content[place : place + 4] = value.to_bytes(4, "little")
    return bytes(content)


def cut(content: bytearray, generator: np.random.Generator) -> bytes:
    return bytes(content[: generator.integers(0, len(content))])


def blank(content: bytearray, generator: np.random.Generator) -> bytes:
    first = int(generator.integers(0, len(content)))
    content[first : first + 300] = bytes(len(content[first : first + 300]))
    return bytes(content)


def repeat_part(content: bytearray, generator: np.random.Generator) -> bytes:
    first, last = sorted(generator.integers(0, len(content), 2).tolist())
    return bytes(content[:last] + content[first:])


def keep_only_the_header(content: bytearray, generator: np.random.Generator) -> bytes:
    return bytes(content[:60]) + generator.bytes(int(generator.integers(0, 3000)))


def only_noise(content: bytearray, generator: np.random.Generator) -> bytes:
    return generator.bytes(len(content))


MUTATIONS: list[Mutation] = [
    *(flip_header, flip_anywhere, extreme_field, cut, blank),
    *(repeat_part, keep_only_the_header, only_noise),
]


def write_mutants(folder: Path, count: int) -> None:
    generator = np.random.default_rng(20)
    originals = []
    for index, (suffix, subtype, rate, channels) in enumerate(SOURCES):
        path = folder.parent / f"original{index}.{suffix}"
        wave = generator.normal(0, 0.1, (int(0.2 * rate), channels))
        soundfile.write(path, wave, rate, subtype)
        originals.append((suffix, path.read_bytes()))
    # The content decides; folders are searched for some names only.
    known = {".mp2": "mp3", ".mkv": "webm"}
    originals += [
        (known.get(Path(name).suffix, Path(name).suffix[1:]), (DATA / name).read_bytes())
        for name in MADE
    ]
    for index in range(count):
        suffix, content = originals[index % len(originals)]
        mutation = MUTATIONS[index % len(MUTATIONS)]
        mutant = mutation(bytearray(content), generator)
        (folder / f"{index:03d}-{mutation.__name__}.{suffix}").write_bytes(mutant)


def test_what_is_planned_is_what_is_read(tmp_path: Path) -> None:
    """Windows are planned before a file is decoded, so the two must agree to the sample."""
    folder = tmp_path / "mutants"
    folder.mkdir()
    write_mutants(folder, MUTANTS)
    read = 0
    for path in map(str, sorted(folder.glob("*.mp?"))):
        try:
            planned = audio.planned_samples(audio.probe_audio(path))
            wave = audio.read_audio(path)
        except AudioError:
            continue
        assert len(wave) == planned, path
        read += 1
    assert read > 20


@pytest.mark.slow
def test_every_mutant_becomes_a_feature_or_a_named_failure(tmp_path: Path) -> None:
    folder = tmp_path / "mutants"
    folder.mkdir()
    write_mutants(folder, MUTANTS)
    model = write_random_checkpoint(tmp_path / "model", layers=2)
    spec = ExtractionSpec(preprocess="masked")
    rows = list(load_encoder(model, device="cpu").extract(folder, spec=spec))
    assert sorted(row.id for row in rows) == sorted(path.name for path in folder.iterdir())
    features = [row for row in rows if isinstance(row, ClipFeatures)]
    failures = [row for row in rows if isinstance(row, ClipFailure)]
    assert all(np.isfinite(row.pooled).all() for row in features)
    assert {failure.kind for failure in failures} <= KINDS
    assert all(failure.file in failure.reason for failure in failures)
    # Neither outcome is there for show.
    assert len(features) > MUTANTS / 10
    assert len(failures) > MUTANTS / 3
    assert len({failure.kind for failure in failures}) >= 4
