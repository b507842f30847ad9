"""The 37 corpora and how they are recognised: by names with care, by files with more than one."""

from __future__ import annotations

from pathlib import Path

import pytest
from corpus_trees import BUILDERS, build

from exhubert_features.corpora import emoset, find_corpus, prepare, recognise, seen_in_training
from exhubert_features.corpora.emoset import facts_of
from exhubert_features.corpora.known import CORPORA
from exhubert_features.corpora.summary import list_lines
from exhubert_features.spec import DEFAULT_SOURCE


def test_there_are_37_and_no_two_share_a_name() -> None:
    assert len(emoset()) == 37
    names = [alias.lower() for facts in emoset().values() for alias in (facts.name, *facts.aliases)]
    assert len(names) == len(set(names))
    for facts in emoset().values():
        assert all(find_corpus(alias) == facts.name for alias in (facts.name, *facts.aliases))
    parsers = {facts.parser for facts in emoset().values()} - {""}
    assert parsers == set(CORPORA)


def test_the_list_shows_all_of_them() -> None:
    lines = list(list_lines())
    assert len(lines) == 37 + 3
    assert lines[0].split()[:3] == ["corpus", "prepare", "as"]
    assert sum(" generic " in line for line in lines[1:38]) == 18
    assert any(line.startswith("SUBESCO") and "CC BY 4.0" in line for line in lines)


@pytest.mark.parametrize(
    ("text", "corpus"),
    [
        ("emodb", "EMO-DB"),
        ("/data/EMO-DB_v1/wav/03a01Fa.wav", "EMO-DB"),
        ("IEMOCAP_full_release", "IEMOCAP"),
        ("crema_d", "CREMA-D"),
        ("C:\\corpora\\TESS\\OAF_angry", "TESS"),
        ("The Toronto emotional speech set (TESS)", "TESS"),
        ("/data/tess/wav", "TESS"),
        ("des", "DES"),  # somebody calls it so
        ("Urdu", "Urdu"),
        ("/data/MELD.Raw/train", "MELD"),
        ("/data/DEMoS/wav", "DEMoS"),
        ("/data/emotion/demos", "DEMoS"),  # a second hint
        ("/data/Emotional/DES/wav", "DES"),
        ("/home/anna/Emotional Speech Dataset (ESD)", "ESD"),
        ("MESD", "MESD"),
        ("mes", "MES"),
        ("TurEV-DB", None),
        ("EmoV-DB", None),
        ("", None),
        # what only looks like one
        ("/home/des/ad/recording.wav", None),
        ("/home/emodb/recording.wav", None),
        ("C:\\Users\\Tess\\recordings", None),
        ("/media/ravdess/disk/x.wav", None),
        ("/mnt/data/~meld/x.wav", None),
        ("/home/anna/des histoires/clip.wav", None),
        ("/data/ad-hoc/recordings.csv", None),
        ("/projects/demos/first", None),
        ("/projects/my demos/first", None),
        ("/data/urdu/news", None),
        ("/data/Urdu/news", None),
        ("/data/abc/1.wav", None),
        ("/srv/ESD/chamber", None),
        ("/data/tess and tom/1.wav", None),
        ("/data/meld the files/1.wav", None),
        ("/data/my emotional speech data of 2023/1.wav", None),
        ("/data/describe/casual/created", None),
    ],
)
def test_names_titles_and_paths(text: str, corpus: str | None) -> None:
    assert find_corpus(text) == corpus


@pytest.mark.parametrize("name", [name for name in BUILDERS if name != "smartkom"])
def test_files_give_their_corpus_away(name: str, tmp_path: Path) -> None:
    """Whatever the folder is called, on any machine, and no other corpus with it."""
    build(name, tmp_path)
    files = [clip.file for clip in prepare(CORPORA[name], tmp_path).clips]
    facts = facts_of(name)
    assert facts is not None
    for paths in (
        [f"/srv/x1/{file}" for file in files],
        ["D:\\x1\\" + file.replace("/", "\\") for file in files],
    ):
        assert list(recognise([], paths)) == [facts.name]


def test_one_corpus_among_others_and_several_together(tmp_path: Path) -> None:
    """All files count, not the first one's, and folders of any of them."""
    own = [f"/data/mine/{number:05d}.wav" for number in range(200)]
    ravdess = [f"/data/x/03-01-0{emotion}-01-01-01-12.wav" for emotion in range(1, 6)]
    assert list(recognise([], [*own, *ravdess])) == ["RAVDESS"]
    assert list(recognise([], [*own, "/data/EmoFilm/1.wav"])) == ["EmoFilm"]
    emodb = ["/data/x/03a01Fa.wav", "/data/x/08a02Wb.wav", "/data/x/16b10Na.wav"]
    assert set(recognise([], [*own, *emodb, *ravdess])) == {"EMO-DB", "RAVDESS"}


def test_chance_does_not_make_a_corpus() -> None:
    one = "/data/x/03-01-05-01-02-01-12.wav"
    two = [one, "/data/x/03-01-06-01-02-01-12.wav"]
    assert recognise([], [one]) == recognise([], two) == {}
    assert recognise([], [one, one, one, one.replace("/x/", "/y/")]) == {}  # one name, many copies
    # Numbered speakers and sessions, which look like ShEMO's speakers and sadness.
    sessions = [f"/data/x/F{speaker:02d}S{n:02d}.wav" for speaker in range(9) for n in range(9)]
    assert recognise([], sessions) == {}
    # Three of thousands.
    many = [f"/data/x/take_{number}.wav" for number in range(5000)]
    few = [*two, "/data/x/03-01-07-01-02-01-12.wav"]
    assert recognise([], [*many, *few]) == {}
    assert list(recognise([], few)) == ["RAVDESS"]


def test_a_weak_name_and_one_file_together_are_enough() -> None:
    assert recognise([], ["/data/demos/1.wav"]) == {}
    assert list(recognise([], ["/data/demos/NP_f_01_rab01a.wav"])) == ["DEMoS"]
    assert recognise([], ["/data/x/NP_f_01_rab01a.wav"]) == {}


def test_what_gave_it_away_is_said() -> None:
    files = [f"/data/x/03-01-0{emotion}-01-01-01-12.wav" for emotion in range(1, 6)]
    assert recognise([], files)["RAVDESS"] == "by 5 files named like '03-01-01-01-01-01-12.wav'"
    assert "by the name 'ravdess'" in recognise(["ravdess"])["RAVDESS"]


@pytest.mark.parametrize(
    ("architecture", "source", "hints", "words"),
    [
        ("exhubert", DEFAULT_SOURCE, ["", "/data/RAVDESS"], "weights used here were fine-tuned on"),
        ("exhubert", "/models/mine", ["ravdess"], "may derive, was fine-tuned on"),
        ("exhubert", None, ["ravdess"], "may derive"),
        ("exhubert", DEFAULT_SOURCE, ["my recordings"], None),
        ("hubert", "facebook/hubert-large-ll60k", ["ravdess"], None),
    ],
)
def test_the_warning_depends_on_the_weights(
    architecture: str, source: str | None, hints: list[str], words: str | None
) -> None:
    warning = seen_in_training(hints, architecture=architecture, source=source)
    assert (warning is None) == (words is None)
    assert words is None or (words in str(warning) and "includes RAVDESS" in str(warning))


def test_the_warning_names_all_corpora_that_files_speak_of() -> None:
    files = [f"/data/x/03-01-0{emotion}-01-01-01-12.wav" for emotion in range(1, 6)]
    files += ["/data/iemocap/1.wav"]
    warning = seen_in_training(files=files, architecture="exhubert", source=DEFAULT_SOURCE)
    assert warning is not None
    assert "includes IEMOCAP and RAVDESS: this is not a score on unseen data" in warning
