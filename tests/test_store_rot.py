"""Bytes that rot while size and time stay: no way of reading returns them, none copies them."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from store_fakes import make_extraction, make_fingerprint

from exhubert_features import FeatureStore, StoreDataset
from exhubert_features.cli import main
from exhubert_features.errors import DamagedStore
from exhubert_features.spec import ExtractionSpec
from exhubert_features.store import ShardLimits, merge, pack, verify
from exhubert_features.store.shard import sum64

SPEC = ExtractionSpec(pools=("mean", "std"), frame_layers=(1, 3))
EARLIER = Path(__file__).parent / "data" / "written_by_0.1.0"


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Six clips in two shards."""
    extraction = make_extraction(6, fingerprint=make_fingerprint(SPEC))
    FeatureStore.write(tmp_path / "store", extraction, limits=ShardLimits(clips=3))
    return tmp_path / "store"


def rot(shard: Path, place: int) -> None:
    """Change one bit; size and time of change stay, as on a failing disk."""
    status = shard.stat()
    with shard.open("r+b") as file:
        file.seek(place)
        (byte,) = file.read(1)
        file.seek(place)
        file.write(bytes([byte ^ 1 << place % 8]))
    os.utime(shard, ns=(status.st_atime_ns, status.st_mtime_ns))


def place_of(shard: Path, name: str, *index: int) -> int:
    """Where a number of an array lies."""
    with h5py.File(shard, "r") as file:
        array = file[name]
        return (
            array.id.get_offset()
            + int(np.ravel_multi_index(index, array.shape)) * array.dtype.itemsize
        )


READS: dict[str, tuple[str, tuple[int, ...], Callable[[FeatureStore], object]]] = {
    "row": ("pooled", (1, 2, 0, 3), lambda store: store["clip_004"]),
    "row's logits": ("logits", (1, 2), lambda store: store["clip_004"]),
    "row's frames": ("frames", (1, 1, 2), lambda store: list(map(store.__getitem__, store.ids))),
    "vector": ("pooled", (1, 2, 1, 3), lambda store: store.vector("clip_004", layer=2, pool="std")),
    "matrix": ("pooled", (2, 4, 1, 0), lambda store: store.matrix(layer=4, pool="std")),
    "logits": ("logits", (0, 5), lambda store: store.logits()),
    "frames": ("frames", (1, 0, 0), lambda store: store.frames("clip_003", layer=3)),
    "blocks": ("frames", (0, 0, 7), lambda store: list(store.blocks())),
    "table": ("pooled", (0, 0, 0, 0), lambda store: store.to_dataframe(layer=0)),
    "dataset": ("pooled", (0, 1, 0, 5), lambda store: list(StoreDataset(store, layers=[0, 1]))),
    "its checksum": ("pooled_sum64", (1, 2, 1), lambda store: store["clip_004"]),
}


@pytest.mark.parametrize("opened", ["before", "after"])
@pytest.mark.parametrize("way", READS)
def test_rotten_bytes_are_never_returned(store: Path, way: str, opened: str) -> None:
    name, index, read = READS[way]
    shard = store / "shards" / "000001.h5"
    early = FeatureStore(store)
    read(early)
    rot(shard, place_of(shard, name, *index))
    with pytest.raises(DamagedStore, match=r"000001\.h5: row 'clip_00\d' does not match"):
        read(early if opened == "before" else FeatureStore(store))
    assert FeatureStore(store)["clip_001"].id == "clip_001"


@pytest.mark.parametrize("way", ["merge", "pack", "export", "verify"])
def test_rotten_bytes_are_never_copied(store: Path, tmp_path: Path, way: str) -> None:
    shard = store / "shards" / "000001.h5"
    rot(shard, place_of(shard, "pooled", 1, 4, 0, 3))
    if way == "merge":
        with pytest.raises(DamagedStore, match="clip_004"):
            merge([store], tmp_path / "copy")
        assert "clip_004" not in FeatureStore(tmp_path / "copy")
        assert verify(tmp_path / "copy", deep=True).problems == ()
    elif way == "pack":
        with pytest.raises(DamagedStore, match="clip_004"):
            pack(store, tmp_path / "copy.h5")
        assert {path.name for path in tmp_path.iterdir()} == {"store"}
    elif way == "export":
        assert main(["export", str(store), "--to", "npz"]) == 4
        assert {path.name for path in tmp_path.iterdir()} == {"store"}
    else:
        assert [flaw.path.name for flaw in verify(store).problems] == ["000001.h5"]


def test_any_flipped_bit_of_features_is_seen_by_every_reading_of_it(store: Path) -> None:
    shard = store / "shards" / "000000.h5"
    with h5py.File(shard, "r") as file:
        spans = {
            name: (file[name].id.get_offset(), file[name].id.get_storage_size())
            for name in ("pooled", "logits", "frames")
        }
    chance = random.Random(11)
    for name, (start, size) in spans.items():
        for place in chance.sample(range(start, start + size), 60):
            rot(shard, place)
            opened = FeatureStore(store)
            with pytest.raises(DamagedStore):
                list(opened.blocks())
            with pytest.raises(DamagedStore):
                for row in opened.ids[:3]:
                    assert opened[row]
            if name == "pooled":
                with pytest.raises(DamagedStore):
                    for layer in opened.layers:
                        for pool in opened.pools:
                            opened.matrix(layer=layer, pool=pool)
            rot(shard, place)
    assert len(list(FeatureStore(store).blocks())) == 2


@pytest.mark.parametrize("name", ["store/shards/000000.h5", "packed.h5"])
def test_shards_of_the_first_version_are_compared_when_first_read(
    tmp_path: Path, name: str
) -> None:
    shutil.copytree(EARLIER, tmp_path / "earlier")
    shard, store = tmp_path / "earlier" / name, tmp_path / "earlier" / name.partition("/")[0]
    opened = FeatureStore(store)
    rot(shard, place_of(shard, "pooled", 1, 2, 0, 3))
    with pytest.raises(DamagedStore, match="SHA-256"):
        opened.matrix(layer=48, pool="mean")
    if store.is_dir():  # nothing of it has been read, and the index knows its size and time
        with pytest.raises(DamagedStore, match="SHA-256"):
            FeatureStore(store).vector("audio/clip_0.wav", layer=0)
        assert main(["pack", str(store), str(tmp_path / "copy.h5")]) == 4


def test_the_checksum_is_what_the_shard_says_it_is() -> None:
    """Written here in plain arithmetic, as somebody without this package would."""

    def splitmix64(state: int) -> int:
        mixed = state * 0x9E3779B97F4A7C15 % 2**64
        mixed = (mixed ^ mixed >> 30) * 0xBF58476D1CE4E5B9 % 2**64
        mixed = (mixed ^ mixed >> 27) * 0x94D049BB133111EB % 2**64
        return mixed ^ mixed >> 31

    for dtype, width in (("<f2", 1024), ("<f2", 7), ("<f4", 5)):
        vector = np.random.default_rng(0).normal(size=width).astype(dtype)
        content = vector.tobytes() + b"\0" * (-vector.nbytes % 4)
        words = [int.from_bytes(content[n : n + 4], "little") for n in range(0, len(content), 4)]
        factors = [splitmix64(n) | 1 for n in range(1, len(words) + 1)]
        expected = sum(w * f for w, f in zip(words, factors, strict=True)) % 2**64
        assert int(sum64(vector[None])[0]) == expected


def test_no_pair_of_flips_in_one_place_of_two_numbers_cancels() -> None:
    vector = np.random.default_rng(1).normal(size=64).astype("<f4")
    right = int(sum64(vector[None])[0])
    words = vector.view("<u4")
    for bit in (0, 15, 31):
        for first in range(63):
            for second in (first + 1, 63 - first):
                changed = words.copy()
                changed[first] ^= 1 << bit
                changed[second] ^= 1 << bit
                if first != second:
                    assert int(sum64(changed.view("<f4")[None])[0]) != right
