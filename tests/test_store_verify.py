"""Damage is found, named, taken out and made anew; what is whole is left alone."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from store_fakes import FakeExtraction, make_clip, make_extraction, make_fingerprint
from test_store import check_same

from exhubert_features import FeatureStore
from exhubert_features.errors import DamagedStore, StoreError
from exhubert_features.files import RegularFile
from exhubert_features.records import ClipFailure
from exhubert_features.spec import ExtractionSpec
from exhubert_features.store import ShardLimits, pack, repair, verify
from exhubert_features.store.opening import digest_of
from exhubert_features.store.shard import USER_BLOCK, stamp

DATA = make_fingerprint(ExtractionSpec(frame_layers=(2,)))
REJECTED = [ClipFailure(id="bad", file="bad.wav", kind="unreadable", reason="nothing in it")]


def extraction_of(count: int = 12) -> FakeExtraction:
    return make_extraction(count, fingerprint=DATA, rejected=REJECTED)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """12 clips in 4 shards and one failure."""
    FeatureStore.write(tmp_path / "store", extraction_of(), limits=ShardLimits(clips=3))
    return tmp_path / "store"


def kinds(path: Path, *, deep: bool = True) -> list[str]:
    return [problem.kind for problem in verify(path, deep=deep).problems]


def shard(store: Path, number: int) -> Path:
    return store / "shards" / f"{number:06d}.h5"


def flip(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1 << (place % 8)
    path.write_bytes(content)


def restamp(path: Path) -> None:
    """Make a changed shard's hash right again, as a faulty tool would."""
    with RegularFile(path) as file:
        digest = digest_of(file)
    with path.open("r+b") as file:
        file.write(stamp(path.stat().st_size, digest))


def test_whole_stores_are_well(store: Path, tmp_path: Path) -> None:
    found = verify(store, deep=True)
    assert (found.problems, found.shards, found.rows) == ((), 4, 12)
    pack(store, tmp_path / "all.h5")
    found = verify(tmp_path / "all.h5", deep=True)
    assert (found.problems, found.shards, found.rows) == ((), 1, 12)


def test_replaced_clips_and_their_return_are_no_damage(store: Path) -> None:
    for audio in ("new", ""):  # changed, and changed back
        clips = [make_clip(f"clip_{n:03d}", audio=audio if n < 2 else "") for n in range(12)]
        FeatureStore.write(store, FakeExtraction(clips, fingerprint=DATA))
    found = verify(store, deep=True)
    assert (found.problems, found.shards, found.rows) == ((), 6, 12)


DAMAGE: dict[str, tuple[str, Callable[[Path], object]]] = {
    "flipped byte": ("shard", lambda s: flip(shard(s, 1), 3000)),
    "cut": ("shard", lambda s: shard(s, 1).write_bytes(shard(s, 1).read_bytes()[:-1])),
    "grown": ("shard", lambda s: shard(s, 1).write_bytes(shard(s, 1).read_bytes() + b"\0")),
    "empty": ("shard", lambda s: shard(s, 1).write_bytes(b"")),
    "other file": ("shard", lambda s: shard(s, 1).write_bytes(b"not a shard at all" * 99)),
    "lost in the middle": ("lost", lambda s: shard(s, 1).unlink()),
    "lost at the end": ("lost", lambda s: shard(s, 3).unlink()),
    "all lost": ("lost", lambda s: shutil.rmtree(s / "shards")),
    "copied": ("doubled", lambda s: shutil.copy(shard(s, 1), shard(s, 4))),
    "manifest flipped": ("manifest", lambda s: flip(s / "store.json", 60)),
    "manifest lost": ("manifest", lambda s: (s / "store.json").unlink()),
    "state flipped": ("state", lambda s: flip(s / "state.json", 12)),
}


@pytest.mark.parametrize("case", DAMAGE)
@pytest.mark.parametrize("index", ["kept", "deleted"])
def test_damage_is_refused_found_repaired_and_made_anew(store: Path, case: str, index: str) -> None:
    kind, spoil = DAMAGE[case]
    spoil(store)
    if index == "deleted":
        (store / "index.npz").unlink()
    if kind != "doubled":  # doubled rows are equal: reading them is right
        with pytest.raises(StoreError):
            FeatureStore(store)
    found = verify(store)
    assert {problem.kind for problem in found.problems} == {kind}
    repair(found)
    assert kinds(store) == []
    survivors = FeatureStore(store)
    lost = {"all lost": 12, "lost in the middle": 3, "lost at the end": 3}
    missing = lost.get(case, 3 if kind == "shard" else 0)
    assert len(survivors) == 12 - missing
    assert len(survivors.pending) == missing
    again = extraction_of()
    check_same(FeatureStore.write(store, again, limits=ShardLimits(clips=3)), again)
    assert sorted(again.computed) == sorted(survivors.pending)
    assert kinds(store) == []


def test_records_are_checked_and_taken_out(store: Path) -> None:
    journal = store / "journal.jsonl"
    assert len(journal.read_bytes().splitlines()) == 2
    flip(journal, 40)
    (store / "shards" / "notes.txt").write_text("hello")
    assert sorted(kinds(store)) == ["foreign", "record"]
    with pytest.raises(DamagedStore, match="line 1: it is no JSON"):
        FeatureStore(store).failures  # noqa: B018
    before = journal.read_bytes()
    repair(verify(store))
    assert kinds(store) == []
    check_same(FeatureStore(store), extraction_of())
    assert [failure.id for failure in FeatureStore(store).failures] == ["bad"]
    assert (store / "quarantine" / "journal.jsonl").read_bytes() == before
    assert len(list((store / "quarantine").iterdir())) == 2
    check_same(FeatureStore.write(store, extraction_of()), extraction_of())


def test_records_of_the_first_version_are_checked_and_taken_out(tmp_path: Path) -> None:
    written = Path(__file__).parent / "data" / "written_by_0.1.0" / "store"
    store = Path(shutil.copytree(written, tmp_path / "store"))
    (record,) = (store / "failures").iterdir()
    (plan,) = store.glob("plan-*.jsonl")
    flip(record, 40)
    flip(plan, 40)
    assert sorted(kinds(store)) == ["plan", "record"]
    repair(verify(store))
    assert kinds(store) == []
    assert len(list((store / "quarantine").iterdir())) == 2


def test_the_checksum_of_a_row_survives_copying_tools(store: Path) -> None:
    """A tool that rewrites a shard and its hash, but spoils a row, is found by --deep."""
    with h5py.File(shard(store, 2), "r+") as file:
        file["pooled"][1, 0, 0, 0] += 1
    restamp(shard(store, 2))
    assert kinds(store, deep=False) == []
    (problem,) = verify(store, deep=True).problems
    assert "row 'clip_007' does not match its checksum" in problem.detail
    with pytest.raises(DamagedStore, match="'clip_007'"):
        FeatureStore(store)["clip_007"]
    assert FeatureStore(store)["clip_006"].id == "clip_006"


@pytest.mark.parametrize("name", ["id", "logits", "frame_end"])
def test_shards_of_another_layout_are_damage(store: Path, name: str) -> None:
    with h5py.File(shard(store, 0), "r+") as file:
        if name == "frame_end":
            file[name][0] = 10**6
        else:
            del file[name]
            if name == "logits":
                file["logits"] = np.zeros(3)
    restamp(shard(store, 0))
    assert kinds(store) == ["shard"]


def test_a_shard_of_another_model_is_damage(store: Path, tmp_path: Path) -> None:
    other = make_fingerprint(ExtractionSpec(frame_layers=(2,)), weights_sha256="1" * 64)
    FeatureStore.write(tmp_path / "other", make_extraction(2, prefix="x", fingerprint=other))
    shutil.copy(shard(tmp_path / "other", 0), shard(store, 4))
    (problem,) = verify(store).problems
    assert "another fingerprint" in problem.detail


def test_a_stale_or_spoiled_index_is_renewed(store: Path, tmp_path: Path) -> None:
    index = store / "index.npz"
    old = index.read_bytes()
    FeatureStore.write(store, extraction_of(15))
    for content in (old, b"", b"PK\x03\x04 nonsense", old[:-100]):
        index.write_bytes(content)
        assert kinds(store) == []
        check_same(FeatureStore(store), extraction_of(15))
        assert index.read_bytes() != content
    index.unlink()
    check_same(FeatureStore(store), extraction_of(15))
    assert index.exists()


def test_flipped_bytes_in_the_index_never_show(store: Path) -> None:
    index = store / "index.npz"
    whole = index.read_bytes()
    chance = random.Random(5)
    for _ in range(30):
        content = bytearray(whole)
        content[chance.randrange(len(whole))] ^= 1 << chance.randrange(8)
        index.write_bytes(content)
        store_read = FeatureStore(store)
        assert store_read.ids == [f"clip_{n:03d}" for n in range(12)]
        check_same(store_read, extraction_of())


@pytest.mark.parametrize("packed", [False, True])
def test_every_flip_and_cut_is_found_and_none_crashes(
    store: Path, tmp_path: Path, packed: bool
) -> None:
    """200 changes of a shard, each one read, refused and found."""
    if packed:
        pack(store, tmp_path / "all.h5")
    file = tmp_path / "all.h5" if packed else shard(store, 2)
    target = file if packed else store
    whole = file.read_bytes()
    chance = random.Random(7)
    # Every byte of the stamp's text, some of its padding, and everywhere else.
    places = [*range(0, 130, 3), 200, 511] + [chance.randrange(512, len(whole)) for _ in range(60)]
    changes = []
    for place in places:
        content = bytearray(whole)
        content[place] ^= 1 << chance.randrange(8)
        changes.append(bytes(content))
    lengths = [0, 1, 100, USER_BLOCK - 1, USER_BLOCK, USER_BLOCK + 1, len(whole) - 1]
    lengths += [chance.randrange(len(whole)) for _ in range(100 - len(lengths))]
    changes += [whole[:length] for length in lengths]
    assert len(changes) >= 200
    for content in changes:
        file.write_bytes(content)
        with pytest.raises(StoreError):
            FeatureStore(target)
        assert kinds(target, deep=False) == ["shard"]
    file.write_bytes(whole)
    check_same(FeatureStore(target), extraction_of())


def test_a_store_opened_before_the_damage_refuses_too(store: Path) -> None:
    opened = FeatureStore(store)
    shard(store, 1).unlink()
    with pytest.raises(DamagedStore, match="is gone"):
        opened["clip_004"]
    content = shard(store, 2).read_bytes()
    shard(store, 2).unlink()
    shard(store, 2).write_bytes(content[:2000])
    with pytest.raises(DamagedStore, match="has changed since"):
        opened["clip_007"]
    with pytest.raises(DamagedStore):
        opened.matrix(layer=0)
    assert opened["clip_000"].id == "clip_000"


def test_bytes_that_rot_under_an_open_store_are_not_returned(store: Path) -> None:
    opened = FeatureStore(store)
    opened["clip_003"]
    with h5py.File(shard(store, 1), "r") as file:
        place = file["pooled"].id.get_offset() + 7
    with shard(store, 1).open("r+b") as file:
        file.seek(place)
        file.write(b"\xaa\xbb")
    with pytest.raises(DamagedStore, match="'clip_003' does not match its checksum"):
        opened["clip_003"]
    assert opened["clip_004"].id == "clip_004"


def test_packed_stores_cannot_be_repaired(store: Path, tmp_path: Path) -> None:
    pack(store, tmp_path / "all.h5")
    flip(tmp_path / "all.h5", 4000)
    with pytest.raises(StoreError, match="Pack it again"):
        repair(verify(tmp_path / "all.h5"))


def test_a_store_of_which_nothing_is_left_is_said_to_be_so(store: Path, tmp_path: Path) -> None:
    (store / "store.json").write_text("{}")
    for number in range(4):
        shard(store, number).write_bytes(b"")
    with pytest.raises(StoreError, match="Extract again into a new folder"):
        repair(verify(store))
    with pytest.raises(StoreError, match="not a feature store"):
        verify(tmp_path)
    with pytest.raises(StoreError, match="no store at"):
        verify(tmp_path / "nothing")
