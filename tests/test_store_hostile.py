"""Shards made to harm: refused as damage, in bounded time and memory, and nothing else is read."""

from __future__ import annotations

import io
import json
import os
import resource
import shutil
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest
from store_fakes import make_extraction, make_fingerprint

from exhubert_features import FeatureStore
from exhubert_features.errors import DamagedStore, StoreError
from exhubert_features.files import RegularFile
from exhubert_features.spec import ExtractionSpec
from exhubert_features.stamps import stamped
from exhubert_features.store import merge, pack, repair, verify
from exhubert_features.store.opening import digest_of
from exhubert_features.store.shard import stamp

SPEC = ExtractionSpec(frame_layers=(1,))
SECRET = b"root:x:0:0:nobody shall read this" * 40
MOST_BYTES = 250 << 20
MOST_SECONDS = 20.0  # on a busy machine


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Four clips in one shard."""
    extraction = make_extraction(4, fingerprint=make_fingerprint(SPEC))
    FeatureStore.write(tmp_path / "store", extraction)
    return tmp_path / "store"


@pytest.fixture(autouse=True)
def bounded() -> Iterator[None]:
    """Fail what takes long or much."""
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    yield
    assert time.monotonic() - start < MOST_SECONDS
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 < MOST_BYTES


def shard_of(store: Path) -> Path:
    return store / "shards" / "000000.h5"


def restamp(path: Path) -> None:
    """Whoever makes a shard can stamp it: the stamp is no signature."""
    with RegularFile(path) as file:
        digest = digest_of(file)
    with path.open("r+b") as file:
        file.write(stamp(path.stat().st_size, digest))


def replace(name: str, make: Callable[[h5py.File, h5py.Dataset], None]) -> Callable[[Path], None]:
    """Put something else in a dataset's place."""

    def spoil(path: Path) -> None:
        with h5py.File(path, "r+") as file:
            old = file[name]
            file.move(name, "old")
            make(file, old)
            del file["old"]

    return spoil


def external_storage(file: h5py.File, old: h5py.Dataset) -> None:
    secret = Path(file.filename).parents[2] / "secret"
    name = "start" if old.ndim == 1 else "pooled"
    file.create_dataset(name, old.shape, old.dtype, external=[(str(secret), 0, old.nbytes)])


def external_link(file: h5py.File, old: h5py.Dataset) -> None:
    other = Path(file.filename).parents[2] / "other.h5"
    with h5py.File(other, "w") as elsewhere:
        elsewhere["x"] = np.zeros(old.shape, old.dtype)
    file["pooled"] = h5py.ExternalLink(str(other), "/x")


def soft_link(file: h5py.File, old: h5py.Dataset) -> None:
    file["hidden"] = old[...]
    file["pooled"] = h5py.SoftLink("/hidden")


def virtual(file: h5py.File, old: h5py.Dataset) -> None:
    other = Path(file.filename).parents[2] / "other.h5"
    with h5py.File(other, "w") as elsewhere:
        elsewhere["x"] = np.zeros(old.shape, old.dtype)
    layout = h5py.VirtualLayout(shape=old.shape, dtype=old.dtype)
    layout[...] = h5py.VirtualSource(str(other), "x", shape=old.shape)
    file.create_virtual_dataset("pooled", layout)


def bomb(name: str, shape: tuple[int, ...], dtype: str) -> Callable[[Path], None]:
    """A few bytes that unfold to gigabytes."""

    def make(file: h5py.File, _: h5py.Dataset) -> None:
        file.create_dataset(name, shape, dtype, chunks=True, compression="gzip")

    return replace(name, make)


def unallocated(file: h5py.File, old: h5py.Dataset) -> None:
    file.create_dataset("pooled", (400_000_000, *old.shape[1:]), old.dtype)


def group(file: h5py.File, _: h5py.Dataset) -> None:
    file.create_group("pooled")


def another_type(file: h5py.File, old: h5py.Dataset) -> None:
    file.create_dataset("pooled", data=old[...].astype(">f2"))


def compound(file: h5py.File, old: h5py.Dataset) -> None:
    file.create_dataset("end", old.shape, [("a", "<f4"), ("b", "<f4")])


def long_claims(path: Path) -> None:
    """Strings that say they are gigabytes long: HDF5 allocates before it looks."""
    with h5py.File(path, "r") as file:
        offset = file["id"].id.get_offset()
    with path.open("r+b") as file:
        file.seek(offset)
        file.write((3_000_000_000).to_bytes(4, "little"))


def far_frames(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        file["frame_end"][...] = [1, 2**61, 3, 4]


def written(name: str, content: object) -> Callable[[Path], None]:
    def spoil(path: Path) -> None:
        with h5py.File(path, "r+") as file:
            del file[name]
            file[name] = content

    return spoil


ABOUT = {"fingerprint": make_fingerprint(SPEC).to_dict(), "provenance": {}}


def about(**changed: object) -> Callable[[Path], None]:
    text = json.dumps({**ABOUT, **changed}).encode()
    return written("about", np.frombuffer(text, "u1"))


HOSTILE: dict[str, Callable[[Path], None]] = {
    "external storage": replace("pooled", external_storage),
    "external storage of numbers": replace("start", external_storage),
    "external link": replace("pooled", external_link),
    "soft link": replace("pooled", soft_link),
    "virtual dataset": replace("pooled", virtual),
    "bomb of features": bomb("pooled", (600_000, 5, 1, 8), "<f2"),
    "bomb of frames": bomb("frames", (1, 200_000_000, 8), "<f2"),
    "bomb of numbers": bomb("start", (400_000_000,), "<f8"),
    "bomb of text": bomb("id", (100_000_000,), "S30"),
    "bomb of description": bomb("about", (3_000_000_000,), "u1"),
    "array that is not there": replace("pooled", unallocated),
    "strings that claim gigabytes": long_claims,
    "frames far away": far_frames,
    "a group for an array": replace("pooled", group),
    "another type": replace("pooled", another_type),
    "compound numbers": replace("end", compound),
    "description that is no JSON": written("about", np.frombuffer(b"{" * 50_000, "u1")),
    "description that is a list": written("about", np.frombuffer(b"[]", "u1")),
    "description of a list": about(fingerprint=[]),
    "provenance that is a number": about(provenance=3),
    "meta that is no JSON": written("meta", ["{"] * 4),
    "meta that is a list": written("meta", ["[1]"] * 4),
    "too few ids": written("id", ["a"]),
}


@pytest.mark.parametrize("case", HOSTILE)
@pytest.mark.parametrize("packed", [False, True], ids=["folder", "packed"])
def test_hostile_shards_are_damage(store: Path, tmp_path: Path, case: str, packed: bool) -> None:
    (tmp_path / "secret").write_bytes(SECRET)
    target = shard = shard_of(store)
    if packed:
        target = shard = tmp_path / "a" / "b" / "all.h5"
        shard.parent.mkdir(parents=True)
        shutil.move(pack(store, tmp_path / "all.h5").path, shard)
        (shard.parents[2] / "secret").write_bytes(SECRET)
    HOSTILE[case](shard)
    restamp(shard)
    opened = target if packed else store
    with pytest.raises(DamagedStore):
        FeatureStore(opened)
    (flaw,) = verify(opened, deep=True).problems
    assert flaw.kind == "shard"
    with pytest.raises(DamagedStore):
        merge([opened], tmp_path / "merged")
    assert not (tmp_path / "merged").exists()


def test_named_pipes_devices_and_folders_are_damage(store: Path, tmp_path: Path) -> None:
    ways = (os.mkfifo, Path.mkdir, lambda path: path.symlink_to("/dev/zero"))
    for number, make in enumerate(ways, start=1):
        extra = store / "shards" / f"{number:06d}.h5"
        make(extra)
        with pytest.raises(DamagedStore, match="no regular file"):
            FeatureStore(store)
        assert [flaw.kind for flaw in verify(store).problems] == ["shard"]
        repair(verify(store))
        assert not os.path.lexists(extra)
        FeatureStore(store)
    for name in ("store.json", "state.json", "journal.jsonl"):
        kept = (store / name).read_bytes()
        (store / name).unlink()
        os.mkfifo(store / name)
        with pytest.raises(StoreError):
            assert FeatureStore(store).failures is None
        assert verify(store).problems
        (store / name).unlink()
        (store / name).write_bytes(kept)
    (store / "index.npz").unlink()
    os.mkfifo(store / "index.npz")
    assert len(FeatureStore(store)) == 4
    os.mkfifo(tmp_path / "pipe.h5")
    with pytest.raises(DamagedStore, match="no regular file"):
        FeatureStore(tmp_path / "pipe.h5")


def test_shards_of_absurd_numbers_cost_nothing(store: Path) -> None:
    (store / "shards" / "99999999999.h5").write_bytes(b"")
    assert len(FeatureStore(store)) == 4
    assert [flaw.kind for flaw in verify(store).problems] == ["foreign"]
    repair(verify(store))
    assert verify(store).problems == ()
    (store / "shards" / "99999999.h5").write_bytes(b"")
    with pytest.raises(DamagedStore, match="has lost at least 1000 shards"):
        FeatureStore(store)
    assert len(verify(store).problems) == 1001
    (store / "shards" / "99999999.h5").unlink()
    (store / "state.json").write_text(json.dumps(stamped({"shards": 10**15})))
    with pytest.raises(DamagedStore, match="has lost at least 1000 shards"):
        FeatureStore(store)
    for wrong in ("many", None, [1]):
        (store / "state.json").write_text(json.dumps(stamped({"shards": wrong})))
        with pytest.raises(DamagedStore, match=r"state\.json notes"):
            FeatureStore(store)


def test_hostile_indexes_are_ignored(store: Path) -> None:
    whole = (store / "index.npz").read_bytes()
    with np.load(io.BytesIO(whole)) as archive:
        arrays = {name: archive[name] for name in archive.files}
    bombs = io.BytesIO()
    np.savez_compressed(bombs, **arrays)
    header = {"descr": "|u1", "fortran_order": False, "shape": (100 << 20,)}
    with (
        zipfile.ZipFile(bombs, "a", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open("more.npy", "w") as member,
    ):
        np.lib.format.write_array_header_1_0(member, header)
        for _ in range(100):
            member.write(b"\0" * (1 << 20))
    claims = whole.replace(b"(4,)", b"(9,)")
    for content in (bombs.getvalue(), claims, b"", whole[:-1]):
        (store / "index.npz").write_bytes(content)
        assert FeatureStore(store).ids == [f"clip_{n:03d}" for n in range(4)]
        assert (store / "index.npz").read_bytes() == whole


def test_hostile_journals_are_damage(store: Path) -> None:
    journal = store / "journal.jsonl"
    whole = journal.read_bytes()
    lines = [
        b"[" * 100_000,
        b'{"sha256": 1}',
        b"\xff\xfe",
        *(
            json.dumps(stamped(event)).encode()
            for event in (
                {"event": "failed", "id": 3},
                {"event": "failed", "id": "x", "file": "x", "kind": "k", "reason": ["r"]},
                {"event": "failed", "id": "x", "file": "x", "kind": "k", "reason": "", "size": 1},
                {"event": "unheard of"},
                {"event": "planned", "clips": []},
            )
        ),
    ]
    for line in lines:
        journal.write_bytes(whole + line + b"\n")
        with pytest.raises(DamagedStore, match=r"journal\.jsonl: line 2"):
            assert FeatureStore(store).failures is None
        assert [flaw.kind for flaw in verify(store).problems] == ["record"]
        repair(verify(store))
        assert verify(store).problems == ()
        assert FeatureStore(store).failures == ()
