"""Any corpus by a table, and how groups are dealt into folds."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from corpus_trees import Folder
from hypothesis import given, settings
from hypothesis import strategies as st

from exhubert_features.corpora import Choices, Prepared, manifest_rows, prepare
from exhubert_features.corpora.clips import Clip
from exhubert_features.corpora.division import dealt, united
from exhubert_features.corpora.known.generic import find_tables, generic
from exhubert_features.errors import CorpusError, UsageError

NOWHERE = Path("nowhere.csv")


def read(root: Path, **choices: object) -> Prepared:
    corpus = generic(find_tables(root, but=NOWHERE), root, "mine")
    return prepare(corpus, root, Choices(**choices))  # type: ignore[arg-type]


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    """Twelve clips of six speakers in ``audio/``."""
    folder = Folder(tmp_path)
    folder.wav(*(f"audio/{number}.wav" for number in range(12)))
    return folder


def test_columns_are_taken_over(folder: Folder) -> None:
    lines = ["file,label,speaker,gender,mood,arousal\n"]
    lines += [f"audio/{n}.wav,{'Joy' if n % 2 else 'sad'},s{n // 2},f,x,{n}.5\n" for n in range(12)]
    folder.write("labels.csv", "".join(lines))
    result = read(folder.root)
    rows = {row["id"]: row for row in manifest_rows(result)}
    row = rows["audio/3.wav"]
    assert (row["label"], row["label6"], row["arousal"]) == ("Joy", "5", "high")
    assert (row["speaker"], row["gender"], row["corpus"]) == ("s1", "f", "mine")
    assert (row["mood"], row["arousal_rating"]) == ("x", "3.5")
    assert len({row["fold"] for row in rows.values()}) == 5
    assert result.shared("fold") == result.shared("split") == []


def test_one_table_for_each_part(folder: Folder) -> None:
    """The layout of EmoNet: train.csv, devel.csv and test.csv."""
    for name, numbers in (("train", range(6)), ("devel", range(6, 9)), ("test", range(9, 12))):
        lines = "".join(f"audio/{n}.wav,anger\n" for n in numbers)
        folder.write(f"{name}.csv", f"file,label\n{lines}")
    rows = manifest_rows(read(folder.root))
    assert Counter(row["split"] for row in rows) == {"train": 6, "dev": 3, "test": 3}


def test_parts_of_files_and_given_folds(folder: Folder) -> None:
    lines = [
        f"audio/{n}.wav,{half / 20},{half / 20 + 0.05},calm,{n % 3}\n"
        for n in range(12)
        for half in (0, 1)
    ]
    folder.write(
        "list.tsv",
        "file,start,end,label,fold\n".replace(",", "\t") + "".join(lines).replace(",", "\t"),
    )
    rows = manifest_rows(read(folder.root))
    assert len(rows) == 24
    assert rows[1]["id"] == "audio/0.wav@0.05-0.1"
    assert (rows[1]["start"], rows[1]["end"], rows[1]["fold"]) == ("0.05", "0.1", "0")
    assert {row["split"] for row in rows if row["fold"] == "2"} == {"test"}


def test_labels_that_the_map_does_not_know_are_said(folder: Folder) -> None:
    lines = "".join(f"audio/{n}.wav,{'grumpy' if n else 'anger'}\n" for n in range(12))
    folder.write("labels.csv", f"file,label\n{lines}")
    result = read(folder.root)
    row = manifest_rows(result)[1]
    assert (row["label6"], row["label6_source"]) == ("", "unmapped")
    assert len(read(folder.root, six_only=True).clips) == 1


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ("audio/0.wav,anger\naudio/0.wav,fear\n", "line 3 and .*line 2 are both of the clip"),
        ("audio/0.wav,anger\n", "no label: 11 .audio/1.wav: no table names it"),
        ("audio/99.wav,anger\naudio/0.wav,fear\n", "labelled, but without a file: 1 .audio/99.wav"),
        ("audio/0.wav,\n", "line 2 gives it no label"),
        (",anger\n", "line 2 names no file"),
    ],
)
def test_tables_that_do_not_fit(folder: Folder, lines: str, words: str) -> None:
    folder.write("labels.csv", f"file,label\n{lines}")
    with pytest.raises(CorpusError, match=words):
        read(folder.root)


def test_a_ragged_table_is_refused(folder: Folder) -> None:
    folder.write("labels.csv", "file,label\naudio/0.wav,anger,more\n")
    with pytest.raises(UsageError, match="line 2: 3 cells under a header of 2 columns"):
        read(folder.root)


def test_which_table_is_meant(folder: Folder) -> None:
    with pytest.raises(UsageError, match=r"holds no table.*--table"):
        find_tables(folder.root, but=NOWHERE)
    folder.write("a.csv", "file,label\n")
    folder.write("notes.csv", "clip,remark\n")
    assert [path.name for path in find_tables(folder.root, but=NOWHERE)] == ["a.csv"]
    folder.write("b.csv", "file,label\n")
    with pytest.raises(UsageError, match=r"several tables \(a.csv, b.csv\)"):
        find_tables(folder.root, but=NOWHERE)
    tables = find_tables(folder.root, but=folder.root / "b.csv")  # what was written last time
    assert [path.name for path in tables] == ["a.csv"]


CLIPS = st.lists(
    st.tuples(st.integers(0, 8), st.sampled_from("abc"), st.sampled_from(["", "x", "y", "z"])),
    min_size=1,
    max_size=60,
)


@settings(max_examples=10 * settings.default.max_examples)  # each is quick
@given(CLIPS)
def test_dealing_keeps_owners_whole_and_no_fold_empty(drawn: list[tuple[int, str, str]]) -> None:
    clips = [
        Clip(
            id=str(n), label=label, speaker=f"s{who}", groups=(f"s{who}", *([film] if film else []))
        )
        for n, (who, label, film) in enumerate(drawn)
    ]
    folds = dealt()(clips)
    for kind in (lambda clip: clip.speaker, lambda clip: clip.groups[1:] or clip.id):
        sides: dict[object, set[str]] = {}
        for clip, fold in zip(clips, folds, strict=True):
            sides.setdefault(kind(clip), set()).add(fold)
        assert all(len(parts) == 1 for parts in sides.values())
    assert len(set(folds)) == min(5, len(set(united(clips))))


def test_dealing_spreads_labels() -> None:
    """Twenty speakers who say each label equally often: every fold has a fifth of each."""
    clips = [
        Clip(id=f"{who}{label}{n}", label=label, speaker=f"s{who}")
        for who in range(20)
        for label in "abc"
        for n in range(4)
    ]
    folds = dealt()(clips)
    there = Counter(zip(folds, [clip.label for clip in clips], strict=True))
    assert set(there.values()) == {16}
    single = [Clip(id=clip.id, label=clip.label) for clip in clips]  # no speakers at all
    there = Counter(zip(dealt()(single), [clip.label for clip in single], strict=True))
    assert set(there.values()) == {16}


def test_dealing_does_not_depend_on_the_order_of_names() -> None:
    """Speakers are not dealt in alphabetical order, which may be that of recording."""
    clips = [Clip(id=f"c{n:02d}", label="a") for n in range(50)]
    folds = dealt()(clips)
    assert folds[:5] != ["1", "2", "3", "4", "5"]


def test_files_by_their_table_s_folder_and_by_whole_paths(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    audio = folder.root / "audio"
    whole = "".join(f"{audio / f'{n}.wav'},anger\n" for n in range(6))
    folder.write("lists/a.csv", "file,label\n" + whole)
    folder.write(
        "lists/b.csv", "file,label\n" + "".join(f"../audio/{n}.wav,fear\n" for n in range(6, 12))
    )
    monkeypatch.chdir(folder.root)
    for root in (folder.root, Path(), audio):
        tables = [Path("lists/a.csv"), folder.root / "lists" / "b.csv"]
        result = prepare(generic(tables, root, "mine"), root)
        assert len(result.clips) == 12
