"""Extraction: the right numbers, in any batch, for short and long clips; failures stay alone."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import soundfile
import torch
from waves import noise

from exhubert_features import FeatureStore
from exhubert_features.encoder import Encoder, load_encoder
from exhubert_features.errors import AudioError, FingerprintMismatch, UsageError
from exhubert_features.extraction import Extraction, Source
from exhubert_features.extraction.decoding import Read, decode_ahead
from exhubert_features.records import ClipFailure, ClipFeatures, Entry
from exhubert_features.spec import ExtractionSpec

LENGTHS = (400, 5_000, 16_000, 47_999, 48_000, 60_000, 150_001)


def extract(
    source: Source, encoder: Encoder, spec: ExtractionSpec | None = None, **options: Any
) -> Extraction:
    """``encoder.extract``, also for objects that only behave like an encoder."""
    return Encoder.extract(encoder, source, spec=spec, **options)


CLIPS = {f"clip{length}": noise(length) for length in LENGTHS}


@pytest.fixture(scope="module")
def encoder(two_layers: Path) -> Encoder:
    return load_encoder(two_layers, device="cpu")


def features(extraction: Extraction) -> dict[str, ClipFeatures]:
    rows = list(extraction)
    assert all(isinstance(row, ClipFeatures) for row in rows)
    return {row.id: row for row in rows}  # type: ignore[misc]


def close(found: ClipFeatures, wanted: ClipFeatures) -> None:
    assert (found.id, found.start, found.end) == (wanted.id, wanted.start, wanted.end)
    np.testing.assert_allclose(found.pooled, wanted.pooled, atol=1e-5)
    np.testing.assert_allclose(found.logits, wanted.logits, atol=1e-5)
    if wanted.frames is not None:
        np.testing.assert_allclose(found.frames, wanted.frames, atol=1e-5)


@pytest.mark.slow
def test_the_cards_numbers(golden: dict[str, np.ndarray], tiny_checkpoint: Path) -> None:
    """Within one window, logits are the card's; whole-clip means of a long clip too."""
    encoder = load_encoder(tiny_checkpoint, device="cpu")
    clips = {str(index): golden[f"c{index}_raw"] for index in range(3)}
    rows = features(extract(clips, encoder, ExtractionSpec(window=4.0, hop=4.0)))
    for index, row in enumerate(rows.values()):
        np.testing.assert_allclose(row.logits, golden[f"c{index}_logits"][0], atol=1e-4)
    for index in (1, 2):  # the first is shorter than 3 s: pooled over its own frames alone
        np.testing.assert_allclose(
            rows[str(index)].pooled[:, 0], golden[f"c{index}_hidden_mean"], atol=1e-4
        )


def test_short_clips_pool_their_own_frames(encoder: Encoder) -> None:
    wave = noise(20_000)
    row = features(extract({"a": wave}, encoder, ExtractionSpec()))["a"]
    output = encoder([wave], preprocess="card")
    assert output.layers.shape[2] == 149  # the card pads to 3 s
    own = output.layers[:, 0, : encoder.frame_count(20_000)].mean(dim=1)
    np.testing.assert_allclose(row.pooled[:, 0], own, atol=1e-5)
    np.testing.assert_allclose(row.logits, output.logits[0], atol=1e-5)


@pytest.mark.parametrize("preprocess", ["card", "masked"])
def test_alone_and_in_any_batch(encoder: Encoder, preprocess: str) -> None:
    spec = ExtractionSpec(pools=("mean", "std", "max"), frame_layers=(2, 0), preprocess=preprocess)
    alone = {
        name: features(extract({name: wave}, encoder, spec, batch_size=1))[name]
        for name, wave in CLIPS.items()
    }
    for size in (1, 2, 5, 64):
        together = features(extract(CLIPS, encoder, spec, batch_size=size))
        assert list(together) == list(CLIPS)  # in the order given
        for name, row in together.items():
            close(row, alone[name])


def test_pooled_and_frames_agree(encoder: Encoder) -> None:
    spec = ExtractionSpec(pools=("max", "std"), layers=(1,), frame_layers=(2, 1), hop=1.0)
    for row in features(extract(CLIPS, encoder, spec)).values():
        assert row.frames is not None
        frames = row.frames[1].astype(np.float64)  # in the order asked for: 2, then 1
        np.testing.assert_allclose(row.pooled[0, 0], frames.max(axis=0), atol=1e-6)
        np.testing.assert_allclose(row.pooled[0, 1], frames.std(axis=0), atol=1e-5)


def test_long_clips_average_the_logits_of_their_windows(encoder: Encoder) -> None:
    wave = noise(150_001)
    whole = features(extract({"a": wave}, encoder, ExtractionSpec()))["a"]
    windows = [wave[start : start + 48_000] for start in (0, 48_000, 96_000, 150_001 - 48_000)]
    logits = encoder(windows, preprocess="card").logits
    np.testing.assert_allclose(whole.logits, logits.mean(dim=0), atol=1e-5)


def test_many_windows_are_joined_as_one(encoder: Encoder) -> None:
    spec = ExtractionSpec(
        window=0.1, hop=0.1, pools=("mean", "std"), frame_layers=(2,), preprocess="masked"
    )
    row = features(extract({"a": noise(16_000 * 15)}, encoder, spec))["a"]
    assert row.frames is not None
    assert row.frames.shape[1] == encoder.frame_count(16_000 * 15)  # 749, over all borders
    np.testing.assert_allclose(row.pooled[2, 0], row.frames[0].mean(axis=0), atol=1e-5)
    np.testing.assert_allclose(row.pooled[2, 1], row.frames[0].std(axis=0), atol=1e-5)


def test_frames_of_a_minute_are_on_time(encoder: Encoder, tmp_path: Path) -> None:
    """60 s have 2,999 frames, 20 ms apart; those of version 0.1.0 were 380 ms early at the end."""
    minute = {"a": noise(16_000 * 60)}
    extraction = extract(minute, encoder, ExtractionSpec(layers=(2,), frame_layers=(0,)))
    (row,) = features(extraction).values()
    assert row.frames is not None and row.frame_times is not None
    assert row.frames.shape[1] == len(row.frame_times) == 2_999
    np.testing.assert_allclose(row.frame_times, encoder.frame_times(16_000 * 60), atol=1e-9)
    np.testing.assert_allclose(row.frame_times[[0, -1]], [0.0125, 59.9725], atol=1e-9)
    store = extraction.write(tmp_path / "store")
    np.testing.assert_array_equal(store["a"].frame_times, row.frame_times)
    with h5py.File(tmp_path / "store/shards/000000.h5") as file:  # for other readers of HDF5
        told = file["start"][0] + file.attrs["frame_first"]
        told += file.attrs["frame_shift"] * np.arange(file["frame_end"][0])
    np.testing.assert_allclose(told, row.frame_times, atol=1e-9)

    earlier = ExtractionSpec(layers=(2,), frame_layers=(0,), gapless=False)
    old = extract(minute, encoder, earlier).write(tmp_path / "old")
    assert old["a"].frames.shape[1] == 2_980
    steps = np.diff(old["a"].frame_times)
    assert (np.round(steps, 6) == 0.04).sum() == 19  # its gaps, told honestly
    assert old["a"].frame_times[-1] == pytest.approx(59.9725)
    with pytest.raises(FingerprintMismatch, match="gapless"):
        FeatureStore.write(tmp_path / "old", extraction)
    extraction.write(tmp_path / "old")  # nothing to do: it goes on as it was begun
    assert extraction.fingerprint == old.fingerprint


def test_segments(encoder: Encoder) -> None:
    wave = noise(100_000)
    rows = features(extract({"a": wave}, encoder, ExtractionSpec(segments=True)))
    assert [(row.id, row.clip_id, row.start, row.end) for row in rows.values()] == [
        ("a#0000", "a", 0.0, 3.0),
        ("a#0001", "a", 3.0, 6.0),
        ("a#0002", "a", 3.25, 6.25),
    ]
    output = encoder([wave[-48_000:]], preprocess="card")
    np.testing.assert_allclose(rows["a#0002"].pooled[:, 0], output.layers[:, 0].mean(1), atol=1e-5)
    np.testing.assert_allclose(rows["a#0002"].logits, output.logits[0], atol=1e-5)


def test_segment_times_count_from_the_file(encoder: Encoder, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", noise(16_000 * 9), 16_000)
    (tmp_path / "list.csv").write_text("id,file,start,end\nx,a.wav,1.5,8.5\n")
    spec = ExtractionSpec(segments=True)
    rows = features(extract(tmp_path / "list.csv", encoder, spec))
    assert [(row.start, row.end) for row in rows.values()] == [(1.5, 4.5), (4.5, 7.5), (5.5, 8.5)]


@pytest.mark.parametrize("rate", [16_000, 22_050])
def test_file_door_and_array_door_are_one(encoder: Encoder, tmp_path: Path, rate: int) -> None:
    wave = (np.round(noise(3 * rate) * 32768) / 32768).astype(np.float32)
    soundfile.write(tmp_path / "a.wav", wave, rate)
    (from_file,) = features(extract(tmp_path / "a.wav", encoder)).values()
    (from_array,) = features(extract({"a": (wave, rate)}, encoder)).values()
    np.testing.assert_array_equal(from_file.pooled, from_array.pooled)
    np.testing.assert_array_equal(from_file.logits, from_array.logits)


def test_nothing_of_the_model_is_run_in_vain(encoder: Encoder) -> None:
    spec = ExtractionSpec(layers=(0, 1), logits=False)
    row = features(extract({"a": noise(8_000)}, encoder, spec))["a"]
    assert row.logits is None
    assert row.pooled.shape == (2, 1, encoder.hidden_size)


def test_failures_stay_alone(encoder: Encoder, tmp_path: Path) -> None:
    good = noise(16_000)
    soundfile.write(tmp_path / "a.wav", good, 16_000)
    soundfile.write(tmp_path / "b.flac", noise(64_000), 16_000)
    content = (tmp_path / "b.flac").read_bytes()
    (tmp_path / "b.flac").write_bytes(content[: len(content) // 2])
    soundfile.write(tmp_path / "c.wav", good[:300], 16_000)
    soundfile.write(tmp_path / "d.wav", np.where(good > 0.2, np.nan, good), 16_000, "FLOAT")
    soundfile.write(tmp_path / "e.wav", good, 16_000)
    extraction = extract(tmp_path, encoder)
    kinds = {row.id: getattr(row, "kind", "fine") for row in extraction}
    assert kinds == {
        "a.wav": "fine",
        "b.flac": "truncated",
        "c.wav": "too_short",
        "d.wav": "nan",
        "e.wav": "fine",
    }
    assert [failure.id for failure in extraction.failures] == ["b.flac", "c.wav", "d.wav"]
    with pytest.raises(AudioError, match=r"b\.flac"):
        list(extract(tmp_path, encoder, strict=True))


def test_silence_is_kept_with_a_warning(encoder: Encoder) -> None:
    row = features(extract({"a": np.zeros(16_000, np.float32)}, encoder))["a"]
    assert row.warnings == ("silent",)
    assert np.isfinite(row.pooled).all()


def test_a_file_that_changes_after_planning(encoder: Encoder, tmp_path: Path) -> None:
    """What is hashed and what is encoded are the same bytes, whenever they are read."""
    path = tmp_path / "a.wav"
    soundfile.write(path, noise(16_000), 16_000)
    extraction = extract(path, encoder)
    soundfile.write(path, noise(16_001), 16_000)
    (row,) = extraction
    assert isinstance(row, ClipFeatures)
    assert row.samples == 16_001
    assert row.audio_sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    path.unlink()
    (row,) = extraction
    assert isinstance(row, ClipFailure)
    assert row.kind == "missing"


class Limited:
    """An encoder on a device with room for so many windows; each call says how many came."""

    def __init__(self, encoder: Encoder, room: Callable[[int], bool]) -> None:
        self._encoder, self._room = encoder, room
        self.sizes: list[int] = []

    def __getattr__(self, name: str) -> object:
        return getattr(self._encoder, name)

    def visit(self, waves: list[np.ndarray], on_state: object, **options: object) -> object:
        self.sizes.append(len(waves))
        if not self._room(max(len(waves) * len(wave) for wave in waves)):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB\nmore text")
        return self._encoder.visit(waves, on_state, **options)


def test_short_clips_meet_their_like_in_batches_as_long_as_others(encoder: Encoder) -> None:
    lengths = np.random.default_rng(0).integers(8_000, 32_000, 300)  # 0.5 to 2 s
    batches: list[list[int]] = []

    class Noting(Limited):
        def visit(self, waves: list[np.ndarray], on_state: object, **options: object) -> object:
            batches.append([len(wave) for wave in waves])
            return super().visit(waves, on_state, **options)

    clips = {str(index): noise(int(length), index) for index, length in enumerate(lengths)}
    spec = ExtractionSpec(preprocess="masked", layers=(0,), logits=False)
    noting = Noting(encoder, lambda samples: True)
    assert list(features(extract(clips, noting, spec))) == list(clips)  # in order all the same

    def wasted(parts: list[list[int]]) -> float:
        return 1 - sum(map(sum, parts)) / sum(len(part) * max(part) for part in parts)

    in_order = [lengths[first : first + 8].tolist() for first in range(0, len(lengths), 8)]
    assert wasted(in_order) > 0.25
    assert wasted(batches) < 0.06
    padded = sorted(len(part) * max(part) / 16_000 for part in batches)
    assert padded[2] > 20  # seconds; 24 is what suits a CPU, but for the last of all
    assert padded[-1] <= 24


def test_out_of_memory_halves_the_batch_and_goes_on(encoder: Encoder) -> None:
    clips = {str(index): noise(48_000, index) for index in range(16)}
    limited = Limited(encoder, lambda samples: samples <= 3 * 48_000)
    rows = features(extract(clips, limited, batch_size=8))  # type: ignore[arg-type]
    wanted = features(extract(clips, encoder))
    assert list(rows) == list(clips)
    for name, row in rows.items():
        close(row, wanted[name])
    assert limited.sizes == [8, 4, 2, 2, 2, 2, 2, 2, 2, 2]


def test_one_window_too_large_is_a_failure(encoder: Encoder) -> None:
    clips = {"a": noise(16_000), "huge": noise(64_000), "b": noise(16_000)}
    limited = Limited(encoder, lambda samples: samples < 64_000)
    spec = ExtractionSpec(preprocess="masked", window=5.0, hop=5.0)
    rows = {row.id: row for row in extract(clips, limited, spec)}  # type: ignore[arg-type]
    assert isinstance(rows["a"], ClipFeatures)
    assert isinstance(rows["b"], ClipFeatures)
    failure = rows["huge"]
    assert isinstance(failure, ClipFailure)
    assert failure.kind == "out_of_memory"
    assert "CUDA out of memory" in failure.reason


def test_features_that_are_not_finite_are_a_failure(encoder: Encoder) -> None:
    class Broken(Limited):
        def visit(self, waves: list[np.ndarray], on_state: Any, **options: Any) -> object:
            def spoil(layer: int, hidden: torch.Tensor) -> None:
                hidden[0] = float("nan")
                on_state(layer, hidden)

            return encoder.visit(waves, spoil, **options)

    broken = Broken(encoder, lambda samples: True)
    (first, second) = extract({"a": noise(800), "b": noise(800)}, broken)  # type: ignore[arg-type]
    assert isinstance(first, ClipFailure)
    assert first.kind == "not_finite"
    assert isinstance(second, ClipFeatures)


def test_decoding_ahead_is_bounded_and_in_order() -> None:
    lock = threading.Lock()
    loaded: list[str] = []
    entries = [Entry(id=str(index), file="a.wav") for index in range(30)]

    def read(entry: Entry, enter: Callable[[int], None]) -> Read:
        enter(16_000 * 120)
        with lock:
            loaded.append(entry.id)
        return entry.clip(), np.zeros(0)

    stream = decode_ahead(entries, read, workers=2)
    first, _ = next(stream)
    assert first.id == "0"
    time.sleep(0.2)
    assert 10 <= len(loaded) <= 12  # 20 minutes of audio ahead, at 2 minutes each
    assert [clip.id for clip, _ in stream] == [entry.id for entry in entries[1:]]


def test_a_recording_longer_than_all_room_is_read_when_it_is_its_turn() -> None:
    hours = [Entry(id=str(index), file="a.wav") for index in range(6)]

    def read(entry: Entry, enter: Callable[[int], None]) -> Read:
        time.sleep(0.05 * (entry.id == "2"))  # the next has its samples counted before
        enter(16_000 * 3600)
        return entry.clip(), np.zeros(0)

    found = [clip.id for clip, _ in decode_ahead(hours, read, workers=4)]
    assert found == [entry.id for entry in hours]


def test_the_first_clip_does_not_wait_for_all(encoder: Encoder) -> None:
    extraction = extract({str(n): noise(400) for n in range(300)}, encoder, batch_size=1)
    taken = 0

    def counted() -> Iterator[Entry | ClipFailure]:
        nonlocal taken
        for entry in extraction.plan:
            taken += 1
            yield entry

    clip, _ = next(extraction.results(counted()))
    assert clip.id == "0"
    assert taken < 200


def test_decoding_stops_when_nobody_listens() -> None:
    begun: list[str] = []
    nobody_listens = threading.Event()

    def read(entry: Entry, enter: Callable[[int], None]) -> Read:
        begun.append(entry.id)
        if len(begun) > 1:
            nobody_listens.wait(timeout=60)
        return entry.clip(), np.zeros(0)

    before = set(threading.enumerate())
    stream = decode_ahead([Entry(id=str(index)) for index in range(1000)], read, workers=1)
    next(stream)
    (helper,) = set(threading.enumerate()) - before
    stream.close()
    nobody_listens.set()
    helper.join(timeout=60)
    assert not helper.is_alive()
    assert len(begun) <= 2, "the one that was handed out, and one that was on its way"


@pytest.mark.parametrize("segments", [False, True])
def test_what_is_expected_is_what_comes(encoder: Encoder, segments: bool) -> None:
    """Rows exactly; frames never fewer, and at most one more where windows meet."""
    extraction = encoder.extract(CLIPS, frame_layers=1, segments=segments, hop=3.0)
    rows = list(features(extraction).values())
    frames = sum(row.frames.shape[1] for row in rows if row.frames is not None)
    outlook = extraction.outlook()
    assert outlook.exact and outlook.clips == len(CLIPS)
    assert outlook.seconds == pytest.approx(sum(LENGTHS) / 16_000)
    assert outlook.rows == len(rows)
    assert frames <= outlook.frames <= frames + (0 if segments else 4)


@pytest.mark.parametrize("options", [{"workers": 0}, {"batch_size": 0}])
def test_wrong_usage(encoder: Encoder, options: dict[str, int]) -> None:
    with pytest.raises(UsageError):
        extract(CLIPS, encoder, **options)  # type: ignore[arg-type]
