"""Kills, races, full and read-only disks: nothing lost, nothing doubled, nothing wrong."""

from __future__ import annotations

import errno
import os
import random
import resource
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from store_fakes import (
    FakeExtraction,
    features_of,
    make_clip,
    make_extraction,
    make_fingerprint,
    racing_extraction,
)
from test_store import check_same

from exhubert_features import FeatureStore
from exhubert_features.errors import StoreError
from exhubert_features.files import LEASE_SECONDS, publish
from exhubert_features.spec import ExtractionSpec
from exhubert_features.store import ShardLimits, merge, pack, verify
from exhubert_features.store.writer import Writer

KILLS = int(os.environ.get("EXHUBERT_KILLS", "36"))
FAKES = Path(__file__).with_name("store_fakes.py")


class LiveReader(threading.Thread):
    """Opens the store again and again and compares rows with what they must be."""

    def __init__(self, path: Path) -> None:
        super().__init__(daemon=True)
        self.path = path
        self.expected = {clip.id: clip for clip in racing_extraction().clips}
        self.seen: set[str] = set()
        self.errors: list[str] = []
        self.opened = 0
        self.stop = threading.Event()

    def run(self) -> None:
        while not self.stop.is_set():
            if (self.path / "store.json").exists():
                try:
                    self.look()
                except Exception as error:  # noqa: BLE001  any error at all is the finding
                    self.errors.append(repr(error))
            time.sleep(0.01)

    def look(self) -> None:
        store = FeatureStore(self.path)
        self.opened += 1
        if vanished := self.seen - set(store.ids):
            self.errors.append(f"lost {sorted(vanished)}")
        if len(set(store.ids)) < len(store):
            self.errors.append("doubled")
        self.seen.update(store.ids)
        for name in random.sample(store.ids, min(10, len(store))):
            expected = features_of(self.expected[name], store.fingerprint)
            if not np.array_equal(store[name].pooled, expected.pooled.astype("f2")):
                self.errors.append(f"wrong {name}")


def alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.fixture
def start_writer() -> Iterator[Callable[[Path], int]]:
    """Starts a writing process on a store, in milliseconds, and gives its id."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(FAKES.parents[1])}
    with subprocess.Popen(
        [sys.executable, str(FAKES)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    ) as nursery:
        assert nursery.stdin
        assert nursery.stdout

        def start(path: Path) -> int:
            nursery.stdin.write(f"{path}\n")
            nursery.stdin.flush()
            return int(nursery.stdout.readline())

        yield start
        nursery.stdin.close()


@pytest.mark.slow
def test_killed_and_racing_writers_lose_double_and_spoil_nothing(
    tmp_path: Path, start_writer: Callable[[Path], int]
) -> None:
    chance = random.Random(3)
    kills = rounds = 0
    while kills < KILLS:
        path = tmp_path / f"store_{rounds}"
        reader = LiveReader(path)
        reader.start()
        writers = [start_writer(path) for _ in range(3)]
        while kills < KILLS and len(reader.seen) < 119:
            time.sleep(chance.uniform(0.005, 0.12))
            victim = chance.randrange(3)
            if alive(writers[victim]):
                os.kill(writers[victim], 9)
                kills += 1
            writers[victim] = start_writer(path)
        deadline = time.monotonic() + 120
        while any(map(alive, writers)) and time.monotonic() < deadline:
            time.sleep(0.02)
        reader.stop.set()
        reader.join()
        reader.look()
        assert reader.errors == []
        assert reader.opened > 2
        check_whole(path)
        rounds += 1


def check_whole(path: Path) -> None:
    """All clips are there once and right, by every door, and the next run has nothing to do."""
    expected = racing_extraction()
    expected.clips = [clip for clip in expected.clips if clip.id != "clip_013"]
    store = FeatureStore(path)
    check_same(store, expected)
    assert [failure.id for failure in store.failures] == ["clip_013"]
    found = verify(path, deep=True)
    assert (found.problems, found.rows) == ((), 119)
    again = racing_extraction()
    FeatureStore.write(path, again)
    assert again.computed == ["clip_013"]


def test_the_loser_of_a_race_keeps_only_what_is_new(tmp_path: Path) -> None:
    path, data = tmp_path / "store", make_fingerprint(ExtractionSpec(frame_layers=(1,)))
    clips = [make_clip(name) for name in "abcdef"]
    with Writer(path, data) as first, Writer(path, data) as second, Writer(path, data) as third:
        for writer, part in ((first, clips[:3]), (second, clips[1:5]), (third, clips)):
            for clip in part:
                assert writer.add(clip, [features_of(clip, data)])
        for writer in (first, second, third):
            writer.flush()
    store = FeatureStore(path)
    assert store.ids == list("abcdef")
    check_same(store, FakeExtraction(clips, fingerprint=data))
    assert verify(path, deep=True).problems == ()


def test_what_another_stored_while_it_was_under_way_is_dropped(tmp_path: Path) -> None:
    """Clips decoded ahead come back after the writer has learnt that another stored them."""
    path = tmp_path / "store"
    mine = make_extraction(6, ahead=6)
    results = mine.results

    def overtaken(clips: Iterator, has: Callable) -> Iterator:
        for place, result in enumerate(results(clips, has)):
            if not place:
                FeatureStore.write(path, make_extraction(4), limits=ShardLimits(clips=2))
            yield result

    mine.results = overtaken
    FeatureStore.write(path, mine, limits=ShardLimits(clips=1))
    assert len(mine.computed) == 6
    assert verify(path, deep=True).problems == ()
    check_same(FeatureStore(path), make_extraction(6))


def test_a_writer_does_not_extract_what_another_stored_meanwhile(tmp_path: Path) -> None:
    path = tmp_path / "store"
    ours = make_extraction(12)
    results = ours.results

    def overtaken(clips: Iterator, has: Callable) -> Iterator:
        for number, item in enumerate(results(clips, has)):
            if number == 1:
                FeatureStore.write(path, make_extraction(9), limits=ShardLimits(clips=20))
            yield item

    ours.results = overtaken
    store = FeatureStore.write(path, ours, limits=ShardLimits(clips=2))
    check_same(store, make_extraction(12))
    assert ours.computed[:3] == ["clip_000", "clip_001", "clip_009"]


def test_an_extraction_that_breaks_leaves_what_it_did(tmp_path: Path) -> None:
    extraction = make_extraction(9)
    results = extraction.results

    def breaking(clips: Iterator, has: Callable) -> Iterator:
        for number, item in enumerate(results(clips, has)):
            if number == 5:
                raise RuntimeError("the GPU fell off")
            yield item

    extraction.results = breaking
    with pytest.raises(RuntimeError, match="fell off"):
        FeatureStore.write(tmp_path / "store", extraction)
    assert len(FeatureStore(tmp_path / "store")) == 5
    assert len(FeatureStore(tmp_path / "store").pending) == 4


def test_files_over_the_limit_are_a_clean_error(tmp_path: Path) -> None:
    """What a full disk or quota does, without needing one: write() fails half way."""
    path = tmp_path / "store"
    FeatureStore.write(path, make_extraction(3), limits=ShardLimits(clips=3))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (9_000, hard))
        with pytest.raises(StoreError, match="run the same command again"):
            FeatureStore.write(path, make_extraction(60))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert len(FeatureStore(path)) == 3
    assert list(path.rglob("*.tmp")) == []
    check_same(FeatureStore.write(path, make_extraction(60)), make_extraction(60))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A tmpfs of 400 KB, which only root may mount."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(folder)], capture_output=True
    )
    if mounted.returncode:
        pytest.skip(f"cannot mount a tmpfs: {mounted.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def remount(folder: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", str(folder)], check=True)


def test_a_full_disk_is_a_clean_error_and_writing_goes_on_after(small_disk: Path) -> None:
    path = small_disk / "store"
    with pytest.raises(StoreError, match="No space left on device"):
        FeatureStore.write(path, make_extraction(200), limits=ShardLimits(clips=4))
    partial = FeatureStore(path)
    assert 0 < len(partial) < 200
    assert verify(path, deep=True).problems == ()
    with pytest.raises(StoreError, match="needs"):
        pack(path, small_disk / "all.h5")
    with pytest.raises(StoreError, match="No space left on device"):
        merge([path], small_disk / "copy")
    remount(small_disk, "size=20m")
    rest = make_extraction(200)
    check_same(FeatureStore.write(path, rest), rest)
    assert len(rest.computed) == 200 - len(partial)
    check_same(pack(path, small_disk / "all.h5"), rest)


def test_read_only_stores_are_read(small_disk: Path) -> None:
    path = small_disk / "store"
    FeatureStore.write(path, make_extraction(6), limits=ShardLimits(clips=2))
    (path / "index.npz").unlink()
    remount(small_disk, "ro")
    check_same(FeatureStore(path), make_extraction(6))
    assert verify(path).problems == ()
    FeatureStore.write(path, make_extraction(6))  # nothing is missing, so nothing is written
    with pytest.raises(StoreError, match="Read-only file system"):
        FeatureStore.write(path, make_extraction(9))
    with pytest.raises(StoreError, match="Read-only file system"):
        FeatureStore.write(small_disk / "new", make_extraction(1))


def test_orphans_go_after_their_lease_and_not_before(tmp_path: Path) -> None:
    path = tmp_path / "store"
    FeatureStore.write(path, make_extraction(2))
    old, young = path / "shards/.000009.h5.1-aa.tmp", path / ".state.json.1-bb.tmp"
    for orphan in (old, young):
        orphan.write_bytes(b"half a file")
    past = time.time() - LEASE_SECONDS - 5
    os.utime(old, (past, past))
    assert verify(path).problems == ()
    check_same(FeatureStore.write(path, make_extraction(3)), make_extraction(3))
    assert not old.exists()
    assert young.exists()


def test_bytes_are_on_the_disk_before_the_name_and_then_the_name_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a power cut would show, seen in the order of system calls."""
    calls: list[str] = []
    link, fsync = os.link, os.fsync

    def record_fsync(descriptor: int) -> None:
        folder = stat.S_ISDIR(os.fstat(descriptor).st_mode)
        calls.append("sync folder" if folder else "sync file")
        fsync(descriptor)

    def record_link(source: Path, target: Path) -> None:
        calls.append("link")
        link(source, target)

    monkeypatch.setattr(os, "fsync", record_fsync)
    monkeypatch.setattr(os, "link", record_link)
    assert publish(b"x", tmp_path / "file")
    assert calls == ["sync file", "link", "sync folder"]


def test_without_hard_links_the_first_still_wins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_link(source: Path, target: Path) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_link)
    assert publish(b"first", tmp_path / "file")
    assert not publish(b"second", tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == b"first"
    extraction = make_extraction(7)
    check_same(
        FeatureStore.write(tmp_path / "store", extraction, limits=ShardLimits(clips=3)), extraction
    )
    assert list(tmp_path.rglob("*.tmp")) == []


def test_a_writer_that_is_behind_writes_its_shard_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = make_extraction(6), make_extraction(7)
    writers = [Writer(tmp_path / "store", first.fingerprint) for _ in range(2)]
    for clip in first.clips:
        writers[0].add(clip, [features_of(clip, first.fingerprint)])
        writers[0].flush()
    written: list[Path] = []

    def counted(content: bytes, final: Path, **options: bool) -> bool:
        written.append(final)
        return publish(content, final, **options)

    monkeypatch.setattr("exhubert_features.store.writer.publish", counted)
    last = second.clips[-1]
    writers[1].add(last, [features_of(last, first.fingerprint)])
    writers[1].flush()
    assert [path.name for path in written] == ["000006.h5"]
    assert len(FeatureStore(tmp_path / "store")) == 7


def test_without_any_exclusive_name_it_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_link(source: Path, target: Path) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_link)
    monkeypatch.setattr("exhubert_features.files._rename", lambda *_: errno.EINVAL)
    with pytest.raises(StoreError, match="neither hard links nor exclusive renames"):
        FeatureStore.write(tmp_path / "store", make_extraction(3))
    assert not list(tmp_path.rglob("*.h5"))


def test_a_link_that_was_made_and_whose_answer_was_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NFS repeats a request that got no answer, and then finds its own link there."""
    link = os.link

    def link_twice(source: Path, target: Path) -> None:
        link(source, target)
        raise FileExistsError(errno.EEXIST, "File exists")

    extraction = make_extraction(7)
    monkeypatch.setattr(os, "link", link_twice)
    store = FeatureStore.write(tmp_path / "store", extraction, limits=ShardLimits(clips=3))
    check_same(store, extraction)


def test_any_other_link_error_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken_link(source: Path, target: Path) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "link", broken_link)
    with pytest.raises(StoreError, match="Input/output error"):
        publish(b"content", tmp_path / "file")
    assert list(tmp_path.iterdir()) == []
