"""Tables of every kind are read alike, and what is wrong with one is said with its line."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path

import pytest

from exhubert_features.errors import UsageError
from exhubert_features.tables import FILE_COLUMNS, first_of, read_table


def cells(path: Path) -> list[dict[str, str]]:
    return [dict(row.cells) for row in read_table(path).require_whole().rows]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("x.csv", '\ufeffid,emotion\na,sad\n007,"hot, dry"\n'),
        ("x.tsv", "id\temotion\na\tsad\n007\thot, dry\n"),
        ("x.csv", "id;emotion\na;sad\n007;hot, dry\n"),
        ("x.csv", 'ID , emotion\n\n a ,sad \n007, "hot, dry"\n'.replace(', "', ',"')),
        ("x.json", '{"a": {"emotion": "sad"}, "007": {"ID": 7, "emotion": "hot, dry"}}'),
        ("x.json", '[{"id": "a", "emotion": "sad"}, {"id": "007", "emotion": "hot, dry"}]'),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_tables_of_every_kind(tmp_path: Path, name: str, text: str, encoding: str) -> None:
    if encoding == "utf-16":
        text = text.removeprefix("\ufeff")
    (tmp_path / name).write_text(text, encoding=encoding)
    assert cells(tmp_path / name) == [
        {"id": "a", "emotion": "sad"},
        {"id": "007", "emotion": "hot, dry"},
    ]


def test_one_name_has_one_spelling(tmp_path: Path) -> None:
    decomposed = unicodedata.normalize("NFD", "Zoë")
    (tmp_path / "x.csv").write_text(f"Speaker,File\n {decomposed} ,a.wav\nZoë,{decomposed}.wav\n")
    (tmp_path / "x.json").write_text(json.dumps([{"Speaker": f"{decomposed}\t", "File": "a.wav"}]))
    first, second = cells(tmp_path / "x.csv")
    assert (
        first["Speaker"] == second["Speaker"] == cells(tmp_path / "x.json")[0]["Speaker"] == "Zoë"
    )
    assert second["file"] == f"{decomposed}.wav"  # or the disk would not know it


def test_json_values_become_text(tmp_path: Path) -> None:
    row = {"none": None, "one": 1, "half": 0.5, "yes": True, "words": ["é"]}
    (tmp_path / "x.json").write_text(json.dumps([row]))
    expected = {"none": "", "one": "1", "half": "0.5", "yes": "true", "words": '["é"]'}
    assert cells(tmp_path / "x.json") == [expected]


def test_speechbrains_parts_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text('{"u": {"wav": {"file": "a.wav", "start": 1, "stop": 9}}}')
    assert cells(tmp_path / "x.json") == [{"id": "u", "file": "a.wav", "start": "1", "stop": "9"}]


def test_a_row_that_does_not_fit_its_header_keeps_its_fault_and_line(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text('id,emotion\n"a\nb",sad\nc\nd,sad,more\n')
    table = read_table(tmp_path / "x.csv")
    assert [bool(row.fault) for row in table.rows] == [False, True, True]
    assert [row.place for row in table.rows] == ["lines 2 to 3", "line 4", "line 5"]
    assert table.rows[2].fault == "3 cells under a header of 2 columns"
    with pytest.raises(UsageError, match="2 rows that cannot be used, first in line 4: 1 cells"):
        table.require_whole()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.csv", b"id,emotion\nb,x\na,\xff\n", "not UTF-8 text: byte 0xff in line 3.*Save it as"),
        ("x.csv", b"id,mood,mood\na,b,c\n", "several columns named 'mood'"),
        ("x.csv", b"id,ID\na,b\n", "several columns named 'id'"),
        ("x.json", b"{", "is not JSON.*line 1"),
        ("x.json", b'{"a": {}, "a": {}}', "'a' stands twice"),
        ("x.json", b'{"a": 1}', "JSON of another kind"),
        ("x.csv", b'id,mood\na,"sad\nb,sad\n', "quotes that open in line 2 are not closed"),
    ],
)
def test_broken_tables(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UsageError, match=message):
        read_table(tmp_path / name)


def test_a_table_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"absent\.csv cannot be read: No such file"):
        read_table(tmp_path / "absent.csv")


def test_the_first_column_that_holds_anything() -> None:
    assert first_of(FILE_COLUMNS, {"path": "b", "file": "", "wav": ""}) == "b"
    assert first_of(FILE_COLUMNS, {"emotion": "sad"}) == ""
