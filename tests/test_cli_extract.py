"""``exhubert extract`` as a user meets it: plan, progress, failures, resuming, Ctrl-C."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest
import soundfile
from waves import noise

from exhubert_features import FeatureStore
from exhubert_features.cli import main
from exhubert_features.cli.extracting import FAILURES_SHOWN, FailureCounts
from exhubert_features.cli.interrupt import Interrupt
from exhubert_features.cli.wording import count, duration, size
from exhubert_features.extraction import progress
from exhubert_features.extraction.progress import Progress
from exhubert_features.records import ClipFailure


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    folder = tmp_path / "audio"
    folder.mkdir()
    for index in range(5):
        soundfile.write(folder / f"{index}.wav", noise(16_000 + index, index), 16_000)
    return folder


def run(*arguments: object) -> int:
    return main(["extract", *map(str, arguments), "--device", "cpu"])


def test_extract_and_resume(
    corpus: Path, two_layers: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = tmp_path / "store"
    assert run(corpus, "-o", store, "--model", two_layers, "--pools", "mean,std") == 0
    out, err = capsys.readouterr()
    assert "5 clips, 5.0 s of audio" in out
    assert "free" in out
    assert str(two_layers) in out
    assert "float32 on cpu" in out
    assert "5 of 5 clips" in err
    found = FeatureStore(store)
    assert sorted(found.ids) == [f"{index}.wav" for index in range(5)]
    assert found["0.wav"].pooled.shape == (3, 2, 32)
    soundfile.write(corpus / "new.wav", noise(20_000), 16_000)
    assert run(corpus, "-o", store, "--model", two_layers, "--pools", "mean,std") == 0
    out, err = capsys.readouterr()
    assert "Plan: 1 clip, 1.2 s" in out
    assert "In the store already: 5 clips" in out
    assert "1 of 1 clip" in err
    assert len(FeatureStore(store)) == 6


def test_failures_are_listed_and_tried_again(
    corpus: Path, two_layers: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = tmp_path / "store"
    (corpus / "bad.wav").write_text("this is text")
    (corpus / "notes.txt").write_text("not audio, and not taken for it")
    soundfile.write(corpus / "quiet.wav", np.zeros(8_000), 16_000)
    assert run(corpus, "-o", store, "--model", two_layers) == 3
    out, err = capsys.readouterr()
    assert "Cannot be read: 1 clip" in out
    assert "not those of audio: 1" in out
    assert "1 silent clip, such as quiet.wav" in out
    assert "Failed: 1 of 7 clips" in err
    assert "unreadable: 1" in err
    assert str(corpus / "bad.wav") in err
    assert [failure.id for failure in FeatureStore(store).failures] == ["bad.wav"]
    soundfile.write(corpus / "bad.wav", noise(8_000), 16_000)
    assert run(corpus, "-o", store, "--model", two_layers) == 0
    assert FeatureStore(store).failures == ()


def test_many_failures_are_abridged(
    corpus: Path, two_layers: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for index in range(8):
        soundfile.write(corpus / f"short{index}.wav", noise(100), 16_000)
    assert run(corpus, "-o", tmp_path / "store", "--model", two_layers) == 3
    _, err = capsys.readouterr()
    assert "too_short: 8" in err
    assert "and 3 more" in err
    assert "exhubert inspect" in err


def test_strict_stops(corpus: Path, two_layers: Path, tmp_path: Path) -> None:
    (corpus / "bad.wav").write_text("this is text")
    assert run(corpus, "-o", tmp_path / "store", "--model", two_layers, "--strict") == 3
    assert not (tmp_path / "store").exists()


def test_all_options_reach_the_store(corpus: Path, two_layers: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    soundfile.write(corpus / "long.wav", noise(100_000), 16_000)
    options = ["--layers", "0-1", "--pool", "max,mean", "--frames", "last", "--dtype", "float32"]
    options += ["--preprocess", "masked", "--window", "2", "--hop", "1.5", "--segments"]
    options += ["--workers", "1", "--batch-size", "3", "--channel", "0", "--shard-clips", "2"]
    assert run(corpus, "-o", store, "--model", two_layers, *options) == 0
    found = FeatureStore(store)
    assert (found.layers, found.pools, found.frame_layers) == ((0, 1), ("max", "mean"), (2,))
    row = found["long.wav#0001"]
    assert (row.start, row.end) == (1.5, 3.5)
    assert row.pooled.dtype == np.float32
    assert row.frames is not None
    assert row.frames.shape == (1, 99, 32)
    assert found.fingerprint.spec.preprocess == "masked"
    assert len(list((store / "shards").rglob("*.h5"))) == 3


def test_other_settings_are_refused(
    corpus: Path, two_layers: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(corpus, "-o", tmp_path / "store", "--model", two_layers) == 0
    capsys.readouterr()
    assert (
        run(corpus, "-o", tmp_path / "store", "--model", two_layers, "--preprocess", "masked") == 1
    )
    out, err = capsys.readouterr()
    assert "spec.preprocess is 'card', not 'masked'" in err
    assert out == "", "no plan for what cannot be done"


@pytest.mark.parametrize(
    "options",
    [
        ["--layers", "1,2,x"],
        ["--layers", "7"],
        ["--pool", "median"],
        ["--hop", "5"],
        ["--window", "0.01"],
        ["--window", "inf"],
        ["--workers", "0"],
        ["--batch-size", "0"],
        ["--channel", "-1"],
    ],
)
def test_wrong_usage(corpus: Path, two_layers: Path, tmp_path: Path, options: list[str]) -> None:
    assert run(corpus, "-o", tmp_path / "store", "--model", two_layers, *options) == 2
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize(
    "command",
    [
        ["extract", "x.wav", "-o", "store", "--shard-clips", "0"],
        ["bench", "store", "--clips", "0"],
        ["bench", "extract", "--hidden", "-4"],
    ],
)
def test_no_number_below_1(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(command)
    assert ended.value.code == 2
    assert "is not above 0" in capsys.readouterr().err


def test_a_typo_is_wrong_usage(two_layers: Path, tmp_path: Path) -> None:
    assert run(tmp_path / "adio", "-o", tmp_path / "store", "--model", two_layers) == 2


def test_dry_run_writes_nothing(
    corpus: Path, two_layers: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(corpus, "-o", tmp_path / "store", "--model", two_layers, "--dry-run") == 0
    assert "Plan: 5 clips" in capsys.readouterr().out
    assert not (tmp_path / "store").exists()


def test_what_cannot_fit_is_refused(
    corpus: Path,
    two_layers: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 10**9 - 1000, 1000))
    assert run(corpus, "-o", tmp_path / "store", "--model", two_layers) == 1
    assert "1.0 KB free" in capsys.readouterr().err
    assert not (tmp_path / "store").exists()


def test_ctrl_c_keeps_what_is_done(
    corpus: Path,
    two_layers: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    update = Progress.update

    def update_and_press(self: Progress, seconds: float = 0.0, **counts: int) -> None:
        update(self, seconds, **counts)
        if counts and self._done == 2:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(Progress, "update", update_and_press)
    before = signal.getsignal(signal.SIGINT)
    store = tmp_path / "store"
    assert run(corpus, "-o", store, "--model", two_layers, "--batch-size", 1) == 130
    assert "holds 2 rows. Run the same command again" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGINT) is before
    monkeypatch.setattr(Progress, "update", update)
    assert run(corpus, "-o", store, "--model", two_layers) == 0
    assert "In the store already: 2 clips" in capsys.readouterr().out
    assert len(FeatureStore(store)) == 5


def test_the_second_ctrl_c_stops_at_once() -> None:
    with Interrupt() as interrupt:
        os.kill(os.getpid(), signal.SIGINT)
        assert interrupt.requested
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.slow
def test_killed_and_started_again(corpus: Path, two_layers: Path, tmp_path: Path) -> None:
    """The process dies in the middle; nothing stored is lost, nothing is there twice."""
    for index in range(60):
        soundfile.write(corpus / f"more{index}.wav", noise(48_000, index), 16_000)
    store = tmp_path / "store"
    options = [
        corpus,
        "-o",
        store,
        "--model",
        two_layers,
        "--shard-clips",
        "4",
        "--batch-size",
        "1",
    ]
    command = [sys.executable, "-m", "exhubert_features", "extract", *map(str, options)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        shards = store / "shards"
        deadline = time.monotonic() + 120
        while len(list(shards.rglob("*.h5"))) < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
    finally:
        process.kill()
        process.wait()
    kept = len(FeatureStore(store))
    assert 8 <= kept < 65
    assert run(*options) == 0
    found = FeatureStore(store)
    assert len(found) == len(set(found.ids)) == 65


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Clock:
    """Time that passes when told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(progress.time, "monotonic", lambda: self.now)


@pytest.mark.filterwarnings("error")
def test_progress_on_a_terminal() -> None:
    """Files hold a little more than their headers say, which the bar must not mind."""
    stream = Terminal()
    bar = Progress(4, 8.0, stream=stream)
    for failed in (0, 0, 0, 1):
        bar.update(2.1, clips=1, failed=failed)
    bar.close()
    text = stream.getvalue()
    assert "100%" in text
    for part in ("4 of 4 clips", "1 failed", "clips/s", "x real time"):
        assert part in text


def test_progress_elsewhere_is_a_line_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, stream = Clock(monkeypatch), io.StringIO()
    lines = Progress(1000, 2000.0, stream=stream)
    for second in range(100):
        clock.now = 1000.0 + second
        lines.update(2.0, clips=1, failed=second % 10 == 0)
    assert stream.getvalue().count("\n") == 3  # after 30, 60 and 90 s
    first = stream.getvalue().splitlines()[0]
    assert first == ("31 of 1,000 clips, 4 failed, 1.0 clips/s, 2.0x real time, about 16 min left")


def test_no_guess_at_the_time_left_before_it_is_worth_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first batch warms the model up and says nothing of the speed."""
    clock, stream = Clock(monkeypatch), Terminal()
    bar = Progress(1000, 2000.0, stream=stream)
    clock.now += 40.0
    bar.update(16.0, clips=8)
    assert "left" not in bar._state() and "real time" not in bar._state()
    clock.now += 2.0
    bar.update(16.0, clips=8)
    assert "8.0x real time" in bar._state() and "left" not in bar._state()
    clock.now += 8.0
    bar.update(64.0, clips=32)
    assert bar._state().endswith("about 4 min left")


def test_one_long_recording_shows_how_far_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, stream = Clock(monkeypatch), io.StringIO()
    lines = Progress(1, 3600.0, stream=stream)
    for _ in range(5):
        clock.now += 31.0
        lines.update(60.0)
    assert stream.getvalue().splitlines()[-1] == (
        "0 of 1 clip, 8 %, 1.9x real time, about 28 min left"
    )
    lines.update(3299.9, clips=1)  # headers are not exact
    lines.close()
    assert stream.getvalue().splitlines()[-1].startswith("1 of 1 clip, ")
    assert not stream.getvalue().splitlines()[-1].endswith("left")


def test_wording() -> None:
    assert [count(1, "clip"), count(2000, "clip")] == ["1 clip", "2,000 clips"]
    assert [duration(3.21), duration(90), duration(5400)] == ["3.2 s", "1.5 min", "1.50 h"]
    assert [size(12), size(12_345), size(3e12)] == ["12 bytes", "12.3 KB", "3.0 TB"]


@pytest.mark.slow
def test_bench_extract(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--clips", "5", "--hidden", "64", "--folder", str(tmp_path), "--device", "cpu"]
    assert main(["bench", "extract", "--json", *options]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["clips"] == 5
    assert found["whole_seconds"] > 0
    assert list(tmp_path.iterdir()) == []


def test_without_logits_no_layer_runs_in_vain(
    small_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from exhubert_features.model.layers import EncoderLayer

    ran: list[int] = []
    forward = EncoderLayer.forward
    monkeypatch.setattr(
        EncoderLayer, "forward", lambda self, *inputs: ran.append(1) or forward(self, *inputs)
    )
    soundfile.write(tmp_path / "clip.wav", np.full(8_000, 0.1, np.float32), 16_000)
    command = ["extract", str(tmp_path / "clip.wav"), f"--model={small_checkpoint}", "--layers=0-1"]
    for name, options, layers in (("all", [], 4), ("lowest", ["--no-logits"], 1)):
        ran.clear()
        assert main([*command, "-o", str(tmp_path / name), "--device=cpu", *options]) == 0
        assert len(ran) == layers
        assert FeatureStore(tmp_path / name).fingerprint.has_logits is not bool(options)


def test_failures_are_counted_and_only_the_first_are_held() -> None:
    failures = FailureCounts()
    for number in range(1000):
        kind = "missing" if number % 10 else "unreadable"
        failures.add([ClipFailure(id=f"{number}.wav", file="", kind=kind, reason="no")])
    assert failures.kinds == {"missing": 900, "unreadable": 100}
    told = [one.id for one in failures.first["unreadable"]]
    assert told == [f"{10 * number}.wav" for number in range(FAILURES_SHOWN)]
