"""Stored features as tensors: in torch's loaders, and in SpeechBrain's pipelines."""

from __future__ import annotations

import pytest
import torch
from store_fakes import FakeExtraction, make_clip, make_extraction, make_fingerprint
from torch.utils.data import DataLoader

from exhubert_features import FeatureStore, StoreDataset
from exhubert_features.dataset import feature_item, pad_frames
from exhubert_features.errors import LabelError, StoreError
from exhubert_features.spec import ExtractionSpec
from exhubert_features.store import ShardLimits

SPEC = ExtractionSpec(layers=(0, 2, 4), pools=("mean", "std"), frame_layers=(2, 3))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    path = tmp_path_factory.mktemp("dataset") / "store"
    extraction = make_extraction(23, fingerprint=make_fingerprint(SPEC))
    return FeatureStore.write(path, extraction, limits=ShardLimits(clips=5))


def test_items_hold_the_features_asked_for(store: FeatureStore) -> None:
    row = store["clip_004"]
    for settings, expected in [
        ({}, row.pooled[:, 0]),
        ({"pool": "std"}, row.pooled[:, 1]),
        ({"layers": 2, "pool": "std"}, row.pooled[1, 1]),
        ({"layers": -1}, row.pooled[2, 0]),
        ({"layers": [4, 0], "pool": "std"}, row.pooled[[2, 0], 1]),
        ({"layers": [2]}, row.pooled[[1], 0]),
        ({"layers": 3, "pool": None}, row.frames[1]),
        ({"layers": [3, 2], "pool": None}, row.frames[::-1].copy()),
        ({"pool": None}, row.frames),
    ]:
        item = StoreDataset(store, ids=["clip_004"], **settings)[0]
        assert item["id"] == "clip_004"
        assert item["feats"].dtype == torch.float32
        assert torch.equal(item["feats"], torch.from_numpy(expected).float())
        assert "label" not in item


def test_labels_are_joined_by_id(store: FeatureStore) -> None:
    labels = {name: place % 3 for place, name in enumerate(reversed(store.ids))}
    dataset = StoreDataset(store, labels=labels, ids=["clip_007", "clip_002"], layers=0)
    assert [item["label"].item() for item in dataset] == [labels["clip_007"], labels["clip_002"]]
    assert dataset[0]["label"].dtype == torch.int64
    values = dict.fromkeys(store.ids, 0.5)
    assert StoreDataset(store, labels=values, layers=0)[3]["label"].dtype == torch.float32
    del labels["clip_002"]
    with pytest.raises(LabelError, match="1 of 2 ids have no label, the first is 'clip_002'"):
        StoreDataset(store, labels=labels, ids=["clip_007", "clip_002"])


def test_what_is_not_stored_is_refused_at_once(store: FeatureStore) -> None:
    with pytest.raises(KeyError, match="'nowhere'"):
        StoreDataset(store, ids=["clip_001", "nowhere"])
    with pytest.raises(StoreError, match="no pooled features of layer 3"):
        StoreDataset(store, layers=3)
    with pytest.raises(StoreError, match="pool 'max'"):
        StoreDataset(store, pool="max")
    with pytest.raises(StoreError, match="no frames of layer 0"):
        StoreDataset(store, layers=0, pool=None)


def test_frames_are_padded_with_their_lengths(store: FeatureStore) -> None:
    dataset = StoreDataset(store, labels=dict.fromkeys(store.ids, 1), layers=2, pool=None)
    batch = next(iter(DataLoader(dataset, batch_size=6, collate_fn=pad_frames)))
    assert batch["feats"].shape == (6, max(batch["lengths"]), 8)
    assert len(set(batch["lengths"].tolist())) > 1, "the fake clips differ in length"
    for row, (name, length) in enumerate(zip(batch["id"], batch["lengths"], strict=True)):
        frames = torch.from_numpy(store[name].frames[0]).float()
        assert torch.equal(batch["feats"][row, :length], frames)
        assert not batch["feats"][row, length:].any()
    assert batch["label"].tolist() == [1] * 6


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:This DataLoader will create 4 worker")
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_four_workers_read_what_one_process_reads(store: FeatureStore, method: str) -> None:
    dataset = StoreDataset(store, layers=4)
    dataset[0], dataset[22]  # files are open before the workers start
    loader = DataLoader(dataset, batch_size=3, num_workers=4, multiprocessing_context=method)
    for _ in range(2 if method == "fork" else 1):
        batches = list(loader)
        assert [name for batch in batches for name in batch["id"]] == store.ids
        together = torch.cat([batch["feats"] for batch in batches])
        assert torch.equal(together, torch.from_numpy(store.matrix(layer=4)).float())


def test_speechbrain_reads_cached_features_by_id(store: FeatureStore) -> None:
    dataset_module = pytest.importorskip("speechbrain.dataio.dataset")
    data = {name: {"emotion": "joy"} for name in store.ids[:4]}
    dataset = dataset_module.DynamicItemDataset(data, output_keys=["id", "feats", "emotion"])
    dataset_module.add_dynamic_item([dataset], feature_item(store, layers=2))
    for item in dataset:
        assert item["emotion"] == "joy"
        expected = torch.from_numpy(store[item["id"]].pooled[1, 0]).float()
        assert torch.equal(item["feats"], expected)


@pytest.fixture(scope="module")
def emotional(tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    """Four clips with an emotion, one without."""
    emotions = ["sad", "happy", "", "angry", "sad"]
    clips = [make_clip(f"c{n}", meta={"emotion": word}) for n, word in enumerate(emotions)]
    path = tmp_path_factory.mktemp("emotional") / "store"
    return FeatureStore.write(path, FakeExtraction(clips))


def test_labels_may_be_a_column_of_the_manifest(emotional: FeatureStore) -> None:
    ids = ["c0", "c1", "c3", "c4"]
    dataset = StoreDataset(emotional, labels="emotion", ids=ids, layers=1)
    assert dataset.classes == ("angry", "happy", "sad")
    assert [item["label"].item() for item in dataset] == [2, 1, 0, 2]
    assert dataset[0]["label"].dtype == torch.int64
    given = StoreDataset(emotional, labels="emotion", ids=ids, classes=("sad", "happy", "angry"))
    assert [item["label"].item() for item in given] == [0, 1, 2, 0]
    words = StoreDataset(emotional, labels={"c0": "yes", "c1": "no"}, ids=["c0", "c1"])
    assert (words.classes, words.labels) == (("no", "yes"), [1, 0])


def test_columns_and_classes_that_do_not_fit_are_refused(emotional: FeatureStore) -> None:
    with pytest.raises(LabelError, match="1 of 5 ids have no label, the first is 'c2'"):
        StoreDataset(emotional, labels="emotion")
    with pytest.raises(LabelError, match=r"no row of .* column 'mood'; expected one of emotion"):
        StoreDataset(emotional, labels="mood")
    with pytest.raises(LabelError, match="1 labels are no class, such as 'happy'"):
        StoreDataset(emotional, labels="emotion", ids=["c0", "c1"], classes=["sad"])
