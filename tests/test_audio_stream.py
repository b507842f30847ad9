"""Files piece by piece: the same samples as whole, in memory that is bounded and known before."""

from __future__ import annotations

import errno
import io
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from exhubert_features import audio
from exhubert_features.audio import arrays, ffmpeg, libsndfile, memory
from exhubert_features.errors import AudioError

DATA = Path(__file__).parent / "data" / "audio"
FORMATS = [("wav", 16_000, 1), ("flac", 44_100, 2), ("ogg", 22_050, 1), ("mp3", 44_100, 1)]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("stream")
    generator = np.random.default_rng(0)
    paths = []
    for suffix, rate, channels in FORMATS:
        path = folder / f"a.{suffix}"
        soundfile.write(path, generator.uniform(-0.5, 0.5, (9 * rate, channels)), rate)
        paths.append(str(path))
    return [*paths, str(DATA / "lame_variable_bare.mp3"), str(DATA / "lame_free_bare.mp3")]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    index=st.integers(0, len(FORMATS) + 1),
    start=st.floats(0, 2),
    length=st.none() | st.floats(0.05, 1),
    channel=st.sampled_from([None, 0]),
)
def test_blocks_are_the_whole_in_pieces(
    files: list[str], index: int, start: float, length: float | None, channel: int | None
) -> None:
    end = None if length is None else start + length
    part = {"start": start, "end": end, "channel": channel}
    whole = audio.read_audio(files[index], **part)
    pieces = [*audio.read_blocks(files[index], **part)]
    np.testing.assert_array_equal(np.concatenate(pieces), whole)


@pytest.mark.parametrize("size", [1_000, 7_777, 1 << 18])
def test_the_size_of_blocks_decides_nothing(
    files: list[str], size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    want = [audio.read_audio(path) for path in files]
    array = audio.read_array("a", want[0], 44_100)
    for module in (libsndfile, arrays, ffmpeg):
        monkeypatch.setattr(module, "BLOCK_VALUES", size)
    for path, whole in zip(files, want, strict=True):
        found = np.concatenate([*audio.read_blocks(path)])
        atol = 1e-6 if path.endswith("mp3") else 0  # mpg123's last bit follows the read size
        np.testing.assert_allclose(found, whole, rtol=0, atol=atol)
    np.testing.assert_array_equal(audio.read_array("a", want[0], 44_100), array)


def test_a_stream_ends_with_the_error_the_whole_has(tmp_path: Path) -> None:
    wave = np.random.default_rng(0).uniform(-0.5, 0.5, 3 << 20).astype(np.float32)
    wave[-5] = np.nan
    path = str(tmp_path / "a.wav")
    soundfile.write(path, wave, 16_000, subtype="FLOAT")
    blocks = audio.read_blocks(path)
    np.testing.assert_array_equal(next(blocks), wave[: 1 << 20])
    with pytest.raises(AudioError, match=f"nan at sample {len(wave) - 5}"):
        list(blocks)
    with pytest.raises(AudioError, match=f"nan at sample {len(wave) - 5}"):
        audio.read_audio(path)


def test_a_stream_that_is_left_closes_its_file(files: list[str]) -> None:
    blocks = audio.read_blocks(files[0])
    next(blocks)
    blocks.close()  # type: ignore[attr-defined]
    with pytest.raises(StopIteration):
        next(blocks)


def test_too_short_streams_are_refused(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.zeros(399), 16_000)
    with pytest.raises(AudioError) as caught:
        list(audio.read_blocks(str(tmp_path / "a.wav")))
    assert caught.value.kind == "too_short"


def write_long(path: Path, minutes: int, rate: int) -> None:
    with soundfile.SoundFile(path, "w", rate, 1, "PCM_16") as file:
        minute = np.random.default_rng(0).uniform(-0.5, 0.5, 60 * rate)
        for _ in range(minutes):
            file.write(minute)


def test_memory_is_bounded(tmp_path: Path) -> None:
    write_long(tmp_path / "a.wav", 5, 44_100)
    audio.read_audio(str(tmp_path / "a.wav"), end=1.0)
    tracemalloc.start()
    wave = audio.read_audio(str(tmp_path / "a.wav"))
    whole = tracemalloc.get_traced_memory()[1]
    tracemalloc.reset_peak()
    held = tracemalloc.get_traced_memory()[0]
    samples = sum(len(block) for block in audio.read_blocks(str(tmp_path / "a.wav")))
    streamed = tracemalloc.get_traced_memory()[1] - held
    tracemalloc.stop()
    assert len(wave) == samples == 5 * 60 * 16_000
    assert whole < wave.nbytes + 25e6  # blocks of 4 MB, a few of them at once
    assert streamed < 25e6


def test_a_clip_beyond_the_limit_is_refused_before_decoding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.wav"
    write_long(path, 2, 8_000)
    limit = 2 * 60 * 16_000 * 4
    assert audio.read_audio(str(path), limit=limit).nbytes == limit
    assert len(audio.read_audio(str(path), end=60.0, limit=limit - 1)) == 60 * 16_000
    monkeypatch.setattr(libsndfile, "_blocks", None)  # nothing is decoded from here on
    with pytest.raises(AudioError, match=r"a\.wav has 2 minutes .* start and end") as caught:
        audio.read_audio(str(path), limit=limit - 1)
    assert caught.value.kind == "memory"
    with pytest.raises(AudioError) as caught:
        audio.read_array("clip", np.zeros(800), limit=800 * 4 - 1)
    assert caught.value.kind == "memory"


def test_files_that_do_not_say_their_length_are_bounded_while_they_are_read() -> None:
    path = str(DATA / "lame_free_bare.mp3")
    assert len(audio.read_audio(path, limit=2 * 49_536 * 4)) == 49_536
    with pytest.raises(AudioError) as caught:
        audio.read_audio(path, limit=2 * 49_536 * 4 - 8)
    assert caught.value.kind == "memory"


@pytest.mark.parametrize(
    ("meminfo", "cgroup", "want"),
    [
        ("MemTotal: 9 kB\nMemAvailable:    4000 kB\n", {}, 2_048_000),
        ("MemAvailable: 4000 kB\n", {"memory.max": "1000000", "memory.current": "400000"}, 300_000),
        ("MemAvailable: 4000 kB\n", {"memory.max": "max", "memory.current": "4"}, 2_048_000),
        ("MemAvailable: 4000 kB\n", {"memory.max": "100", "memory.current": "400"}, 0),
        (
            "MemAvailable: 4000 kB\n",
            {
                "memory.max": "1000000",
                "memory.current": "999999",
                "memory.stat": "anon 5\nactive_file 299999\ninactive_file 100000\n",
            },
            200_000,
        ),
        ("", {}, memory.FALLBACK),
    ],
)
def test_the_limit_is_half_of_what_is_free(
    monkeypatch: pytest.MonkeyPatch, meminfo: str, cgroup: dict[str, str], want: int
) -> None:
    texts = {"meminfo": meminfo, **cgroup}
    monkeypatch.setattr(memory, "_text", lambda path: texts.get(Path(path).name, ""))
    assert memory.memory_limit() == want


def test_the_tightest_group_of_a_job_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    job = "/sys/fs/cgroup/memory/slurm/job_7"
    texts = {
        "/proc/meminfo": "MemAvailable: 4000 kB\n",
        "/proc/self/cgroup": "4:memory:/slurm/job_7/step_0\n0::/\n",
        f"{job}/memory.limit_in_bytes": "1000000",
        f"{job}/memory.usage_in_bytes": "900000",
        f"{job}/memory.stat": "active_file 1\ntotal_active_file 300000\ninactive_file 2\n",
        f"{job}/step_0/memory.limit_in_bytes": "9223372036854771712",
        f"{job}/step_0/memory.usage_in_bytes": "5",
    }
    monkeypatch.setattr(memory, "_text", lambda path: texts.get(str(Path(path)), ""))
    assert memory.memory_limit() == (1_000_000 - (900_000 - 300_002)) // 2


class FailsOnce(io.FileIO):
    """A file whose read of that number is refused by the system."""

    def __init__(self, path: Path, number: int) -> None:
        super().__init__(path)
        self.left = number

    def readinto(self, buffer: Any) -> int | None:  # type: ignore[override]
        self.left -= 1
        if self.left == -1:
            raise OSError(errno.EIO, "Input/output error")
        return super().readinto(buffer)


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.ogg", "a.aiff", "lame_variable.mp3"])
def test_an_error_of_the_disk_is_no_shorter_recording(tmp_path: Path, name: str) -> None:
    path = DATA / name
    if not path.exists():
        path = tmp_path / name
        soundfile.write(path, np.random.default_rng(0).normal(0, 0.1, 9_000), 22_050)

    def read(number: int) -> int:
        file = FailsOnce(path, number)
        raw = io.BufferedReader(file, buffer_size=16)
        with libsndfile.open_with_libsndfile(str(path), raw) as recording:
            assert sum(map(len, recording.decode(0, recording.frames or 1 << 40))) > 8_000
        return number - file.left

    reads = read(1 << 30)
    assert reads > 3
    for number in range(reads):
        with pytest.raises(OSError, match="Input/output"):
            read(number)


def test_the_limit_follows_ulimit(monkeypatch: pytest.MonkeyPatch) -> None:
    resource = pytest.importorskip("resource")
    texts = {"statm": "1000 1 1 1", "meminfo": "MemAvailable: 400000000 kB"}
    monkeypatch.setattr(memory, "_text", lambda path: texts.get(Path(path).name, ""))
    monkeypatch.setattr(resource, "getrlimit", lambda _: (10**9, resource.RLIM_INFINITY))
    page = resource.getpagesize()
    assert memory.memory_limit() == (10**9 - 1000 * page) // 2
