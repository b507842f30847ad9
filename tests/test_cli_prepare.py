"""``exhubert prepare``: exit codes, what is printed, and what is never written over."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from corpus_trees import Folder, build

from exhubert_features.cli import main


@pytest.fixture
def emovo(tmp_path: Path) -> Path:
    build("emovo", tmp_path / "EMOVO")
    return tmp_path / "EMOVO"


def prepare(*words: object) -> int:
    return main(["prepare", *map(str, words)])


def test_a_manifest_and_its_summary(
    emovo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = tmp_path / "emovo.csv"
    assert prepare("EMOVO", emovo, "-o", manifest) == 0
    output = capsys.readouterr()
    assert output.err == ""
    assert "emovo: 84 clips, 6 speakers, it" in output.out
    assert "absent of the six classes: low-positive" in output.out
    assert f"exhubert extract {manifest} --data-root {emovo} -o features" in output.out
    with manifest.open(newline="") as stream:
        assert len(list(csv.DictReader(stream))) == 84
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_speechbrain_by_suffix_and_by_name(emovo: Path, tmp_path: Path) -> None:
    manifest = tmp_path / "train.json"
    assert prepare("emovo", emovo, "-o", manifest) == 0
    items = json.loads(manifest.read_text())
    assert items["rab-f1-b1"]["wav"] == "{data_root}/f1/rab-f1-b1.wav"
    before = manifest.read_bytes()
    assert prepare("emovo", emovo, "-o", manifest, "--format", "speechbrain") == 0
    assert manifest.read_bytes() == before


def test_another_manifest_is_not_written_over(
    emovo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = tmp_path / "a.csv"
    assert prepare("emovo", emovo, "-o", manifest) == 0
    written = manifest.stat().st_mtime_ns
    assert prepare("emovo", emovo, "-o", manifest) == 0
    assert "unchanged" in capsys.readouterr().out
    assert manifest.stat().st_mtime_ns == written
    manifest.write_text("something else")
    assert prepare("emovo", emovo, "-o", manifest) == 2
    assert "says something else" in capsys.readouterr().err
    assert manifest.read_text() == "something else"
    assert prepare("emovo", emovo, "-o", manifest, "--force") == 0
    assert manifest.read_text().startswith("id,file")


def test_strict_and_lenient(
    emovo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Folder(emovo).wav("f1/rab-f1-b9.wav", "f1/jingle.wav", "m9.wav", "m8.wav")
    manifest = tmp_path / "a.csv"
    assert prepare("emovo", emovo, "-o", manifest) == 1
    error = capsys.readouterr().err
    assert "fits no rule: 4 (f1/jingle.wav, f1/rab-f1-b9.wav, m8.wav, ...)" in error
    assert not manifest.exists()
    assert prepare("emovo", emovo, "-o", manifest, "--lenient") == 3
    output = capsys.readouterr()
    assert "left out (--lenient): fits no rule: 4" in output.out
    assert output.err.count("left out: fits no rule: ") == 4  # each by its name
    assert "left out: fits no rule: m9.wav" in output.err
    assert len(manifest.read_text().splitlines()) == 85


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["emovo", "ROOT"], "-o FILE is missing"),
        (["emovo", "-o", "a.csv"], "ROOT is missing"),
        (["-o", "a.csv"], "CORPUS is missing"),
        (["emvo", "ROOT", "-o", "a.csv"], "'emvo' is no corpus that is known here"),
        (["gemep", "ROOT", "-o", "a.csv"], "generic ROOT --table FILE --name GEMEP"),
        (["FAU Aibo", "NOWHERE", "-o", "a.csv"], "is not there"),
        (["emovo", "ROOT", "-o", "a.txt"], "ends in .csv"),
        (["emovo", "ROOT", "-o", "a.csv", "--format", "speechbrain"], "ends in .csv"),
        (["emovo", "ROOT", "-o", "a.csv", "--table", "b.csv"], "are for generic"),
        (["emovo", "ROOT", "-o", "a.csv", "--map", "nowhere.csv"], "cannot be read"),
    ],
)
def test_wrong_usage(
    words: list[str],
    complaint: str,
    emovo: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    places = {"ROOT": str(emovo), "NOWHERE": str(tmp_path / "nowhere")}
    assert prepare(*(places.get(word, word) for word in words)) == 2
    assert complaint in capsys.readouterr().err
    assert {path.name for path in tmp_path.iterdir()} == {"EMOVO"}


def test_a_folder_that_is_not_there(
    emovo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert prepare("emovo", emovo, "-o", tmp_path / "no" / "a.csv") == 1
    assert "cannot be written" in capsys.readouterr().err


def test_list_and_map_need_nothing_else(capsys: pytest.CaptureFixture[str]) -> None:
    assert prepare("--list") == 0
    assert "SmartKom" in capsys.readouterr().out
    assert prepare("--show-map") == 0
    assert "calm,2,ambiguous,1" in capsys.readouterr().out


def test_own_map_and_choices(
    emovo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = tmp_path / "own.csv"
    own.write_text("label,class\nfear,0\nangre,3\n")
    manifest = tmp_path / "a.csv"
    words = ("--map", own, "--labels", "fear, anger")
    assert prepare("emovo", emovo, "-o", manifest, *words) == 0
    output = capsys.readouterr().out
    assert "fear       12  0 low-negative (user)" in output
    assert "not asked for: neutral (12 clips)" in output
    assert "has 'angre', which no clip is labelled" in output


def test_generic_finds_its_table_again_beside_the_manifest(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Folder(tmp_path)
    folder.wav("a.wav", "b.wav")
    folder.write("labels.csv", "file,label,speaker\na.wav,joy,s1\nb.wav,kind,s2\n")
    manifest = tmp_path / "manifest.csv"
    for _ in range(2):
        assert prepare("generic", tmp_path, "-o", manifest, "--name", "mine") == 0
    output = capsys.readouterr().out
    assert f"exhubert extract {manifest} -o features" in output  # beside its files
    rows = list(csv.DictReader(manifest.open(newline="")))
    assert [(row["label6"], row["corpus"]) for row in rows] == [("5", "mine"), ("2", "mine")]
    table = tmp_path / "labels.csv"
    assert prepare("generic", tmp_path, "-o", manifest, "--table", table, "--force") == 0
