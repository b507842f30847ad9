"""Plans: named as they are read, in little memory, saved and in parts; each file is read once."""

from __future__ import annotations

import tracemalloc
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from waves import noise

from exhubert_features import Encoder, Plan, load_encoder, plan
from exhubert_features.audio import libsndfile, reading
from exhubert_features.errors import UsageError
from exhubert_features.records import ClipFailure, Entry
from exhubert_features.register import NameMap, NameSet
from exhubert_features.store import WriteProgress


@pytest.fixture(scope="module")
def encoder(two_layers: Path) -> Encoder:
    return load_encoder(two_layers, device="cpu")


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    folder = tmp_path / "audio"
    folder.mkdir()
    for index in range(6):
        soundfile.write(folder / f"{index}.wav", noise(4_000 + index, index), 16_000)
    return folder


def manifest(path: Path, rows: int) -> Path:
    with path.open("w") as stream:
        stream.write("id,file,emotion\n")
        stream.writelines(f"clip-{row:08d},audio/{row % 500}.wav,joy\n" for row in range(rows))
    return path


def peak(work: Iterator[Any]) -> int:
    """Bytes that Python held at most while something was read to its end."""
    tracemalloc.start()
    try:
        for _ in work:
            pass
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.slow
def test_memory_grows_by_some_bytes_a_row(tmp_path: Path) -> None:
    few, many = (manifest(tmp_path / f"{rows}.csv", rows) for rows in (5_000, 50_000))
    grown = peak(iter(plan(many))) - peak(iter(plan(few)))
    assert grown < 36 * 45_000
    plan(many).save(tmp_path / "saved")
    saved = peak(iter(Plan.load(tmp_path / "saved")))
    assert saved < 1 << 20  # the ids of a saved plan were told apart when it was written


def test_clips_that_are_there_leave_nothing_behind(encoder: Encoder, corpus: Path) -> None:
    entries = (Entry(id=str(n), file=str(corpus / "0.wav")) for n in range(4_000))
    found = encoder.extract(corpus).results(entries, lambda name, audio: True)
    assert [result for _, result in islice(found, 1_000)] == [None] * 1_000
    assert peak(found) < 1 << 20


def test_names_in_little_memory() -> None:
    names, numbers = NameSet(), NameMap(expected=100)
    for n in range(20_000):
        assert names.add(f"clip {n}")
        numbers[f"clip {n}"] = n
    assert not names.add("clip 7") and "clip 7" in names and "clip" not in names
    numbers["clip 7"] = 0
    assert [numbers.get(f"clip {n}") for n in (0, 7, 19_999)] == [0, 0, 19_999]
    assert numbers.get("clip") is None
    assert len(names) == len(numbers) == 20_000


def test_a_name_whose_hash_another_has_is_told_and_not_lost(
    corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("exhubert_features.register._key", lambda name: 7)
    found = list(plan(corpus))
    assert [isinstance(one, Entry) for one in found] == [True] + [False] * 5
    assert {one.kind for one in found if isinstance(one, ClipFailure)} == {"duplicate"}


def test_the_first_shard_is_there_before_the_last_row_is_read(
    encoder: Encoder, corpus: Path, tmp_path: Path
) -> None:
    taken, store = 0, tmp_path / "store"

    def rows() -> Iterator[Entry]:
        nonlocal taken
        for taken in range(5_000):
            yield Entry(id=str(taken), file=str(corpus / f"{taken % 6}.wav"))

    def look(state: WriteProgress) -> None:
        if list((store / "shards").iterdir()):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        encoder.extract(rows()).write(store, shard_clips=8, on_progress=look)
    assert taken < 1_000


def count_opened(monkeypatch: pytest.MonkeyPatch) -> tuple[Counter[str], list[object]]:
    """Files that are opened, by name, and what is decoded."""
    opened: Counter[str] = Counter()
    decoded: list[object] = []
    ours, decoder = Path.open, soundfile.SoundFile

    def open_file(self: Path, *arguments: Any, **options: Any) -> Any:
        opened[self.name] += self.suffix == ".wav"
        return ours(self, *arguments, **options)

    def decode(source: object, **options: Any) -> soundfile.SoundFile:
        decoded.append(source)
        return decoder(source, **options)

    monkeypatch.setattr(Path, "open", open_file)
    monkeypatch.setattr(libsndfile.soundfile, "SoundFile", decode)
    return opened, decoded


def test_each_file_is_read_once_and_not_decoded_when_it_is_there(
    encoder: Encoder, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    part = [Entry(id=f"{n}.wav", file=str(corpus / f"{n}.wav")) for n in range(4)]
    encoder.extract(plan(part)).write(tmp_path / "store")
    opened, decoded = count_opened(monkeypatch)
    store = encoder.extract(corpus).write(tmp_path / "store")
    assert sorted(store.ids) == [f"{n}.wav" for n in range(6)]
    assert dict(+opened) == {f"{n}.wav": 1 for n in range(6)}
    assert len(decoded) == 2


def test_a_file_of_many_parts_is_hashed_once(
    encoder: Encoder, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed: list[object] = []
    ours = reading.hash_file
    monkeypatch.setattr(
        "exhubert_features.extraction.decoding.hash_file",
        lambda raw: hashed.append(raw) or ours(raw),
    )
    table = tmp_path / "parts.csv"
    lines = [f"audio/0.wav,{n / 100},{n / 100 + 0.1}\n" for n in range(10)]
    table.write_text("file,start,end\n" + "".join(lines))
    states: list[WriteProgress] = []
    for _ in range(2):
        store = encoder.extract(table).write(tmp_path / "store", on_progress=states.append)
    assert len(store) == 10 and len(set(store.column("audio_sha256"))) == 10
    assert len(hashed) == 2  # a run
    assert (states[-1].present, states[-1].stored) == (10, 0)


def test_large_files_are_as_small_ones(
    encoder: Encoder, corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = list(encoder.extract(corpus))
    monkeypatch.setattr(reading, "IN_MEMORY", 100)
    for row, same in zip(encoder.extract(corpus), small, strict=True):
        assert row.audio_sha256 == same.audio_sha256
        np.testing.assert_array_equal(row.pooled, same.pooled)  # type: ignore[union-attr]


def test_saved_and_loaded(corpus: Path, tmp_path: Path) -> None:
    table = corpus / "list.csv"
    table.write_text(
        "id,file,start,stop,emotion\nx,0.wav,,,joy\nx,1.wav,,,\ny,2.wav,100,900,süß\nz,,,,\n"
    )
    whole = plan([table, corpus / "\udcff.wav"])
    assert whole.save(tmp_path / "saved") == 5
    loaded = Plan.load(tmp_path / "saved")
    assert list(loaded) == list(whole)
    assert loaded.about() == loaded.count() == 5
    for number in (1, 2, 3):
        assert list(loaded.part(number, 3)) == [
            entry for entry in loaded if loaded.part(number, 3).holds(entry.id)
        ]
    with pytest.raises(UsageError, match="'a' is in memory"):
        plan({"a": noise(800)}).save(tmp_path / "none")
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("parts", [1, 2])
def test_a_saved_plan_that_is_not_as_it_was_written(
    corpus: Path, tmp_path: Path, parts: int
) -> None:
    path = tmp_path / "saved"
    count = plan(corpus).part(1, parts).save(path)
    whole = path.read_bytes()
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(UsageError):
            Plan.load(path)
        path.write_bytes(whole[:place])
        with pytest.raises(UsageError):
            Plan.load(path)
    path.write_bytes(whole)
    loaded = Plan.load(path)
    assert loaded.count() == count
    path.write_bytes(whole + b"\n")
    with pytest.raises(UsageError, match="has changed"):
        loaded.count()
    with pytest.raises(UsageError, match="cannot be read"):
        Plan.load(tmp_path / "nothing")


def test_parts_are_disjoint_and_complete(tmp_path: Path) -> None:
    whole = plan(manifest(tmp_path / "list.csv", 500))
    parts = [[entry.id for entry in whole.part(number, 7)] for number in range(1, 8)]
    assert sorted(name for part in parts for name in part) == [entry.id for entry in whole]
    assert all(parts)


def test_a_saved_plan_of_another_version(corpus: Path, tmp_path: Path) -> None:
    path = tmp_path / "saved"
    plan(corpus).save(path)
    path.write_bytes(path.read_bytes().replace(b'"version":1', b'"version":2', 1))
    said = r"of version 2; expected version 1\. Load it with .* anew"
    with pytest.raises(UsageError, match=said):
        Plan.load(path)


def spread(parts: list[Plan]) -> list[int]:
    return [part.count() for part in parts]


def test_parts_of_parts_are_even(tmp_path: Path) -> None:
    whole = plan([Entry(id=f"clip {n}", file="a.wav") for n in range(4_000)])
    part = whole.part(3, 4)
    part.save(tmp_path / "part")
    for given in (part, Plan.load(tmp_path / "part")):
        again = [given.part(number, 4) for number in (1, 2, 3, 4)]
        names = sorted(entry.id for one in again for entry in one)
        assert names == sorted(entry.id for entry in part)
        assert all(200 < count < 300 for count in spread(again)), spread(again)
        third = [again[1].part(number, 2) for number in (1, 2)]
        assert all(90 < count < 160 for count in spread(third)), spread(third)
        assert all(one.holds(entry.id) for one in third for entry in one)


def test_a_part_has_the_clips_it_always_had() -> None:
    entries = [Entry(id=f"{n}.wav", file="a.wav") for n in range(12)]
    assert [entry.id for entry in plan(entries).part(2, 3)] == ["0.wav", "1.wav", "8.wav"]


@pytest.mark.parametrize(("number", "count"), [(1.5, 2), (1, 2.5), ("1", 2), (1, None)])
def test_parts_are_counted_in_whole_numbers(number: Any, count: Any) -> None:
    with pytest.raises(UsageError, match=rf"the part is {number!r} of {count!r}.*whole numbers"):
        plan([Entry(id="a", file="a.wav")]).part(number, count)


def test_parts_may_be_numbers_of_numpy() -> None:
    whole = plan([Entry(id=f"{n}.wav", file="a.wav") for n in range(12)])
    assert list(whole.part(np.int64(2), np.uint8(3))) == list(whole.part(2, 3))  # type: ignore[arg-type]


def test_json_lines(corpus: Path) -> None:
    path = corpus / "list.jsonl"
    path.write_text('{"id": "a", "file": "0.wav"}\n\n{"file": 3\n[1]\n{"wav": "1.wav", "age": 3}\n')
    found = list(plan(path))
    assert [one.id for one in found] == ["a", "line 3", "line 4", "1.wav"]
    assert [getattr(one, "kind", "") for one in found] == ["", "manifest", "manifest", ""]
    assert found[3].meta == {"age": "3"}  # type: ignore[union-attr]


@pytest.mark.parametrize(("rows", "about"), [(150, False), (1_000, True)])
def test_what_a_large_source_comes_to_is_told_about_right(
    encoder: Encoder, tmp_path: Path, rows: int, about: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "audio").mkdir()
    monkeypatch.setattr("exhubert_features.extraction.outlook.CHECKED", 200)
    for index in range(500):
        soundfile.write(tmp_path / f"audio/{index}.wav", np.zeros(400), 16_000)
    outlook = encoder.extract(manifest(tmp_path / "list.csv", rows)).outlook()
    assert outlook.exact is not about
    assert outlook.clips == pytest.approx(rows, rel=0.001)
    assert outlook.seconds == pytest.approx(rows / 40, rel=0.001)
