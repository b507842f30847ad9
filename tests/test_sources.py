"""Sources of Python: tables and indexes as pandas has them, arrays, clips that are loaded late."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import soundfile
from read_plans import read_plan
from waves import noise

from exhubert_features import Encoder, LazyClip, StoreDataset, load_encoder
from exhubert_features.errors import UsageError
from exhubert_features.store import WriteProgress


@pytest.fixture(scope="module")
def encoder(two_layers: Path) -> Encoder:
    return load_encoder(two_layers, device="cpu")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("files")
    for name, samples in (("a", 20_000), ("b", 60_000)):
        soundfile.write(folder / f"{name}.wav", noise(samples), 16_000)
    return [str(folder / "a.wav"), str(folder / "b.wav")]


def index(files: list[str]) -> pd.MultiIndex:
    times = pd.to_timedelta([0.5, 1.0], unit="s"), pd.to_timedelta([1.0, None], unit="s")
    return pd.MultiIndex.from_arrays([files, *times], names=["file", "start", "end"])


TABLES: dict[str, Callable[[list[str]], Any]] = {
    "frame with columns": lambda files: pd.DataFrame(
        {"file": files, "start": [0.5, 1.0], "end": [1.0, None], "emotion": ["joy", "fear"]}
    ),
    "frame on audformat's index": lambda files: pd.DataFrame(
        {"emotion": ["joy", "fear"]}, index=index(files)
    ),
    "series on audformat's index": lambda files: pd.Series(
        ["joy", "fear"], index=index(files), name="emotion"
    ),
    "audformat's index": index,
}


@pytest.mark.parametrize("kind", TABLES)
def test_tables(kind: str, files: list[str]) -> None:
    plan = read_plan(TABLES[kind](files))
    assert [(clip.file, clip.start, clip.end) for clip in plan.clips] == [
        (files[0], 0.5, 1.0),
        (files[1], 1.0, None),
    ]
    assert [clip.samples for clip in plan.clips] == [8_000, 44_000]
    emotions = [clip.meta.get("emotion") for clip in plan.clips]
    assert emotions == ([None, None] if kind == "audformat's index" else ["joy", "fear"])


@pytest.mark.parametrize("kind", [pd.Series, pd.Index, lambda files: iter(map(Path, files))])
def test_files_alone(kind: Callable[[list[str]], Any], files: list[str]) -> None:
    assert [clip.id for clip in read_plan(kind(files)).clips] == files


def test_what_comes_out_goes_in_again(encoder: Encoder, files: list[str], tmp_path: Path) -> None:
    features = encoder.extract(files, layers=2).to_dataframe()
    store = encoder.extract(files, layers=2).write(tmp_path / "store")
    for table in (features, store.to_dataframe(), store.to_dataframe(layer=2)):
        for source in (table, table.index, table[table.columns[0]]):
            again = encoder.extract(source, layers=2).to_dataframe()
            np.testing.assert_allclose(
                again.filter(like="feature_"), features.filter(like="feature_"), atol=1e-6
            )
            pd.testing.assert_index_equal(again.index, features.index)


def test_arrays_in_a_list_and_out_of_a_generator(encoder: Encoder) -> None:
    waves = [noise(16_000), (noise(11_025), 22_050)]
    for source in (waves, iter(waves)):
        assert [row.id for row in encoder.extract(source, layers=1)] == ["0", "1"]


def lazy_clips(loaded: list[str]) -> Iterator[LazyClip]:
    lock = threading.Lock()

    def clip(number: int) -> LazyClip:
        def load() -> tuple[np.ndarray, int]:
            with lock:
                loaded.append(f"clip {number}")
            if number == 2:
                raise KeyError("no such record")
            return np.stack([noise(20_000, number), noise(20_000, number + 9)]), 20_000

        return LazyClip(
            id=f"clip {number}", load=load, labels={"emotion": "joy", "take": number, "age": None}
        )

    return (clip(number) for number in range(4))


def test_lazy_clips(encoder: Encoder, tmp_path: Path) -> None:
    loaded: list[str] = []
    extraction = encoder.extract(lazy_clips(loaded), layers=2)
    assert loaded == []  # not before their turn
    store = extraction.write(tmp_path / "store")
    assert sorted(loaded) == [f"clip {number}" for number in range(4)]  # once each
    (failed,) = extraction.failures
    assert (failed.id, failed.kind) == ("clip 2", "unreadable")
    assert "KeyError: 'no such record'" in failed.reason
    with pytest.raises(UsageError, match="read to its end"):
        extraction.write(tmp_path / "store")
    assert store.ids == ["clip 0", "clip 1", "clip 3"]
    assert store["clip 3"].meta == {"emotion": "joy", "take": "3"}
    assert StoreDataset(store, layers=2, labels="emotion").classes == ("joy",)
    both = np.stack([noise(20_000, 3), noise(20_000, 12)])
    (alone,) = encoder.extract({"clip 3": (both, 20_000)}, layers=2)
    np.testing.assert_array_equal(alone.pooled.astype("f2"), store["clip 3"].pooled)
    states: list[WriteProgress] = []
    again = encoder.extract(list(lazy_clips(loaded)), layers=2)
    again.write(tmp_path / "store", on_progress=states.append)
    assert (states[-1].present, states[-1].stored) == (3, 0)  # known by their hashes


def test_lazy_clips_that_cannot_be_used() -> None:
    clips = [
        LazyClip(id="a", load=lambda: noise(16_000)),
        LazyClip(id="a", load=lambda: noise(16_001)),
        LazyClip(id="words", load=lambda: "a.wav"),  # type: ignore[arg-type, return-value]
        LazyClip(id="short", load=lambda: noise(10)),
    ]
    plan = read_plan(clips)
    assert [clip.samples for clip in plan.clips] == [16_000]
    kinds = {failure.id: failure.kind for failure in plan.failures}
    assert kinds == {"a (2)": "duplicate", "words": "dtype", "short": "too_short"}
    with pytest.raises(UsageError, match="only LazyClips"):
        read_plan([clips[0], "a.wav"])  # type: ignore[list-item]
