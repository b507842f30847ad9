"""The synthetic corpus: repeatable, well-formed, and expressive in the ways it claims."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import soundfile
from scipy.signal import welch

from exhubert_features.errors import UsageError
from exhubert_features.synthetic import EMOTIONS, Style, Voice, draw_voice, synthesise, write_corpus

VOICE = Voice(pitch=120.0, tract=1.0, pace=4.8, tilt=-9.0, liveliness=1.0)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("corpus"), speakers=2, sentences=2)


def rows(manifest: Path) -> list[dict[str, str]]:
    with manifest.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def speak(style: Style, voice: Voice = VOICE, takes: int = 3) -> list[np.ndarray]:
    return [synthesise(voice, style, sentence=0, seed=take) for take in range(takes)]


def median_pitch(waveform: np.ndarray) -> float:
    """Hz: the strongest autocorrelation lag of each loud 40 ms frame."""
    frames = waveform[: len(waveform) // 640 * 640].reshape(-1, 640)
    found = []
    for frame in frames[frames.std(axis=1) > 0.5 * waveform.std()]:
        correlation = np.correlate(frame, frame, "full")[639:]
        found.append(16_000 / (40 + np.argmax(correlation[40:240])))
    return float(np.median(found))


def brightness(waveform: np.ndarray) -> float:
    """Share of the power above 1 kHz, in dB."""
    frequency, power = welch(waveform, 16_000, nperseg=512)
    return float(10 * np.log10(power[frequency > 1000].sum() / power.sum()))


def mean_of(measure, style: Style) -> float:
    return float(np.mean([measure(waveform) for waveform in speak(style)]))


def test_corpus_is_complete_and_well_formed(corpus: Path) -> None:
    listed = rows(corpus)
    assert len(listed) == 2 * 4 * 2
    assert list(listed[0]) == ["file", "id", "speaker", "emotion"]
    assert len({row["id"] for row in listed}) == len(listed)
    assert {row["emotion"] for row in listed} == set(EMOTIONS)
    for row in listed:
        waveform, rate = soundfile.read(corpus.parent / row["file"])
        assert rate == 16_000 and waveform.ndim == 1
        assert 0.8 < len(waveform) / rate < 6
        assert waveform.std() > 0.005 and abs(waveform).max() < 1


def test_corpus_is_the_same_for_the_same_seed_only(corpus: Path, tmp_path: Path) -> None:
    again = write_corpus(tmp_path / "again", speakers=2, sentences=1)
    other = write_corpus(tmp_path / "other", speakers=2, sentences=1, seed=1)
    for row in rows(again):
        first = (corpus.parent / row["file"]).read_bytes()
        assert (again.parent / row["file"]).read_bytes() == first
        assert (other.parent / row["file"]).read_bytes() != first


def test_takes_of_one_sentence_differ() -> None:
    first, second, _ = speak(Style())
    assert first.dtype == np.float32
    assert len(first) != len(second) or not np.allclose(first, second)


def test_pitch_is_the_one_asked_for() -> None:
    neutral = mean_of(median_pitch, Style())
    assert neutral == pytest.approx(VOICE.pitch, rel=0.15)
    assert mean_of(median_pitch, Style(pitch=7)) == pytest.approx(neutral * 2 ** (7 / 12), rel=0.15)


def test_tempo_doubles_with_one_octave() -> None:
    assert mean_of(len, Style(tempo=1)) == pytest.approx(mean_of(len, Style()) / 2, rel=0.1)


def test_energy_is_in_decibels() -> None:
    gain = mean_of(np.std, Style(energy=6)) / mean_of(np.std, Style())
    assert 20 * np.log10(gain) == pytest.approx(6, abs=0.5)


def test_tilt_brightens() -> None:
    assert mean_of(brightness, Style(tilt=4)) > mean_of(brightness, Style()) + 2


def test_a_smile_raises_the_formants() -> None:
    def first_formant(waveform: np.ndarray) -> float:
        frequency, power = welch(waveform, 16_000, nperseg=512)
        low = (frequency > 200) & (frequency < 1500)
        return float((frequency * power)[low].sum() / power[low].sum())

    assert mean_of(first_formant, Style(smile=0.3)) > 1.08 * mean_of(first_formant, Style())


def test_voices_differ_and_alternate_between_low_and_high() -> None:
    voices = [draw_voice(index) for index in range(10)]
    assert len(set(voices)) == 10
    assert max(v.pitch for v in voices[::2]) < min(v.pitch for v in voices[1::2])


def test_an_empty_corpus_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="0 speakers"):
        write_corpus(tmp_path, speakers=0)
