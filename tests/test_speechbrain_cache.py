"""SpeechBrain's HDF5 cache of features into a store and out of one, by its own classes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from speechbrain.dataio.dataset import DynamicItemDataset
from speechbrain.utils.data_pipeline import provides, takes

from exhubert_features import FeatureStore, load_encoder
from exhubert_features.errors import StoreError, UsageError
from exhubert_features.fingerprint import Fingerprint
from exhubert_features.spec import ExtractionSpec
from exhubert_features.speechbrain import (
    ExHuBERT,
    cache_stored_features,
    store_cached_features,
)

try:  # of SpeechBrain 1.1
    from speechbrain.integrations.hdf5.cached_item import CachedHDF5DynamicItem
except ImportError:
    CachedHDF5DynamicItem = None

CLIPS = {"speaker1/a": 16_000, "speaker1/b": 9_000, "c": 20_000}


def noise(name: str) -> torch.Tensor:
    generator = torch.Generator().manual_seed(CLIPS[name])
    return 0.1 * torch.randn(CLIPS[name], generator=generator)


@pytest.mark.skipif(CachedHDF5DynamicItem is None, reason="SpeechBrain 1.0 has no HDF5 cache")
def test_cache_of_the_recipe_becomes_a_store_and_a_cache_again(
    two_layers: Path, tmp_path: Path
) -> None:
    lobe = ExHuBERT(str(two_layers), None, freeze=True, preprocess="masked").eval()

    def dataset(folder: Path) -> tuple[DynamicItemDataset, CachedHDF5DynamicItem]:
        """As SpeechBrain's extract_ssl_feats has it."""
        folder.mkdir(exist_ok=True)

        @CachedHDF5DynamicItem.cache(folder, compression="gzip")
        @takes("id", "sig")
        @provides("feats")
        def compute(name: str, sig: torch.Tensor) -> torch.Tensor:
            computed.append(name)
            return lobe(sig.unsqueeze(0), torch.ones(1)).squeeze(0)

        @takes("id")
        @provides("sig")
        def read(name: str) -> torch.Tensor:
            return noise(name)

        items = {name: {"length": length} for name, length in CLIPS.items()}
        return DynamicItemDataset(items, [read, compute], ["id", "feats"]), compute

    computed: list[str] = []
    data, item = dataset(tmp_path / "cache")
    expected = {one["id"]: np.asarray(one["feats"]) for one in data}
    item.hdf5file.close()
    assert sorted(computed) == sorted(CLIPS)

    encoder = load_encoder(two_layers, device="cpu")
    spec = ExtractionSpec(
        layers=(2,), frame_layers=(2,), logits=False, preprocess="masked", dtype="float32"
    )
    known = Fingerprint(model=encoder.identity, spec=spec)
    store = store_cached_features(tmp_path / "cache", tmp_path / "store", fingerprint=known)
    ours = encoder.extract({name: noise(name).numpy() for name in CLIPS}, spec=spec)
    own = ours.write(tmp_path / "own")
    for name in CLIPS:
        np.testing.assert_array_equal(store.frames(name, layer=2), expected[name])
        np.testing.assert_allclose(
            store.frames(name, layer=2), own.frames(name, layer=2), rtol=0, atol=1e-4
        )
        mean = store.vector(name, layer=2)
        np.testing.assert_allclose(mean, expected[name].mean(0), rtol=0, atol=1e-6)

    cache_stored_features(own, tmp_path / "again", layer=2)
    computed.clear()
    data, item = dataset(tmp_path / "again")
    for one in data:
        np.testing.assert_allclose(one["feats"], expected[one["id"]], rtol=0, atol=1e-4)
    item.hdf5file.close()
    assert computed == []  # all of it came from the cache


def write_cache(path: Path, **arrays: np.ndarray) -> Path:
    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            file[name] = array
    return path


def test_unknown_models_do_not_mix_and_what_is_wrong_is_recorded(tmp_path: Path) -> None:
    good = np.random.default_rng(0).normal(size=(7, 4)).astype(np.float32)
    nan = np.full((3, 4), np.nan, np.float32)
    arrays = {"good": good, "narrow": good[:, :2], "deep": good[None], "nan": nan}
    cache = write_cache(tmp_path / "a.h5", whole=good.astype(int), **arrays)
    store = store_cached_features(cache, tmp_path / "store")
    assert store.ids == ["good"] and store.frame_layers == (0,)
    assert {failure.id: failure.reason for failure in store.failures} == {
        "narrow": "narrow has shape (7, 2), not (frames, 4)",
        "deep": "deep has shape (1, 7, 4), not (frames, 4)",
        "whole": "whole is int64, not floating point",
        "nan": "nan holds values that are not finite",
    }
    other = write_cache(tmp_path / "b.h5", good=good + 1)
    with pytest.raises(StoreError, match="weights_sha256"):
        store_cached_features(other, tmp_path / "store")
    (tmp_path / "b.h5").write_bytes(other.read_bytes()[:900])  # as a killed run leaves it
    with pytest.raises(StoreError, match=r"cannot be read as HDF5.*fill it again"):
        store_cached_features(other, tmp_path / "new")
    with pytest.raises(StoreError, match="is not there"):
        store_cached_features(tmp_path, tmp_path / "new")
    spec = ExtractionSpec(layers=(0,), logits=False)
    with pytest.raises(UsageError, match="expected one layer"):
        store_cached_features(
            cache, tmp_path / "new", fingerprint=replace(store.fingerprint, spec=spec)
        )


def test_ids_that_collide_in_hdf5_are_refused(tmp_path: Path) -> None:
    def store(*names: str) -> FeatureStore:
        cache = write_cache(tmp_path / "one.h5", x=np.ones((2, 4), np.float32))
        row = store_cached_features(cache, tmp_path / "one")["x"]
        fingerprint = FeatureStore(tmp_path / "one").fingerprint
        rows = [replace(row, id=name, clip_id=name) for name in names]
        folder = tmp_path / f"store{len(list(tmp_path.iterdir()))}"
        return FeatureStore.write(folder, rows, fingerprint=fingerprint)

    for names in (["a", "a/b"], ["a//b"], ["a/"]):
        with pytest.raises(UsageError, match="collide in HDF5"):
            cache_stored_features(store(*names), tmp_path / "cache", layer=0)
    path = cache_stored_features(store("a/b", "a/c"), tmp_path / "cache", layer=0)
    with h5py.File(path) as file:
        assert file["a/b"].shape == (2, 4)
    with pytest.raises(UsageError, match="is there already"):
        cache_stored_features(store("d"), tmp_path / "cache", layer=0)
