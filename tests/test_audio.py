"""Files and arrays to 16 kHz mono, and a named error for everything that cannot be."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np
import pytest
import soundfile

from exhubert_features import audio
from exhubert_features.errors import AudioError

RATE = 16_000


def tone(samples: int = RATE, channels: int = 1, seed: int = 0) -> np.ndarray:
    """Quiet noise, (N,) or (N, channels), exactly representable with 16 bits."""
    noise = np.random.default_rng(seed).integers(-3000, 3000, (samples, channels))
    return (noise / 32768).astype(np.float32).squeeze()


def write(path: Path, wave: np.ndarray, rate: int = RATE, **options: str) -> str:
    soundfile.write(path, wave, rate, **options)
    return str(path)


def refusal(path: str | Path, **options) -> AudioError:
    with pytest.raises(AudioError) as caught:
        audio.read_audio(str(path), **options)
    assert str(path) in str(caught.value)  # the user learns which file
    return caught.value


LOSSLESS = [
    ("wav", "PCM_16"),
    ("wav", "PCM_24"),
    ("wav", "PCM_32"),
    ("wav", "FLOAT"),
    ("wav", "DOUBLE"),
    ("flac", "PCM_16"),
    ("flac", "PCM_24"),
    ("aiff", "PCM_16"),
    ("au", "PCM_16"),
    ("caf", "PCM_16"),
    ("w64", "PCM_16"),
]
LOSSY = [("wav", "PCM_U8"), ("wav", "ULAW"), ("ogg", "VORBIS"), ("mp3", "MPEG_LAYER_III")]


@pytest.mark.parametrize(("suffix", "subtype"), LOSSLESS)
def test_lossless_formats_give_the_very_samples(tmp_path: Path, suffix: str, subtype: str) -> None:
    wave = tone()
    found = audio.read_audio(write(tmp_path / f"a.{suffix}", wave, subtype=subtype))
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, wave)


@pytest.mark.parametrize(("suffix", "subtype"), LOSSY)
def test_lossy_formats_give_all_samples(tmp_path: Path, suffix: str, subtype: str) -> None:
    wave = 0.3 * np.sin(np.arange(RATE) * 0.1).astype(np.float32)
    found = audio.read_audio(write(tmp_path / f"a.{suffix}", wave, subtype=subtype))
    assert len(found) == RATE
    assert np.corrcoef(found, wave)[0, 1] > 0.99


@pytest.mark.parametrize("rate", [8_000, 11_025, 22_050, 32_000, 44_100, 48_000, 96_000])
def test_resampling_keeps_a_tone(tmp_path: Path, rate: int) -> None:
    wave = np.sin(2 * np.pi * 440 * np.arange(rate) / rate).astype(np.float32)
    path = write(tmp_path / "a.wav", wave, rate, subtype="FLOAT")
    found = audio.read_audio(path)
    assert len(found) == RATE
    want = np.sin(2 * np.pi * 440 * np.arange(RATE) / RATE)
    np.testing.assert_allclose(found[100:-100], want[100:-100], atol=2e-3)
    assert audio.planned_samples(audio.probe_audio(path)) == len(found)


def test_channels_are_averaged_or_chosen(tmp_path: Path) -> None:
    wave = tone(channels=3)
    path = write(tmp_path / "a.wav", wave)
    np.testing.assert_allclose(audio.read_audio(path), wave.mean(axis=1), atol=1e-7)
    np.testing.assert_array_equal(audio.read_audio(path, channel=2), wave[:, 2])
    error = refusal(path, channel=3)
    assert error.kind == "channel"
    assert "0 to 2" in str(error)


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "mp3"])
@pytest.mark.parametrize("rate", [16_000, 44_100])
def test_a_segment_is_that_part_of_the_file(tmp_path: Path, suffix: str, rate: int) -> None:
    path = write(tmp_path / f"a.{suffix}", tone(4 * rate), rate)
    whole = soundfile.read(path, dtype="float32")[0]
    part = audio.read_audio(path, start=1.25, end=2.5)
    want = audio.read_array("part", whole[int(1.25 * rate) : int(2.5 * rate)], rate)
    np.testing.assert_allclose(part, want, atol=1e-7)  # mpg123's last bit follows the read size


@pytest.mark.parametrize(
    ("start", "end"),
    [
        *[(-0.5, None), (1.0, None), (0.5, 0.5), (0.6, 0.2), (0.0, 1.2), (7.0, 9.0)],
        *[(float("nan"), None), (float("inf"), None), (0.0, float("inf")), (0.0, 1e300)],
    ],
)
def test_segments_outside_the_file(tmp_path: Path, start: float, end: float | None) -> None:
    path = write(tmp_path / "a.wav", tone())
    assert refusal(path, start=start, end=end).kind == "segment"


def test_a_rounded_end_is_the_end(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", tone())
    assert len(audio.read_audio(path, start=0.0, end=1.004)) == RATE


@pytest.mark.parametrize("rate", [16_000, 22_050])
def test_file_door_and_array_door_are_one(tmp_path: Path, rate: int) -> None:
    wave = tone(rate)
    path = write(tmp_path / "a.flac", wave, rate)
    np.testing.assert_array_equal(audio.read_audio(path), audio.read_array("a", wave, rate))
    doubled = audio.read_array("a", wave.astype(np.float64), rate)
    np.testing.assert_array_equal(audio.read_audio(path), doubled)


def test_arrays_are_not_changed() -> None:
    wave = tone()
    before = wave.copy()
    audio.read_array("a", wave)[:] = 0
    np.testing.assert_array_equal(wave, before)


@pytest.mark.parametrize(
    ("array", "rate", "kind"),
    [
        (np.zeros((2, 800), np.float32), RATE, "channel"),
        (np.zeros(800, np.int16), RATE, "dtype"),
        (np.zeros(0, np.float32), RATE, "empty"),
        (np.zeros(399, np.float32), RATE, "too_short"),
        (np.full(800, np.nan, np.float32), RATE, "nan"),
        (np.full(800, 1e300), RATE, "nan"),  # infinite in float32
        (np.full(800, 1e20, np.float32), RATE, "range"),
        (np.zeros(800, np.float32), 999, "rate"),
        (np.zeros(800, np.float32), 768_001, "rate"),
        (np.zeros(800, np.float32), 16_000.5, "rate"),
    ],
)
def test_unusable_arrays(array: np.ndarray, rate: float, kind: str) -> None:
    with pytest.raises(AudioError, match="clip7") as caught:
        audio.read_array("clip7", array, rate)  # type: ignore[arg-type]
    assert caught.value.kind == kind


def test_unusable_files(tmp_path: Path) -> None:
    (tmp_path / "nothing.wav").touch()
    (tmp_path / "text.wav").write_text("RIFF me not")
    (tmp_path / "folder.wav").mkdir()
    os.mkfifo(tmp_path / "pipe.wav")
    wave = tone()
    broken = wave.copy()
    broken[77] = np.inf
    kinds = {
        tmp_path / "gone.wav": "missing",
        tmp_path / "nothing.wav": "empty",
        tmp_path / "text.wav": "unreadable",
        tmp_path / "folder.wav": "directory",
        tmp_path / "pipe.wav": "unreadable",
        tmp_path / f"{'long' * 80}.wav": "unreadable",
        Path(write(tmp_path / "empty.wav", wave[:0])): "empty",
        Path(write(tmp_path / "short.wav", wave[:399])): "too_short",
        Path(write(tmp_path / "inf.wav", broken, subtype="FLOAT")): "nan",
        Path(write(tmp_path / "slow.wav", wave, 999)): "rate",
        Path(write(tmp_path / "fast.wav", wave, 768_001)): "rate",
    }
    assert {path: refusal(path).kind for path in kinds} == kinds


@pytest.mark.parametrize("name", ["a\0b.wav", "a\ud800.wav"])
def test_names_that_no_file_can_have(name: str) -> None:
    with pytest.raises(AudioError) as caught:
        audio.read_audio(name)
    assert caught.value.kind in {"missing", "unreadable"}


def test_399_samples_fail_and_400_do_not(tmp_path: Path) -> None:
    assert len(audio.read_audio(write(tmp_path / "a.wav", tone(400)))) == 400
    # 1102 samples at 44.1 kHz are 399.8 at 16 kHz: rounded up, as the resampler does
    assert len(audio.read_audio(write(tmp_path / "b.wav", tone(1_102), 44_100))) == 400
    assert refusal(write(tmp_path / "c.wav", tone(1_099), 44_100)).kind == "too_short"


def test_permission_denied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.wav", tone())

    def deny(self: Path, *_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", deny)  # chmod stops nobody who tests as root
    assert refusal(path).kind == "permission"


@pytest.mark.parametrize(
    ("suffix", "subtype"),
    [
        *[("wav", "PCM_16"), ("wav", "MS_ADPCM"), ("aiff", "PCM_16"), ("au", "PCM_16")],
        *[("w64", "PCM_16"), ("rf64", "PCM_16"), ("flac", "PCM_16"), ("mp3", "MPEG_LAYER_III")],
        *[("ogg", "VORBIS"), ("nist", "PCM_16"), ("voc", "PCM_16")],
    ],
)
@pytest.mark.parametrize("share", [0.5, 0.95])
def test_truncated_files_are_found(tmp_path: Path, suffix: str, subtype: str, share: float) -> None:
    path = tmp_path / f"a.{suffix}"
    soundfile.write(path, tone(5 * RATE), RATE, format=suffix.upper(), subtype=subtype)
    assert len(audio.read_audio(str(path))) >= 5 * RATE  # whole, it is fine
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    assert refusal(path).kind == "truncated"


@pytest.mark.parametrize("promise", [0xFFFFFFFF, 0x7FFFFFFF, 0])
def test_streamed_wav_headers_promise_nothing(tmp_path: Path, promise: int) -> None:
    """Recorders that write to a pipe cannot go back to fill in the length."""
    path = tmp_path / "a.wav"
    write(path, tone())
    content = bytearray(path.read_bytes())
    content[4:8] = content[40:44] = promise.to_bytes(4, "little")
    path.write_bytes(content)
    if promise:
        np.testing.assert_array_equal(audio.read_audio(str(path)), tone())
    else:  # libsndfile takes the header at its word
        assert refusal(path).kind in {"empty", "unreadable"}


def test_trailing_bytes_are_not_truncation(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    write(path, tone())
    path.write_bytes(path.read_bytes() + b"LIST tags of some editor")
    np.testing.assert_array_equal(audio.read_audio(str(path)), tone())


def test_the_content_decides_and_not_the_name(tmp_path: Path) -> None:
    path = tmp_path / "a.raw"
    soundfile.write(path, tone(), RATE, format="FLAC")
    np.testing.assert_array_equal(audio.read_audio(str(path)), tone())


def test_silence_is_a_warning(tmp_path: Path) -> None:
    assert audio.audio_warnings(np.zeros(800, np.float32)) == ("silent",)
    assert audio.audio_warnings(np.full(800, 0.25, np.float32)) == ("silent",)
    assert audio.audio_warnings(tone()) == ()


def test_a_header_and_the_hash_of_the_bytes(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", tone(channels=2), 44_100)
    with audio.open_audio(path) as opened, opened.opened() as recording:
        assert opened.sha256 == hashlib.sha256(Path(path).read_bytes()).hexdigest()
        np.testing.assert_array_equal(opened.read(recording), audio.read_audio(path))
    found = audio.probe_audio(path)
    assert (found.rate, found.channels, found.frames) == (44_100, 2, RATE)


def test_the_hash_of_an_array_knows_its_rate() -> None:
    wave = tone()
    assert audio.hash_array(wave) == audio.hash_array(wave.astype(np.float64))
    assert audio.hash_array(wave) != audio.hash_array(wave, 8_000)
