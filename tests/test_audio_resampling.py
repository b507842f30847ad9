"""Our own resampler: torchaudio's numbers without torchaudio, the same however audio is cut."""

from __future__ import annotations

import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from exhubert_features.audio.resampling import _phase_table, resample_blocks, resampled_length
from exhubert_features.spec import SAMPLE_RATE

GOLDEN = Path(__file__).parent / "data" / "audio" / "resampled.npz"
RATES = [1_000, 8_000, 11_025, 22_050, 24_000, 32_000, 44_100, 48_000, 96_000]


def noise(samples: int, seed: int = 0) -> np.ndarray:
    """Full-scale noise: the loudest there is, so that a difference shows most."""
    return np.random.default_rng(seed).uniform(-1, 1, samples).astype(np.float32)


def resample(wave: np.ndarray, rate: int) -> np.ndarray:
    return np.concatenate([*resample_blocks([wave], rate)])


@pytest.mark.parametrize("rate", RATES)
def test_the_numbers_are_torchaudios_as_stored(rate: int) -> None:
    golden = np.load(GOLDEN)
    found = resample((golden["noise"] / 32768).astype(np.float32), rate)
    np.testing.assert_allclose(found[:2000], golden[str(rate)], atol=2e-6)


@pytest.mark.parametrize("rate", [*RATES, 7_350, 12_345, 192_000, 768_000])
def test_the_numbers_are_torchaudios(rate: int) -> None:
    transforms = pytest.importorskip("torchaudio.transforms")
    import torch

    wave = noise(7 * rate // 10 + 3)
    # Not its function of the same name, which rounds the weights of some rates to 1e-4.
    want = transforms.Resample(rate, SAMPLE_RATE)(torch.from_numpy(wave)).numpy()
    np.testing.assert_allclose(resample(wave, rate), want, atol=1e-5)


@given(
    rate=st.sampled_from([*RATES, SAMPLE_RATE, 12_345]),
    cuts=st.lists(st.integers(0, 90_000), max_size=8),
    samples=st.integers(0, 90_000),
)
def test_the_cuts_decide_nothing(rate: int, cuts: list[int], samples: int) -> None:
    wave = noise(samples)
    whole = [*resample_blocks([wave], rate)]
    pieces = [*resample_blocks(np.split(wave, sorted(cuts)), rate)]
    assert sum(map(len, whole)) == resampled_length(samples, rate)
    np.testing.assert_array_equal(np.concatenate(pieces), np.concatenate(whole))


@pytest.mark.parametrize("rate", [11_127, 44_101, 96_001])
def test_odd_rates_keep_a_tone(rate: int) -> None:
    wave = np.sin(2 * np.pi * 440 * np.arange(rate) / rate).astype(np.float32)
    want = np.sin(2 * np.pi * 440 * np.arange(SAMPLE_RATE) / SAMPLE_RATE)
    np.testing.assert_allclose(resample(wave, rate)[200:-200], want[200:-200], atol=2e-3)


def test_tables_are_made_once_per_rate() -> None:
    resample(noise(800), 24_000)
    before = _phase_table.cache_info()
    resample(noise(800), 24_000)
    after = _phase_table.cache_info()
    assert (after.hits, after.misses) == (before.hits + 1, before.misses)


def test_memory_does_not_grow_with_the_length() -> None:
    blocks = (noise(44_100) for _ in range(120))
    tracemalloc.start()
    samples = sum(len(block) for block in resample_blocks(blocks, 44_100))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert samples == 120 * SAMPLE_RATE
    assert peak < 4e6  # two minutes are 21 MB


def test_audio_needs_no_torchaudio_nor_torch(tmp_path: Path) -> None:
    code = f"""
import sys
for name in ("torch", "torchaudio", "speechbrain", "transformers"):
    sys.modules[name] = None
import numpy, soundfile
from exhubert_features import audio
path = {str(tmp_path / "a.wav")!r}
soundfile.write(path, numpy.ones(44100) / 4, 44100)
print(len(audio.read_audio(path)), audio.planned_samples(audio.probe_audio(path)),
      len(audio.read_array("a", numpy.ones(8000), 8000)))
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == ["16000"] * 3
