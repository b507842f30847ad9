"""A clip that kills the process kills it twice at most; all others are stored."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import soundfile
from store_fakes import FakeExtraction, features_of, make_extraction

from exhubert_features import FeatureStore
from exhubert_features.checkpoint import write_random_checkpoint
from exhubert_features.store import ShardLimits, verify


@dataclass
class Deadly(FakeExtraction):
    """Kills its process while it decodes one clip."""

    deadly: str = ""

    def _result(self, clip):  # type: ignore[no-untyped-def]
        if clip.id == self.deadly:
            os.kill(os.getpid(), signal.SIGKILL)
        return [features_of(clip, self.fingerprint)]


def run(store: Path, deadly: str, clips: int = 40, prefix: str = "clip") -> int:
    """Write in a child; how it ended."""
    child = os.fork()
    if not child:
        code = 1  # an error must not let the child go on as a second pytest
        try:
            plan = make_extraction(clips, prefix=prefix)
            source = Deadly(plan.clips, deadly=deadly, ahead=5)
            FeatureStore.write(store, source, limits=ShardLimits(clips=4))
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_a_clip_that_kills_is_left_out(tmp_path: Path) -> None:
    store = tmp_path / "store"
    assert run(store, "clip_011") == -9
    assert run(store, "clip_011") == -9  # the others of those in hand are done before it
    assert len(FeatureStore(store)) >= 39 - 5
    assert run(store, "clip_011") == 0
    opened = FeatureStore(store)
    assert len(opened) == 39 and "clip_011" not in opened
    (failure,) = opened.failures
    assert (failure.id, failure.kind) == ("clip_011", "killed")
    assert "alone in work" in failure.reason and "start and end columns" in failure.reason
    assert verify(store, deep=True).problems == ()
    # Tried once more, alone; now it does not kill.
    assert run(store, "") == 0
    opened = FeatureStore(store)
    assert len(opened) == 40 and not opened.failures
    assert not list(store.glob(".*.tmp"))


def test_a_clip_left_out_does_not_take_others_along_when_tried_again(tmp_path: Path) -> None:
    store = tmp_path / "store"
    ends = [run(store, "clip_011") for _ in range(3)]
    assert ends == [-9, -9, 0]
    assert run(store, "clip_011", clips=60) == -9
    assert len(FeatureStore(store)) == 59  # all new ones came before it


def test_a_kill_that_no_clip_is_to_blame_for_leaves_none_out(tmp_path: Path) -> None:
    store = tmp_path / "store"
    assert run(store, "clip_011") == -9
    assert run(store, "") == 0
    opened = FeatureStore(store)
    assert len(opened) == 40 and not opened.failures


def test_writers_of_other_parts_do_not_clear_anybody(tmp_path: Path) -> None:
    """As in an array of a scheduler: others begin, end and are killed in between."""
    store = tmp_path / "store"
    others = iter(range(100))

    def another() -> None:
        assert run(store, "", prefix=f"part-{next(others)}") == 0

    assert run(store, "clip_011") == -9
    another()
    assert run(store, "other_003", prefix="other") == -9
    assert run(store, "clip_011") == -9
    another()
    assert run(store, "clip_011") == 0
    another()
    assert run(store, "other_003", prefix="other") == -9
    another()
    assert run(store, "other_003", prefix="other") == 0
    opened = FeatureStore(store)
    assert len(opened) == 4 * 40 + 39 + 39
    assert {one.id: one.kind for one in opened.failures} == dict.fromkeys(
        ("clip_011", "other_003"), "killed"
    )
    assert not list(store.glob(".*.tmp"))


def test_notes_of_another_machine_are_no_proof_until_two_agree(tmp_path: Path) -> None:
    """Its lock may not show here, and it may be at the clip just now."""
    store = tmp_path / "store"
    FeatureStore.write(store, make_extraction(1))
    note = json.dumps({"alone": "clip_005", "hand": ["clip_005"]})
    (store / ".in-hand.elsewhere-00000000.tmp").write_text(note)
    assert run(store, "") == 0
    assert len(FeatureStore(store)) == 40  # tried, alone
    assert not list(store.glob(".*.tmp"))
    for number in range(2):
        (store / f".in-hand.elsewhere-{number:08}.tmp").write_text(note.replace("005", "050"))
    assert run(store, "", clips=60) == 0
    (failure,) = FeatureStore(store).failures
    assert (failure.id, failure.kind) == ("clip_050", "killed")


def test_a_writer_that_has_just_begun_elsewhere_keeps_its_note(tmp_path: Path) -> None:
    store = tmp_path / "store"
    FeatureStore.write(store, make_extraction(1))
    note = store / ".in-hand.elsewhere-00000000.tmp"
    for content in ("", json.dumps({"alone": "", "hand": []})):
        note.write_text(content)
        FeatureStore.write(store, make_extraction(5))
        assert note.exists()
    os.utime(note, (0, 0))  # whoever wrote it died long ago
    FeatureStore.write(store, make_extraction(6))
    assert not note.exists()


def test_an_end_in_order_leaves_nobody_suspected(tmp_path: Path) -> None:
    source = make_extraction(20, interrupt_at=10, ahead=5)
    with pytest.raises(KeyboardInterrupt):
        FeatureStore.write(tmp_path / "store", source)
    assert not list((tmp_path / "store").glob(".*.tmp"))
    again = make_extraction(20)
    FeatureStore.write(tmp_path / "store", again)
    assert again.computed == sorted(again.computed)


def test_a_writer_that_ends_while_another_begins_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = tmp_path / "store" / ".in-hand.b996faf2-00000000.tmp"
    before = Path.glob
    monkeypatch.setattr(
        Path, "glob", lambda self, pattern: [*before(self, pattern), *(
            [gone] if pattern.startswith(".in-hand") else [])]
    )  # fmt: skip
    assert len(FeatureStore.write(tmp_path / "store", make_extraction(3))) == 3


CHILD = """
import resource, sys
from exhubert_features.cli import main
import torch, soundfile, h5py, pandas
def limited():
    pages = int(open("/proc/self/statm").read().split()[0])
    most = pages * resource.getpagesize() + int(sys.argv[1])
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
limited()
sys.exit(main(sys.argv[2:]))
"""


@pytest.mark.slow
def test_ten_hours_in_little_memory(tmp_path: Path) -> None:
    """2.3 GB of samples where 900 MB are free: a failure that says so; the others are stored."""
    model = write_random_checkpoint(tmp_path / "model", layers=2)
    noise = np.random.default_rng(0).normal(0, 0.1, 16_000).astype(np.float32)
    for name in "acd":
        soundfile.write(tmp_path / f"{name}.wav", noise, 16_000)
    with soundfile.SoundFile(tmp_path / "b.flac", "w", 8_000, 1) as long:
        for _ in range(600):
            long.write(np.zeros(8_000 * 60, np.int16))
    files = [str(tmp_path / name) for name in ("a.wav", "b.flac", "c.wav", "d.wav")]
    command = ["extract", *files, "-o", str(tmp_path / "store"), "--model", str(model)]
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(900 << 20), *command, "--device", "cpu"],
        capture_output=True, text=True, timeout=280,
    )  # fmt: skip
    assert done.returncode == 3, done.stderr[-2000:]
    assert "Traceback" not in done.stderr
    store = FeatureStore(tmp_path / "store")
    assert len(store) == 3
    (failure,) = store.failures
    assert failure.kind == "memory" and "600 minutes" in failure.reason


def test_what_is_noted_is_small_and_json(tmp_path: Path) -> None:
    store, seen = tmp_path / "store", []

    def look(state: object) -> None:
        (path,) = store.glob(".in-hand.*.tmp")
        noted = json.loads(path.read_text())
        seen.append(len(noted["hand"]))
        assert noted["alone"] == ""

    FeatureStore.write(store, make_extraction(1_200, ahead=1_100), on_progress=look)
    assert max(seen) == 1_000
