"""MP3 files with and without a header that counts are read to their real end."""

from __future__ import annotations

import io
import shutil
import struct
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile

from exhubert_features import audio
from exhubert_features.audio.libsndfile import _JoinedRuns
from exhubert_features.audio.mpeg import JUNK, _parse_header, after_id3, scan_mpeg
from exhubert_features.errors import AudioError

DATA = Path(__file__).parent / "data" / "audio"
RATE = 16_000
# Counted by ffprobe (packets times samples); with a header the encoder's delay is cut off.
LENGTHS = {
    "lame_constant_bare.mp3": 86 * 576,
    "lame_variable_bare.mp3": 86 * 576,
    "lame_variable.mp3": 3 * RATE,
    "lame_free_bare.mp3": 86 * 576,
    "lame_constant_44100_bare.mp3": 308 * 1152,
    "sox_constant_bare.mp3": 86 * 576,
    "ffmpeg_variable_bare.mp3": 86 * 576,
    "ffmpeg_variable.mp3": 3 * RATE,
    "ffmpeg.mp2": 42 * 1152,
}
HEADED = ["lame_variable.mp3", "ffmpeg_variable.mp3"]


def check(path: Path, frames: int) -> np.ndarray:
    """Plan, read and cut a file, and see that all agree; return its samples."""
    found = audio.probe_audio(str(path))
    assert found.frames == frames
    wave = audio.read_audio(str(path))
    assert len(wave) == audio.planned_samples(found) == -(-frames * RATE // found.rate)
    part = audio.read_audio(str(path), start=1.0, end=2.0)
    assert len(part) == RATE
    if found.rate == RATE:  # else the edges of the part are resampled with silence beside them
        np.testing.assert_array_equal(part, wave[RATE : 2 * RATE])
    return wave


def refusal(path: Path) -> AudioError:
    with pytest.raises(AudioError) as probed:
        audio.probe_audio(str(path))
    with pytest.raises(AudioError) as caught:
        audio.read_audio(str(path))
    assert str(path) in str(caught.value)
    assert caught.value.kind == probed.value.kind
    return caught.value


@pytest.mark.parametrize("name", LENGTHS)
def test_files_of_every_encoder_are_read_to_their_end(name: str) -> None:
    wave = check(DATA / name, LENGTHS[name])
    loud = wave[int(1.2 * RATE) : int(2.8 * RATE)]
    assert np.sqrt(np.mean(loud**2)) == pytest.approx(0.22, abs=0.02)


def test_the_guess_that_was_believed_is_still_wrong() -> None:
    """Were it right, the tests here would show nothing."""
    guesses = {name: soundfile.info(DATA / name).frames for name in LENGTHS if "mp3" in name}
    assert guesses["lame_variable_bare.mp3"] < 0.6 * LENGTHS["lame_variable_bare.mp3"]
    assert guesses["ffmpeg_variable_bare.mp3"] < 0.6 * LENGTHS["ffmpeg_variable_bare.mp3"]
    name = "lame_constant_44100_bare.mp3"
    assert guesses[name] > LENGTHS[name] + 1152


@pytest.mark.parametrize("name", [name for name in LENGTHS if "free" not in name])
@pytest.mark.parametrize("share", [0.4, 0.8, 0.97])
def test_only_a_header_tells_of_a_cut(tmp_path: Path, name: str, share: float) -> None:
    content = (DATA / name).read_bytes()
    path = tmp_path / name
    path.write_bytes(content[: int(len(content) * share)])
    if name in HEADED:
        assert refusal(path).kind == "truncated"
        return
    frames = audio.probe_audio(str(path)).frames
    assert 0 < frames < LENGTHS[name]
    whole = audio.read_audio(str(DATA / name))
    found = audio.read_audio(str(path))
    np.testing.assert_allclose(found[:-3000], whole[: len(found) - 3000], atol=1e-6)


@pytest.mark.parametrize("name", ["lame_variable_bare.mp3", "lame_variable.mp3"])
def test_tags_are_no_audio(tmp_path: Path, name: str) -> None:
    content = (DATA / name).read_bytes()
    start = bytes(content[:2]) * 100  # what looks like a frame inside a tag is none
    tag = b"ID3\3\0\0\0\0\1\x48" + start
    for end in (b"TAG" + bytes(125), b"APETAGEX" + bytes(500), bytes(200_000), b"\xff\xfb\x90"):
        path = tmp_path / name
        path.write_bytes(tag + content + end)
        wave = check(path, LENGTHS[name])
        np.testing.assert_array_equal(wave, audio.read_audio(str(DATA / name)))


def test_files_put_end_to_end_are_read_to_the_end(tmp_path: Path) -> None:
    """The first one's header promises the first one only."""
    content = (DATA / "lame_variable.mp3").read_bytes()
    picture = b"ID3\3\0\0\0\x0a\0\0" + bytes(163_840)
    (tmp_path / "two.mp3").write_bytes(content + picture + content)
    frames = scan_mpeg(io.BytesIO(content)).frames
    assert frames is not None
    wave = check(tmp_path / "two.mp3", (2 * frames + 1) * 576)
    assert np.abs(wave[-2000:]).max() > 0.1


def with_vbri(content: bytes, frames: int) -> bytes:
    """Put the other kind of counting header before a file, as Fraunhofer's encoder does."""
    header = _parse_header(content[:4])
    assert header is not None
    frame = bytearray(content[:4] + bytes(header.size - 4))
    frame[36:42], frame[50:54] = b"VBRI\0\1", frames.to_bytes(4, "big")
    return bytes(frame) + content


def test_a_vbri_header_promises_too(tmp_path: Path) -> None:
    content = with_vbri((DATA / "lame_variable_bare.mp3").read_bytes(), 86)
    path = tmp_path / "a.mp3"
    path.write_bytes(content)
    check(path, 86 * 576)
    path.write_bytes(content[:-2000])
    assert "of 86 frames" in str(refusal(path))


def test_a_damaged_header_of_a_frame_costs_that_frame(tmp_path: Path) -> None:
    content = bytearray((DATA / "sox_constant_bare.mp3").read_bytes())
    content[40 * 144 : 40 * 144 + 4] = b"\0\0\0\0"
    (tmp_path / "a.mp3").write_bytes(content)
    check(tmp_path / "a.mp3", 85 * 576)


def test_much_that_is_no_audio_is_damage(tmp_path: Path) -> None:
    content = (DATA / "sox_constant_bare.mp3").read_bytes()
    (tmp_path / "a.mp3").write_bytes(content + b"\x55\xaa\xff\xfb" * JUNK + content)
    assert "no MPEG frames" in str(refusal(tmp_path / "a.mp3"))


@pytest.mark.parametrize(
    "content",
    [
        b"ID3\3\0\0\0\0\0\0" * 400_000,
        b"\xff" * 4_000_000,
        b"\xff\xf3\x48\xc4" * 1_000_000,
        b"\xff\xe3\x18\xc4" + b"\xff\xfb\x90\xc4" * 1_000_000,
    ],
)
def test_hostile_files_do_not_keep_us_busy(content: bytes) -> None:
    begin = time.process_time()
    scan_mpeg(io.BytesIO(content))
    assert time.process_time() - begin < 2  # measured: 0.01 to 0.3 s


def test_id3_lengths_have_seven_bits_a_byte() -> None:
    assert after_id3(io.BytesIO(b"ID3\3\0\0\0\0\1\x02" + bytes(400))) == 10 + 130
    assert after_id3(io.BytesIO(b"\xff\xfb")) == 0


def test_joined_runs_are_one_file() -> None:
    content = bytes(range(100))
    runs = _JoinedRuns(io.BytesIO(content), ((10, 20), (50, 55), (90, 100)), 1)
    want = content[10:20] + content[50:55] + content[90:]
    assert runs.read(100) == want
    for place in range(len(want)):
        assert runs.seek(place) == place
        assert runs.read(7) == want[place : place + 7]
    assert runs.seek(0, 2) == 25


def test_an_error_of_the_disk_is_no_end(monkeypatch: pytest.MonkeyPatch) -> None:
    from exhubert_features.audio import libsndfile

    def fail(raw: object, place: int, count: int) -> bytes:
        raise OSError(5, "Input/output error")

    runs = _JoinedRuns(io.BytesIO(bytes(10)), ((0, 10),), 1)
    monkeypatch.setattr(libsndfile, "read_at", fail)
    assert runs.read(4) == b""
    assert runs.error is not None and runs.error.errno == 5


def encode(tool: str, source: Path, target: Path, *options: str) -> None:
    program = shutil.which(tool)
    if program is None:
        pytest.skip(f"{tool} is not on the PATH")
    commands = {
        "lame": [*options, str(source), str(target)],
        "sox": [str(source), *options, str(target)],
        "ffmpeg": ["-nostdin", "-i", str(source), *options, str(target)],
    }
    subprocess.run([program, *commands[tool]], check=True, capture_output=True)


@pytest.mark.parametrize(
    ("tool", "options"),
    [
        *[("lame", ["-b", "64", "-t"]), ("lame", ["-V", "4", "-t"]), ("lame", ["-V", "4"])],
        *[("lame", ["--abr", "60", "-t"]), ("lame", ["-b", "64"]), ("sox", ["-C", "64"])],
        *[("sox", ["-C", "-4.2"]), ("ffmpeg", ["-b:a", "64k", "-write_xing", "0"])],
        *[("ffmpeg", ["-q:a", "4", "-write_xing", "0"]), ("ffmpeg", ["-q:a", "4"])],
    ],
)
@pytest.mark.parametrize("rate", [16_000, 44_100])
def test_files_made_here(tmp_path: Path, tool: str, options: list[str], rate: int) -> None:
    generator = np.random.default_rng(0)
    seconds = np.arange(20 * rate) / rate
    wave = np.where(seconds < 4, 0.001, 0.3) * generator.uniform(-1, 1, len(seconds))
    soundfile.write(tmp_path / "a.wav", wave, rate)
    target = tmp_path / "a.mp3"
    encode(tool, tmp_path / "a.wav", target, *options)
    stream = scan_mpeg(io.BytesIO(target.read_bytes()))
    assert stream.frames is not None
    found = check(target, len(wave) if stream.trimmed else stream.frames * stream.samples)
    assert 20 * RATE <= len(found) <= 20 * RATE + 3 * 1152


@pytest.mark.parametrize("name", ["lame_variable_bare.mp3", "lame_variable.mp3"])
def test_mp3_inside_a_wav_is_mp3(tmp_path: Path, name: str) -> None:
    content = (DATA / name).read_bytes()
    layer3 = struct.pack("<HHIIHHHHIHHH", 0x55, 1, RATE, 4000, 1, 0, 12, 1, 2, 144, 1, 1393)
    chunks = b"fmt " + struct.pack("<I", len(layer3)) + layer3
    chunks += b"fact" + struct.pack("<II", 4, 3 * RATE)
    chunks += b"data" + struct.pack("<I", len(content)) + content + b"LIST\x04\0\0\0abcd"
    path = tmp_path / "a.wav"
    path.write_bytes(b"RIFF" + struct.pack("<I", len(chunks) + 4) + b"WAVE" + chunks)
    assert soundfile.info(path).subtype == "MPEG_LAYER_III"
    wave = check(path, LENGTHS[name])
    np.testing.assert_array_equal(wave, audio.read_audio(str(DATA / name)))
