"""The formats of phones and browsers: through ffmpeg where it is, else a failure that says so."""

from __future__ import annotations

import shutil
import stat
import sys
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile

from exhubert_features import audio
from exhubert_features.audio.ffmpeg import ffmpeg_format
from exhubert_features.errors import AudioError

DATA = Path(__file__).parent / "data" / "audio"
RATE = 16_000
LOSSLESS = ["lossless.m4a", "lossless.mkv", "lossless.mov"]
LOSSY = {"lossy.m4a": RATE, "lossy.aac": RATE, "lossy.wma": RATE, "lossy.webm": 48_000}
FORMATS = {
    "lossless.m4a": "mov",
    "lossless.mov": "mov",
    "lossy.m4a": "mov",
    "lossless.mkv": "matroska",
    "lossy.webm": "matroska",
    "lossy.wma": "asf",
    "lossy.aac": "aac",
    "noise.amr": "amr",
}
needs_ffmpeg = pytest.mark.skipif(
    shutil.which("ffmpeg") is None, reason="ffmpeg is not on the PATH"
)


def refusal(path: str | Path, **options: float) -> AudioError:
    with pytest.raises(AudioError) as caught:
        audio.read_audio(str(path), **options)  # type: ignore[arg-type]
    assert str(path) in str(caught.value)
    return caught.value


@pytest.mark.parametrize("path", sorted(DATA.glob("*.*")), ids=lambda path: path.name)
def test_the_first_bytes_tell_the_format(path: Path) -> None:
    with path.open("rb") as raw:
        assert ffmpeg_format(raw) == FORMATS.get(path.name, "")


@pytest.mark.parametrize("name", FORMATS)
def test_without_ffmpeg_the_failure_names_it(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    error = refusal(DATA / name)
    assert error.kind == "needs_ffmpeg"
    assert "Install ffmpeg" in str(error)
    with pytest.raises(AudioError) as caught:
        audio.probe_audio(str(DATA / name))
    assert caught.value.kind == "needs_ffmpeg"


@needs_ffmpeg
@pytest.mark.parametrize("name", LOSSLESS)
def test_lossless_formats_give_the_very_samples(name: str) -> None:
    want = soundfile.read(DATA / "source.flac", dtype="float32")[0]
    path = str(DATA / name)
    found = audio.probe_audio(path)
    assert (found.rate, found.channels, found.frames) == (RATE, 1, len(want))
    np.testing.assert_array_equal(audio.read_audio(path), want)
    part = audio.read_audio(path, start=0.25, end=0.5)
    np.testing.assert_array_equal(part, want[RATE // 4 : RATE // 2])


@needs_ffmpeg
@pytest.mark.parametrize("name", LOSSY)
def test_lossy_formats_keep_the_contract(name: str) -> None:
    path = str(DATA / name)
    found = audio.probe_audio(path)
    wave = audio.read_audio(path)
    assert found.rate == LOSSY[name]
    assert len(wave) == audio.planned_samples(found)
    assert abs(len(wave) - 3 * RATE) <= 2 * 1024  # the encoders' own padding
    assert np.abs(wave[: RATE // 2]).max() < 0.02 < 0.2 < wave[2 * RATE :].std() + 0.05
    np.testing.assert_array_equal(np.concatenate([*audio.read_blocks(path)]), wave)
    part = audio.read_audio(path, start=1.5, end=2.5)
    assert len(part) == RATE
    np.testing.assert_allclose(part[400:-400], wave[int(1.5 * RATE) : int(2.5 * RATE)][400:-400])
    for options in ({"start": -1.0}, {"start": 99.0}, {"end": 99.0}, {"start": 2.0, "end": 1.0}):
        assert refusal(path, **options).kind == "segment"
    assert refusal(path, channel=1).kind == "channel"


@needs_ffmpeg
def test_amr_is_read() -> None:
    assert audio.probe_audio(str(DATA / "noise.amr")).frames == 50 * 160
    assert len(audio.read_audio(str(DATA / "noise.amr"))) == RATE


@needs_ffmpeg
@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
@pytest.mark.parametrize("name", [name for name in FORMATS if name != "noise.amr"])
def test_truncated_files_are_found(tmp_path: Path, name: str, share: float) -> None:
    path = tmp_path / name
    content = (DATA / name).read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    assert refusal(path).kind in {"truncated", "unreadable"}


@needs_ffmpeg
@pytest.mark.parametrize(
    "name", ["-y.m4a", "a b'\"$(id);.m4a", "concat:a|b.m4a", "%03d.m4a", "é.m4a"]
)
def test_names_are_only_names(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(DATA / "lossless.m4a", tmp_path / name)
    assert len(audio.read_audio(name)) == RATE


@needs_ffmpeg
def test_a_file_without_audio_says_so(tmp_path: Path) -> None:
    content = (DATA / "lossless.m4a").read_bytes()
    (tmp_path / "a.m4a").write_bytes(content.replace(b"soun", b"vide"))
    assert refusal(tmp_path / "a.m4a").kind == "unreadable"


def fake_ffmpeg(folder: Path, monkeypatch: pytest.MonkeyPatch, body: str) -> str:
    """Put a program of ours in the place of ffmpeg; a file for it to read."""
    program = folder / "ffmpeg"
    program.write_text(
        f"#!{sys.executable}\nimport pathlib, struct, sys, time\n"
        f"pathlib.Path({str(folder / 'arguments')!r}).write_text(chr(10).join(sys.argv[1:]))\n"
        "out = sys.stdout.buffer\n"
        "header = lambda rate=16000: struct.pack('>4s5I', b'.snd', 24, 2**32 - 1, 6, rate, 1)\n"
        f"{body}\n"
    )
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(folder))
    path = folder / "a.m4a"
    shutil.copy(DATA / "lossless.m4a", path)
    return str(path)


def test_what_ffmpeg_may_do_is_fixed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = fake_ffmpeg(tmp_path, monkeypatch, "out.write(header() + bytes(64_000))")
    assert len(audio.read_audio(path)) == RATE
    arguments = (tmp_path / "arguments").read_text().splitlines()
    given = dict(pairwise(arguments))
    assert "-nostdin" in arguments
    assert given["-protocol_whitelist"] == "file"
    assert given["-f"] == "au"  # the last one, of the output; the input's stands before -i
    assert arguments[arguments.index("-i") - 2 :][:3] == ["-f", "mov", "-i"]
    assert given["-i"] == f"file:{path}"
    assert arguments[-1] == "pipe:1"


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        ("sys.exit(1)", "unreadable"),
        ("out.write(b'RIFF' + header()[4:] + bytes(60))", "unreadable"),
        ("out.write(header(999) + bytes(9999))", "rate"),
        ("out.write(header())", "empty"),
        ("out.write(header() + bytes(9999)); out.flush(); sys.exit(1)", "truncated"),
        ("out.write(header() + bytes(9999)); sys.stderr.write('[mov @ 0x1] bad')", "truncated"),
        ("sys.stderr.write('x' * 10_000_000); out.write(header() + bytes(9999))", "truncated"),
        ("out.write(header() + struct.pack('>f', float('nan')) * 999)", "nan"),
        ("out.write(header() + bytes(999))", "too_short"),
    ],
)
def test_whatever_ffmpeg_does_has_a_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str, kind: str
) -> None:
    assert refusal(fake_ffmpeg(tmp_path, monkeypatch, body)).kind == kind


def test_ffmpeg_is_stopped_when_there_is_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = fake_ffmpeg(
        tmp_path, monkeypatch, "out.write(header())\nwhile True: out.write(bytes(1 << 16))"
    )
    begin = time.monotonic()
    assert len(audio.read_audio(path, start=1.0, end=3.0)) == 2 * RATE
    error = refusal(path, limit=1 << 24)  # a file that never ends
    assert error.kind == "memory"
    assert time.monotonic() - begin < 20
