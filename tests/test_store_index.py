"""What writers note of their shards: nobody hashes what another has checked, and no note lies."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from store_fakes import FakeExtraction, make_extraction
from test_store import check_same

from exhubert_features import FeatureStore
from exhubert_features.errors import DamagedStore
from exhubert_features.store import ShardLimits, repair, verify
from exhubert_features.store import index as index_file
from exhubert_features.store.writer import Writer

LIMITS = ShardLimits(clips=2)


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Names of shards that were hashed."""
    names: list[str] = []
    checked = index_file.checked_shard

    def watched(path: Path) -> object:
        names.append(path.name)
        return checked(path)

    monkeypatch.setattr("exhubert_features.store.index.checked_shard", watched)
    yield names


def add(writer: Writer, extraction: FakeExtraction) -> None:
    for clip, result in extraction.results(extraction.plan):
        writer.add(clip, result)


def notes(store: Path) -> list[str]:
    return sorted(path.name for path in (store / "recent").iterdir())


def begin(store: Path, extraction: FakeExtraction) -> Writer:
    return Writer(store, extraction.fingerprint, limits=LIMITS)


def test_what_a_killed_run_had_checked_is_not_hashed_again(
    tmp_path: Path, hashed: list[str]
) -> None:
    extraction = make_extraction(7)
    add(begin(tmp_path, extraction), extraction)  # and nothing ends it
    assert hashed == ["000000.h5", "000001.h5", "000002.h5"]  # each read back once
    assert notes(tmp_path) == ["000000.npz", "000001.npz", "000002.npz"]
    hashed.clear()
    store = FeatureStore.write(tmp_path, extraction, limits=LIMITS)
    assert hashed == ["000003.h5"]
    check_same(store, extraction)
    assert notes(tmp_path) == []  # the index has them
    assert verify(tmp_path, deep=True).problems == ()


def test_writers_side_by_side_hash_their_own_shards(tmp_path: Path, hashed: list[str]) -> None:
    first, second = make_extraction(8), make_extraction(8, prefix="other")
    one, other = begin(tmp_path, first), begin(tmp_path, second)
    add(one, first)
    add(other, second)  # every number it tries first is taken
    assert len(hashed) == len({*hashed}) == 8
    hashed.clear()
    other.__exit__(None, None, None)
    assert len(notes(tmp_path)) == 8  # somebody may not have read them yet
    one.__exit__(None, None, None)
    store = FeatureStore(tmp_path)
    both = FakeExtraction([*first.clips, *second.clips], fingerprint=first.fingerprint)
    check_same(store, both)
    assert hashed == []
    assert verify(tmp_path, deep=True).problems == ()
    long_ago = time.time() - 2 * 3600
    for name in notes(tmp_path):
        os.utime(tmp_path / "recent" / name, (long_ago, long_ago))
    check_same(FeatureStore(tmp_path), both)
    assert notes(tmp_path) == []


def test_a_writer_drops_clips_that_a_note_tells_of(tmp_path: Path, hashed: list[str]) -> None:
    extraction = make_extraction(6)
    one, other = begin(tmp_path, extraction), begin(tmp_path, extraction)
    add(one, extraction)
    add(other, extraction)
    one.flush()
    other.flush()
    assert len(hashed) == 3
    check_same(FeatureStore(tmp_path), extraction)


@pytest.mark.parametrize("spoilt", ["cut", "flipped", "another's", "pipe", "absent"])
def test_spoilt_notes_are_none(tmp_path: Path, spoilt: str) -> None:
    extraction = make_extraction(6)
    add(begin(tmp_path, extraction), extraction)
    note, chance = tmp_path / "recent" / "000001.npz", random.Random(3)
    whole = note.read_bytes()
    for _ in range(20 if spoilt == "flipped" else 1):
        note.unlink(missing_ok=True)
        (tmp_path / "index.npz").unlink(missing_ok=True)
        if spoilt == "pipe":
            os.mkfifo(note)
        elif spoilt != "absent":
            flipped = bytearray(whole)
            flipped[chance.randrange(len(whole))] ^= 1 << chance.randrange(8)
            other = (tmp_path / "recent" / "000002.npz").read_bytes()
            content = {"cut": whole[:-9], "flipped": bytes(flipped), "another's": other}[spoilt]
            note.write_bytes(content)
        check_same(FeatureStore(tmp_path), extraction)
        assert verify(tmp_path, deep=True).problems == ()


def test_a_note_vouches_for_no_other_file(tmp_path: Path) -> None:
    extraction = make_extraction(6)
    add(begin(tmp_path, extraction), extraction)
    shard = tmp_path / "shards" / "000001.h5"
    content = bytearray(shard.read_bytes())
    content[3000] ^= 4
    shard.write_bytes(content)
    for use in (lambda: FeatureStore(tmp_path), lambda: begin(tmp_path, extraction)):
        with pytest.raises(DamagedStore, match="has changed"):
            use()
    repair(verify(tmp_path))
    again = make_extraction(6)
    check_same(FeatureStore.write(tmp_path, again), again)
    assert sorted(again.computed) == ["clip_002", "clip_003"]


def test_a_note_that_lies_is_found_and_repaired(tmp_path: Path) -> None:
    extraction = make_extraction(4)
    add(begin(tmp_path, extraction), extraction)
    noted = index_file.read_index(note := tmp_path / "recent" / "000001.npz")
    assert noted is not None
    (table,) = noted.tables
    table.numbers["start"] = np.array([5.0, 6.0])
    index_file.note_shard(tmp_path, table)
    (problem,) = verify(tmp_path).problems
    assert (problem.kind, problem.path) == ("index", note)
    repair(verify(tmp_path))
    assert verify(tmp_path).problems == ()
    check_same(FeatureStore(tmp_path), extraction)


def test_without_room_for_notes_all_is_as_before(tmp_path: Path, hashed: list[str]) -> None:
    extraction = make_extraction(4)
    writer = begin(tmp_path, extraction)
    (tmp_path / "recent").rmdir()
    add(writer, extraction)
    writer.__exit__(None, None, None)
    assert len(hashed) == 4  # read back, and for the index
    check_same(FeatureStore(tmp_path), extraction)


def test_a_number_that_a_repair_took_out_is_spent(tmp_path: Path) -> None:
    """A writer that comes after the repair must not put its shard where readers know of a gap."""
    mine, others = make_extraction(2, prefix="late"), make_extraction(4)
    late, other = begin(tmp_path, mine), begin(tmp_path, others)
    add(other, others)
    first = tmp_path / "shards" / "000000.h5"
    first.write_bytes(first.read_bytes()[:-1])
    repair(verify(tmp_path))
    add(late, mine)
    names = sorted(path.name for path in (tmp_path / "shards").iterdir())
    assert names == ["000001.h5", "000002.h5"]
    assert verify(tmp_path).problems == ()
    for loss in names:
        kept = (tmp_path / "shards" / loss).read_bytes()
        (tmp_path / "shards" / loss).unlink()
        assert [one.kind for one in verify(tmp_path).problems][:1] == (
            ["lost"] if loss == "000001.h5" else []  # of the last one only a run's end tells
        )
        (tmp_path / "shards" / loss).write_bytes(kept)


def test_other_shards_of_one_size_and_time_are_others(tmp_path: Path) -> None:
    """As archives that normalise times unpack them over one another."""
    stores = {name: make_extraction(4, prefix=name) for name in ("one", "two")}
    for name, extraction in stores.items():
        FeatureStore.write(tmp_path / name, extraction)
        add(begin(tmp_path / f"{name}-killed", extraction), extraction)
    for kind in ("", "-killed"):
        site, other = tmp_path / f"one{kind}", tmp_path / f"two{kind}"
        opened = FeatureStore(site) if not kind else None
        for path in sorted((site / "shards").iterdir()):
            before, replacing = path.stat(), (other / "shards" / path.name).read_bytes()
            assert len(replacing) == before.st_size
            path.write_bytes(replacing)
            os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        check_same(FeatureStore(site), stores["two"])
        if opened:
            with pytest.raises(DamagedStore, match="has changed since"):
                opened["one_000"]
