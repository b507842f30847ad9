"""One file out of a store, one store out of several."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from store_fakes import FakeExtraction, make_clip, make_extraction, make_fingerprint
from test_store import HARD_IDS, check_same

from exhubert_features import FeatureStore
from exhubert_features.errors import FingerprintMismatch, StoreError
from exhubert_features.records import ClipFailure
from exhubert_features.spec import ExtractionSpec
from exhubert_features.store import ShardLimits, merge, pack

RAGGED = make_fingerprint(ExtractionSpec(frame_layers=(0, 3), pools=("mean", "std")))


def test_packed_store_is_the_same_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Blocks of one row, so that packing has to put many pieces together.
    monkeypatch.setattr("exhubert_features.store.arrays.BLOCK_BYTES", 1)
    clips = [make_clip(name, meta={"speaker": name[:2]}) for name in HARD_IDS]
    rejected = [ClipFailure(id="bad", file="bad.wav", kind="unreadable", reason="nothing in it")]
    extraction = FakeExtraction(clips, fingerprint=RAGGED, rejected=rejected)
    FeatureStore.write(tmp_path / "store", extraction, limits=ShardLimits(clips=3))
    changed = [make_clip(HARD_IDS[1], audio="other"), *clips[:1], *clips[2:]]
    extraction = FakeExtraction(changed, fingerprint=RAGGED, rejected=rejected)
    store = FeatureStore.write(tmp_path / "store", extraction, limits=ShardLimits(clips=3))
    packed = pack(tmp_path / "store", tmp_path / "all.h5")
    check_same(packed, extraction)
    assert packed.ids == store.ids
    assert packed.failures == store.failures
    assert packed.fingerprint == store.fingerprint
    np.testing.assert_array_equal(
        packed.matrix(layer=2, pool="std"), store.matrix(layer=2, pool="std")
    )
    assert packed.to_dataframe().equals(store.to_dataframe())
    for name in HARD_IDS:
        np.testing.assert_array_equal(packed.frames(name, layer=3), store.frames(name, layer=3))
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["all.h5"]


def test_packing_never_overwrites(tmp_path: Path) -> None:
    FeatureStore.write(tmp_path / "store", make_extraction(2))
    (tmp_path / "all.h5").write_text("mine")
    with pytest.raises(StoreError, match="exists"):
        pack(tmp_path / "store", tmp_path / "all.h5")
    assert (tmp_path / "all.h5").read_text() == "mine"
    with pytest.raises(StoreError, match="cannot be written"):
        pack(tmp_path / "store", tmp_path / "no/such/folder.h5")


def test_merge_keeps_equal_clips_once(tmp_path: Path) -> None:
    left, right = make_extraction(5), make_extraction(4, prefix="other")
    right.clips = [*right.clips, left.clips[2]]
    right.rejected = [ClipFailure(id="bad", file="bad.wav", kind="empty", reason="no samples")]
    FeatureStore.write(tmp_path / "left", left, limits=ShardLimits(clips=2))
    FeatureStore.write(tmp_path / "right", right, limits=ShardLimits(clips=2))
    pack(tmp_path / "right", tmp_path / "right.h5")
    merged = merge([tmp_path / "left", tmp_path / "right.h5"], tmp_path / "both")
    assert merged.repeated == ("clip_002",)
    check_same(merged.store, FakeExtraction([*left.clips, *right.clips[:-1]]))
    assert [failure.id for failure in merged.store.failures] == ["bad"]
    again = merge([tmp_path / "left", tmp_path / "right"], tmp_path / "both")
    assert len(again.store) == 9
    grown = make_extraction(7)
    FeatureStore.write(tmp_path / "both", grown)
    assert grown.computed == ["clip_005", "clip_006"]


def test_merge_keeps_the_windows_of_a_clip_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where a shard is larger than what is copied at once."""
    monkeypatch.setattr("exhubert_features.store.arrays.BLOCK_BYTES", 1)
    one = FeatureStore.write(tmp_path / "one", make_extraction(3, segments=4))
    copy = merge([tmp_path / "one"], tmp_path / "copy").store
    assert copy.ids == one.ids
    assert len(copy) == 12
    np.testing.assert_array_equal(copy.matrix(layer=1), one.matrix(layer=1))


def test_merge_refuses_contradictions(tmp_path: Path) -> None:
    FeatureStore.write(tmp_path / "left", make_extraction(2))
    other = FakeExtraction([make_clip("clip_001", audio="another")])
    FeatureStore.write(tmp_path / "right", other)
    with pytest.raises(StoreError, match="'clip_001' has different audio"):
        merge([tmp_path / "left", tmp_path / "right"], tmp_path / "both")
    assert not (tmp_path / "both").exists()
    masked = make_extraction(1, fingerprint=make_fingerprint(ExtractionSpec(preprocess="masked")))
    FeatureStore.write(tmp_path / "masked", masked)
    with pytest.raises(FingerprintMismatch, match=r"spec\.preprocess"):
        merge([tmp_path / "left", tmp_path / "masked"], tmp_path / "both")
    rows = make_extraction(1, prefix="clip_000#", segments=0)
    windows = FakeExtraction([make_clip("clip_000")], segments=1)
    rows.clips = [make_clip("clip_000#0000")]
    FeatureStore.write(tmp_path / "rows", rows)
    FeatureStore.write(tmp_path / "windows", windows)
    with pytest.raises(StoreError, match="row 'clip_000#0000' belongs"):
        merge([tmp_path / "rows", tmp_path / "windows"], tmp_path / "both")
