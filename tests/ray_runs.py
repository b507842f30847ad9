"""Runs on Ray: what they read, what they must have made, and the command as a process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import soundfile
from waves import noise

from exhubert_features import FeatureStore
from exhubert_features.store.verify import verify

ROOT = Path(__file__).parents[1]
CLIPS = 48
FAILED = {"broken.wav"}
# One window at a time: then a clip has the same bits whatever block it is in.
OPTIONS = ["--device", "cpu", "--batch-size", "1", "--workers", "1"]


def write_corpus(folder: Path) -> Path:
    folder.mkdir()
    for index in range(CLIPS):
        soundfile.write(folder / f"{index:02d}.wav", noise(4_000 + index, index), 16_000)
    (folder / "broken.wav").write_bytes(b"RIFF")
    return folder


def require_same(path: Path, expected: FeatureStore, *, without: set[str] = frozenset()) -> None:  # type: ignore[assignment]
    """0 lost, 0 doubled, 0 wrong; nothing but ``without`` is a failure beyond the usual ones."""
    assert verify(path, deep=True).problems == ()
    store = FeatureStore(path)
    wanted = [name for name in expected.ids if name not in without]
    assert sorted(store.ids) == sorted(wanted)
    place = {name: row for row, name in enumerate(store.ids)}
    mine = [place[name] for name in wanted]
    theirs = [row for row, name in enumerate(expected.ids) if name not in without]
    for layer in expected.layers:
        np.testing.assert_array_equal(
            store.matrix(layer=layer)[mine], expected.matrix(layer=layer)[theirs]
        )
    np.testing.assert_array_equal(store.logits()[mine], expected.logits()[theirs])
    assert {failure.id for failure in store.failures} == FAILED | without


def extract(corpus: Path, store: Path, options: list[str], *more: str) -> subprocess.Popen[str]:
    """Run the command in a process group of its own."""
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{os.environ.get('PYTHONPATH', '')}"}
    return subprocess.Popen(
        [
            *(sys.executable, "-m", "exhubert_features", "extract", str(corpus), "-o", str(store)),
            *(*options, "--engine", "ray", "--actors", "2", "--shard-clips", "4", *more),
        ],
        env={**environment, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def wait_for_shards(store: Path, number: int, process: subprocess.Popen[str]) -> None:
    while len(list((store / "shards").glob("*.h5"))) < number:
        assert process.poll() is None, process.communicate()
        time.sleep(0.1)


def members(group: int) -> list[str]:
    """Processes of a session: the command, Ray, and its actors."""
    found = subprocess.run(
        ["ps", "-ww", "-eo", "sid=,args="], capture_output=True, text=True
    ).stdout
    return [line for line in found.splitlines() if line.split()[0] == str(group)]


def kill_one(group: int, words: str) -> None:
    """Kill the process of a session in whose command line these words are."""
    listed = subprocess.run(["ps", "-ww", "-eo", "sid=,pid=,args="], capture_output=True, text=True)
    rows = [line.split(None, 2) for line in listed.stdout.splitlines()]
    (victim,) = [int(pid) for sid, pid, args in rows if sid == str(group) and words in args]
    os.kill(victim, signal.SIGKILL)


def gone(group: int) -> bool:
    for _ in range(1200):  # Ray's own agents take about a minute after a kill
        if not members(group):
            return True
        time.sleep(0.1)
    return False


def require_an_error(process: subprocess.Popen[str], seconds: float, name: str) -> None:
    """The command says in one line of its own, and soon, that a process of Ray is gone."""
    begun = time.monotonic()
    _, said = process.communicate(timeout=300)
    assert time.monotonic() - begun < seconds
    assert process.returncode == 1, said
    assert said.count("exhubert: error:") == 1 and "Traceback" not in said
    assert f"its {name} at" in said and "Run the same command again" in said
