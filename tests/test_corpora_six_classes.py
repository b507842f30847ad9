"""The six-class map: what the package says, what the user says over it."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from corpus_trees import build

from exhubert_features import corpora
from exhubert_features.corpora import Choices, manifest_rows, prepare, read_map, shipped_map
from exhubert_features.corpora.known import CORPORA
from exhubert_features.corpora.summary import map_lines, summary_lines
from exhubert_features.errors import CorpusError, UsageError
from exhubert_features.spec import CLASSES

CARD = {"disgust": 0, "neutral": 1, "kind": 2, "anger": 3, "surprise": 4, "happiness": 5}


def test_the_card_s_six_examples_and_only_they_are_called_its() -> None:
    rows = {mapped.label: mapped for mapped in shipped_map().rows.values()}
    assert {label: row.number for label, row in rows.items() if row.source == "card"} == CARD


def test_the_shipped_table_is_in_order() -> None:
    path = Path(corpora.__file__).with_name("six_classes.csv")
    with path.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    words = [word for row in rows for word in (row["label"], *row["synonyms"].split("|")) if word]
    assert len(words) == len(set(words)), "a word stands there twice"
    for row in rows:
        assert row["status"] in ("card", "inference", "ambiguous")
        assert row["class"] in ("", *"012345")
        assert bool(row["alternative"]) or row["status"] != "ambiguous"
        assert row["alternative"] != row["class"] or not row["class"]


@pytest.mark.parametrize(
    ("label", "number"),
    [
        ("Joy", 5),
        ("HOT_ANGER", 3),
        (" pleasant  surprise ", 4),
        ("ps", 4),
        ("boredom", 0),
        ("calm", 2),
        ("sadness", 0),
        ("fear", 3),
        ("kind", 2),
        ("rest", None),
    ],
)
def test_words_and_their_synonyms(label: str, number: int | None) -> None:
    mapped = shipped_map().find(label)
    assert mapped is not None
    assert mapped.number == number


def test_arousal_and_valence_follow_the_number() -> None:
    for mapped in shipped_map().rows.values():
        if mapped.number is None:
            assert mapped.arousal == mapped.valence == ""
        else:
            assert f"{mapped.arousal}-{mapped.valence}" == CLASSES[mapped.number]


@pytest.mark.parametrize("name", CORPORA)
def test_every_label_of_every_corpus_is_in_the_map(name: str, tmp_path: Path) -> None:
    build(name, tmp_path)
    result = prepare(CORPORA[name], tmp_path)
    assert None not in result.classes.values()


def test_the_user_s_rows_go_first(tmp_path: Path) -> None:
    own = tmp_path / "own.csv"
    own.write_text("label,class,corpus\ncalm,1,\nfear,low-negative,ravdess\nsadness,,\nbored,3,\n")
    table = read_map(own)
    assert [table.find(word, "ravdess").number for word in ("calm", "fear", "sadness")] == [  # type: ignore[union-attr]
        *(1, 0, None)
    ]
    assert table.find("fear", "emodb").number == 3  # type: ignore[union-attr]
    assert table.find("boredom").number == 3  # type: ignore[union-attr]  # bored is a synonym
    build("ravdess", tmp_path / "corpus")
    result = prepare(CORPORA["ravdess"], tmp_path / "corpus", Choices(six_classes=table))
    found = {row["label"]: (row["label6"], row["label6_source"]) for row in manifest_rows(result)}
    assert found["calm"] == ("1", "user")
    assert found["fear"] == ("0", "user")
    assert found["sadness"] == ("", "user")
    assert found["anger"] == ("3", "card")
    assert table.unused(result.classes) == ["bored"]
    assert "ambiguous" not in "\n".join(summary_lines(result))


@pytest.mark.parametrize(
    ("text", "error", "words"),
    [
        ("label,class\nanger,7\n", CorpusError, "line 2 gives 'anger' the class '7'; expected 0"),
        ("label,class\nanger,loud\n", CorpusError, "the class 'loud'"),
        ("label,class\nanger,3\nAnger,0\n", CorpusError, "line 3 gives 'Anger' a second class"),
        ("label,class\n,3\n", CorpusError, "line 2 names no label"),
        ("word,class\nanger,3\n", UsageError, "has the columns word, class"),
        ("", UsageError, "has the columns none"),
    ],
)
def test_maps_that_make_no_sense(
    text: str, error: type[Exception], words: str, tmp_path: Path
) -> None:
    path = tmp_path / "own.csv"
    path.write_text(text)
    with pytest.raises(error, match=words):
        read_map(path)


def test_the_shown_map_can_be_read_back(tmp_path: Path) -> None:
    path = tmp_path / "own.csv"
    path.write_text("\n".join(map_lines()), encoding="utf-8")
    again = read_map(path)
    for (corpus, word), mapped in shipped_map().rows.items():
        found = again.find(word, corpus)
        assert found is not None
        assert (found.number, found.source) == (mapped.number, "user")


def test_the_summary_lists_the_ambiguous_and_the_absent(tmp_path: Path) -> None:
    build("aibo", tmp_path)
    text = "\n".join(summary_lines(prepare(CORPORA["aibo"], tmp_path)))
    assert "ambiguous: emphatic is taken for 4 high-neutral, it could be 3 high-negative" in text
    assert "ambiguous: positive is taken for 5 high-positive, it could be 2 low-positive" in text
    assert "absent of the six classes: low-negative, low-positive;" in text
    assert "rest           6  no class (inference)" in text
    assert "30 clips are there, the release has 18,216" in text
