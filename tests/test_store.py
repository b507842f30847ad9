"""The store's promises on a good day: what goes in comes out, once, by any door."""

from __future__ import annotations

import logging
import os
import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from store_fakes import FakeExtraction, features_of, make_clip, make_extraction, make_fingerprint

from exhubert_features import FeatureStore
from exhubert_features.errors import FingerprintMismatch, StoreError, UsageError
from exhubert_features.records import ClipFailure
from exhubert_features.spec import CLASSES, ExtractionSpec
from exhubert_features.store import ShardLimits

HARD_IDS = [
    "a/b/c",
    "../up",
    "süß 語 🎧",
    "x" * 300,
    "with space",
    "back\\slash",
    "a#0001",
    "\udcff",
]


def check_same(store: FeatureStore, extraction: FakeExtraction) -> None:
    """Every clip is there once, with the numbers its audio gives."""
    assert sorted(store.ids) == sorted(clip.id for clip in extraction.clips)
    for clip in extraction.clips:
        expected = features_of(clip, extraction.fingerprint)
        stored = store[clip.id]
        dtype = extraction.fingerprint.spec.dtype
        assert stored.pooled.dtype == dtype
        np.testing.assert_array_equal(stored.pooled, expected.pooled.astype(dtype))
        np.testing.assert_array_equal(stored.logits, expected.logits)
        assert stored.audio_sha256 == clip.audio_sha256
        if expected.frames is not None:
            np.testing.assert_array_equal(stored.frames, expected.frames.astype(dtype))


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("frames", [(), (1, 4)])
def test_round_trip_keeps_dtype_shape_and_id(tmp_path: Path, dtype: str, frames: tuple) -> None:
    spec = ExtractionSpec(dtype=dtype, frame_layers=frames, pools=("mean", "std"))
    clips = [make_clip(name, meta={"speaker": f"s{n}"}) for n, name in enumerate(HARD_IDS)]
    extraction = FakeExtraction(clips, fingerprint=make_fingerprint(spec))
    store = FeatureStore.write(tmp_path / "store", extraction, limits=ShardLimits(clips=3))
    check_same(store, extraction)
    assert store.ids == HARD_IDS
    assert len(store) == len(HARD_IDS)
    assert HARD_IDS[2] in store
    assert store["a/b/c"].meta == {"speaker": "s0"}
    assert store["a/b/c"].pooled.shape == (5, 2, 8)


def test_matrix_logits_and_single_layers_agree_with_rows(tmp_path: Path) -> None:
    spec = ExtractionSpec(layers=(0, 2, 4), pools=("mean", "max"), frame_layers=(2,))
    extraction = make_extraction(11, fingerprint=make_fingerprint(spec))
    store = FeatureStore.write(tmp_path / "store", extraction, limits=ShardLimits(clips=4))
    rows = [store[name] for name in store]
    for position, layer in enumerate(store.layers):
        for place, pool in enumerate(store.pools):
            expected = np.stack([row.pooled[position, place] for row in rows])
            np.testing.assert_array_equal(store.matrix(layer=layer, pool=pool), expected)
    np.testing.assert_array_equal(store.matrix(layer=-1), store.matrix(layer=4))
    np.testing.assert_array_equal(store.logits(), np.stack([row.logits for row in rows]))
    np.testing.assert_array_equal(
        store.vector("clip_007", layer=2, pool="max"), rows[7].pooled[1, 1]
    )
    np.testing.assert_array_equal(store.frames("clip_007", layer=2), rows[7].frames[0])
    assert store.classes == CLASSES


def test_what_is_not_stored_is_refused_by_name(tmp_path: Path) -> None:
    store = FeatureStore.write(
        tmp_path / "store",
        make_extraction(
            3, fingerprint=make_fingerprint(ExtractionSpec(layers=(1, 2), logits=False))
        ),
    )
    with pytest.raises(KeyError, match="'clip_001'"):
        store["audio/clip_001.wav"]
    with pytest.raises(StoreError, match="expected one of 1, 2"):
        store.matrix(layer=3)
    with pytest.raises(StoreError, match="expected one of mean"):
        store.matrix(layer=1, pool="max")
    with pytest.raises(StoreError, match="no logits"):
        store.logits()
    with pytest.raises(StoreError, match="no frames of layer 1"):
        store.frames("clip_001", layer=1)
    assert "nothing" not in store


def test_growing_computes_only_what_is_missing(tmp_path: Path) -> None:
    path = tmp_path / "store"
    FeatureStore.write(path, make_extraction(5))
    before = {file.name: file.read_bytes() for file in (path / "shards").iterdir()}
    grown = make_extraction(9)
    store = FeatureStore.write(path, grown)
    assert grown.computed == [f"clip_{n:03d}" for n in range(5, 9)]
    check_same(store, grown)
    assert before.items() <= {f.name: f.read_bytes() for f in (path / "shards").iterdir()}.items()
    again = make_extraction(9)
    FeatureStore.write(path, again)
    assert again.computed == []
    assert len(list((path / "shards").iterdir())) == 2
    fewer = FeatureStore.write(path, make_extraction(2))
    assert len(fewer) == 9, "clips that left the source stay"


def test_changed_audio_replaces_the_old_features(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "store"
    FeatureStore.write(path, make_extraction(4))
    clips = [make_clip(f"clip_{n:03d}", audio="new" if n == 2 else "") for n in range(4)]
    extraction = FakeExtraction(clips)
    with caplog.at_level(logging.WARNING):
        store = FeatureStore.write(path, extraction)
    assert "audio has changed since it was stored (clips: 1, the first: 'clip_002')" in caplog.text
    assert extraction.computed == ["clip_002"]
    check_same(store, extraction)
    assert store.matrix(layer=0).shape == (4, 8)
    np.testing.assert_array_equal(
        store.matrix(layer=3), np.stack([store[name].pooled[3, 0] for name in store])
    )
    check_same(FeatureStore(path), extraction)


def test_segments_are_rows_of_one_clip(tmp_path: Path) -> None:
    extraction = make_extraction(3, segments=2)
    store = FeatureStore.write(tmp_path / "store", extraction)
    assert store.ids[:2] == ["clip_000#0000", "clip_000#0001"]
    row = store["clip_001#0001"]
    assert (row.clip_id, row.start, row.end) == ("clip_001", 3.0, 6.0)
    again = make_extraction(3, segments=2)
    FeatureStore.write(tmp_path / "store", again)
    assert again.computed == []


def test_failures_are_kept_counted_and_retried(tmp_path: Path) -> None:
    path = tmp_path / "store"
    rejected = [ClipFailure(id="bad", file="bad.wav", kind="unreadable", reason="no audio in it")]
    for attempts in (1, 2):
        store = FeatureStore.write(
            path, make_extraction(4, failing={"clip_001": "too loud"}, rejected=rejected)
        )
        assert {f.id: (f.kind, f.reason, f.attempts) for f in store.failures} == {
            "clip_001": ("broken", "too loud", attempts),
            "bad": ("unreadable", "no audio in it", attempts),
        }
        assert store.ids == ["clip_000", "clip_002", "clip_003"]
        assert store.pending == ()
    repaired = make_extraction(4)
    repaired.clips = [*repaired.clips, make_clip("bad", file="bad.wav")]
    store = FeatureStore.write(path, repaired)
    assert repaired.computed == ["clip_001", "bad"]
    assert store.failures == ()


@pytest.mark.parametrize("given", ["f2", "f4"])
@pytest.mark.parametrize(
    ("value", "kind"), [(np.nan, "nan"), (70_000.0, "overflow"), (np.inf, "overflow")]
)
def test_numbers_that_do_not_fit_are_failures(
    tmp_path: Path, value: float, kind: str, given: str
) -> None:
    extraction = make_extraction(3)
    spoiled = features_of(extraction.clips[1], extraction.fingerprint)
    spoiled.pooled[2, 0, 3] = value
    with np.errstate(over="ignore"):
        spoiled = replace(spoiled, pooled=spoiled.pooled.astype(given))
    rows = [features_of(clip, extraction.fingerprint) for clip in extraction.clips]
    rows[1] = spoiled
    store = FeatureStore.write(tmp_path / "half", rows, fingerprint=extraction.fingerprint)
    (failure,) = store.failures
    assert (failure.id, failure.kind) == ("clip_001", kind)
    assert store.ids == ["clip_000", "clip_002"]
    if kind == "overflow":
        assert "--dtype float32" in failure.reason
        full = make_fingerprint(ExtractionSpec(dtype="float32"))
        store = FeatureStore.write(tmp_path / "full", rows, fingerprint=full)
        assert len(store) == (3 if np.isfinite(spoiled.pooled).all() else 2)


def test_logits_beyond_float16_are_kept(tmp_path: Path) -> None:
    data = make_fingerprint()
    row = features_of(make_clip("a"), data)
    row.logits[0] = 1e6
    store = FeatureStore.write(tmp_path / "store", [row], fingerprint=data)
    assert store["a"].logits[0] == 1e6


def test_another_fingerprint_is_refused_with_the_keys(tmp_path: Path) -> None:
    path = tmp_path / "store"
    FeatureStore.write(path, make_extraction(2))
    other = make_fingerprint(ExtractionSpec(preprocess="masked"), weights_sha256="1" * 64)
    extraction = make_extraction(2, fingerprint=other)
    with pytest.raises(FingerprintMismatch) as caught:
        FeatureStore.write(path, extraction)
    assert "spec.preprocess is 'card', not 'masked'" in str(caught.value)
    assert "model.weights_sha256 is '0000" in str(caught.value)
    assert extraction.computed == []
    assert len(FeatureStore(path)) == 2


def test_doubled_ids_are_refused(tmp_path: Path) -> None:
    clips = [make_clip("a"), make_clip("b"), make_clip("a", audio="other")]
    data = make_fingerprint()
    with pytest.raises(StoreError, match="'a' is not unique"):
        FeatureStore.write(
            tmp_path / "rows", [features_of(clip, data) for clip in clips], fingerprint=data
        )


def test_plain_rows_may_bring_the_failure_of_a_second_file_with_their_id(tmp_path: Path) -> None:
    data = make_fingerprint()
    failure = ClipFailure(id="a", file="other/a.wav", kind="duplicate", reason="a is taken")
    rows = [failure, *(features_of(make_clip(name), data) for name in "ab")]
    for _ in range(2):
        store = FeatureStore.write(tmp_path / "store", rows, fingerprint=data)
        assert store.ids == ["a", "b"]
        assert [(f.id, f.file) for f in store.failures] == [("a", "other/a.wav")]


def test_a_window_name_cannot_take_another_clips_place(tmp_path: Path) -> None:
    data = make_fingerprint()
    rows = [
        features_of(make_clip("a"), data, name="same"),
        features_of(make_clip("b"), data, name="same"),
    ]
    store = FeatureStore.write(tmp_path / "store", rows, fingerprint=data)
    assert store.ids == ["same"]
    assert [(f.id, f.kind) for f in store.failures] == [("b", "duplicate")]


def test_rows_that_do_not_fit_the_fingerprint_are_refused(tmp_path: Path) -> None:
    data = make_fingerprint()
    row = features_of(make_clip("a"), data)
    for wrong in (replace(row, pooled=row.pooled[:3]), replace(row, logits=None)):
        with pytest.raises(StoreError, match="expected pooled"):
            FeatureStore.write(tmp_path / "store", [wrong], fingerprint=data)
    with pytest.raises(StoreError, match="without a fingerprint"):
        FeatureStore.write(tmp_path / "store", [row])


def test_ctrl_c_keeps_what_is_done_and_the_next_run_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "store"
    with pytest.raises(KeyboardInterrupt):
        FeatureStore.write(path, make_extraction(20, interrupt_at=13), limits=ShardLimits(clips=5))
    store = FeatureStore(path)
    assert len(store) == 13
    assert len(store.pending) == 7
    rest = make_extraction(20)
    store = FeatureStore.write(path, rest, limits=ShardLimits(clips=5))
    assert len(rest.computed) == 7
    check_same(store, rest)
    assert store.pending == ()


def test_an_extraction_that_forgets_a_clip_is_an_error(tmp_path: Path) -> None:
    extraction = make_extraction(3)
    extraction.results = lambda clips, has: iter(
        list(FakeExtraction.results(extraction, clips, has))[:2]
    )
    with pytest.raises(StoreError, match="nothing for 1 clips, first 'clip_002'"):
        FeatureStore.write(tmp_path / "store", extraction)
    assert len(FeatureStore(tmp_path / "store")) == 2


def test_shards_are_cut_by_bytes_and_by_time(tmp_path: Path) -> None:
    FeatureStore.write(
        tmp_path / "bytes", make_extraction(6), limits=ShardLimits(bytes=5 * 8 * 2 * 2)
    )
    assert len(list((tmp_path / "bytes/shards").iterdir())) == 3
    FeatureStore.write(tmp_path / "time", make_extraction(3), limits=ShardLimits(seconds=0))
    assert len(list((tmp_path / "time/shards").iterdir())) == 3
    with pytest.raises(UsageError, match="0 clips"):
        FeatureStore.write(tmp_path / "none", make_extraction(1), limits=ShardLimits(clips=0))


def test_progress_adds_up(tmp_path: Path) -> None:
    path = tmp_path / "store"
    FeatureStore.write(path, make_extraction(2))
    seen = []
    FeatureStore.write(path, make_extraction(5, failing={"clip_003": "x"}), on_progress=seen.append)
    assert (seen[-1].total, seen[-1].present, seen[-1].stored, seen[-1].failed) == (5, 2, 2, 1)
    assert [progress.clip.id for progress in seen] == [f"clip_{n:03d}" for n in range(5)]
    assert [progress.failure and progress.failure.id for progress in seen][2:] == [
        None, "clip_003", None,
    ]  # fmt: skip


def test_dataframe_has_audformats_index(tmp_path: Path) -> None:
    clips = [make_clip("a", meta={"speaker": "x", "id": "y"}), make_clip("b", file="")]
    frame = FeatureStore.write(tmp_path / "store", FakeExtraction(clips)).to_dataframe()
    assert frame.index.names == ["file", "start", "end"]
    assert frame.index.get_level_values("file").tolist() == ["audio/a.wav", "b"]
    assert frame.index.get_level_values("end").total_seconds().tolist() == [3.0, 3.0]
    assert frame["id"].tolist() == ["a", "b"]
    assert frame["speaker"].tolist()[0] == "x"
    assert frame["status"].tolist() == ["ok", "ok"]


def test_plain_h5py_understands_a_shard(tmp_path: Path) -> None:
    spec = ExtractionSpec(frame_layers=(1,))
    extraction = make_extraction(4, fingerprint=make_fingerprint(spec))
    store = FeatureStore.write(tmp_path / "store", extraction)
    with h5py.File(tmp_path / "store/shards/000000.h5", "r") as file:
        assert file["id"].asstr()[:].tolist() == store.ids
        np.testing.assert_array_equal(file["pooled"][2], store["clip_002"].pooled)
        start, end = file["frame_end"][1:3]
        np.testing.assert_array_equal(file["frames"][:, start:end], store["clip_002"].frames)
        assert file["pooled"].attrs["axes"] == "row, layer, pool, width"
        assert file["start"].attrs["unit"] == "seconds"
        assert file.attrs["classes"].tolist() == list(CLASSES)
        assert file.userblock_size == 512


def test_pickled_stores_read_on(tmp_path: Path) -> None:
    extraction = make_extraction(6)
    store = FeatureStore.write(tmp_path / "store", extraction, limits=ShardLimits(clips=2))
    store["clip_000"]
    check_same(pickle.loads(pickle.dumps(store)), extraction)


def test_empty_store_opens(tmp_path: Path) -> None:
    store = FeatureStore.write(tmp_path / "store", FakeExtraction([]))
    assert (len(store), store.ids, store.matrix(layer=0).shape) == (0, [], (0, 8))
    assert store.to_dataframe().empty


def test_things_that_are_no_store_are_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no store at"):
        FeatureStore(tmp_path / "nothing")
    with pytest.raises(StoreError, match=r"no store\.json"):
        FeatureStore(tmp_path)
    for content in (b"", b"hello", os.urandom(5000)):
        (tmp_path / "file.h5").write_bytes(content)
        with pytest.raises(StoreError, match="not a feature store"):
            FeatureStore(tmp_path / "file.h5")
        with pytest.raises(StoreError, match="is a file"):
            FeatureStore.write(tmp_path / "file.h5", make_extraction(1))
    with pytest.raises(StoreError, match="other files in it"):
        FeatureStore.write(tmp_path, make_extraction(1))
    assert [path.name for path in tmp_path.iterdir()] == ["file.h5"]


def test_the_store_opens_without_torch(tmp_path: Path) -> None:
    FeatureStore.write(tmp_path / "store", make_extraction(2))
    code = (
        "import sys; from exhubert_features import FeatureStore; "
        f"assert len(FeatureStore({str(tmp_path / 'store')!r})) == 2; "
        "assert not {'torch', 'pandas', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_shards_grow_with_the_store() -> None:
    """Ten million clips, one after the other, make some thousand files."""
    limits, shards, stored, clips = ShardLimits(), 0, 0, 0
    while stored < 10_000_000:
        clips += 64
        if limits.reached(clips, 0, 0.0, stored=stored):
            shards, stored, clips = shards + 1, stored + clips, 0
        if stored == 256_000:
            assert clips or shards == 1000
    assert 4_000 < shards < 6_000
