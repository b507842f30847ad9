"""Each corpus' folder to a manifest: counts, speakers, labels, parts, and every known oddity."""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections import Counter
from pathlib import Path

import pytest
from corpus_trees import BUILDERS, Folder, build, noise
from read_plans import read_plan

from exhubert_features.corpora import (
    Choices,
    Prepared,
    as_csv,
    as_speechbrain,
    manifest_rows,
    prepare,
)
from exhubert_features.corpora.known import CORPORA
from exhubert_features.errors import CorpusError, UsageError

SEVEN = ("anger", "disgust", "fear", "happiness", "neutral", "sadness", "surprise")
SIX = ("anger", "disgust", "fear", "happiness", "neutral", "sadness")

# clips, speakers, clips of each label, folds, clips of train, dev and test
EXPECTED = {
    "emodb": (141, 10, {"anger": 21, "boredom": 20, **dict.fromkeys(SIX[1:], 20)}, 10, (85, 0, 56)),
    "ravdess": (360, 24, {**dict.fromkeys((*SEVEN, "calm"), 48), "neutral": 24}, 6, (240, 60, 60)),
    "crema-d": (64, 9, {**dict.fromkeys(SIX, 9), "anger": 18, "sadness": 10}, 5, (29, 14, 21)),
    "iemocap": (
        160,
        10,
        dict.fromkeys(
            (
                "anger",
                "happiness",
                "excitement",
                "sadness",
                "neutral",
                "frustration",
                "undecided",
                "other",
            ),
            20,
        ),
        5,
        (96, 32, 32),
    ),
    "meld": (42, 5, dict.fromkeys(SEVEN, 6), 5, (14, 14, 14)),
    "esd": (
        200,
        20,
        dict.fromkeys(("anger", "happiness", "neutral", "sadness", "surprise"), 40),
        5,
        (120, 40, 40),
    ),
    "tess": (
        30,
        2,
        {**dict.fromkeys((*SIX, "pleasant surprise"), 4), "neutral": 5, "sadness": 5},
        2,
        (16, 0, 14),
    ),
    "savee": (32, 4, {**dict.fromkeys(SEVEN, 4), "neutral": 8}, 4, (16, 8, 8)),
    "emovo": (84, 6, dict.fromkeys(SEVEN, 12), 6, (56, 14, 14)),
    "subesco": (43, 6, {**dict.fromkeys(SEVEN, 6), "surprise": 7}, 5, (14, 14, 15)),
    "shemo": (
        43,
        7,
        {**dict.fromkeys(("fear", "happiness", "neutral", "sadness", "surprise"), 7), "anger": 8},
        5,
        (31, 6, 6),
    ),
    "enterface": (72, 6, {**dict.fromkeys((*SIX, "surprise"), 12), "neutral": 0}, 5, (48, 12, 12)),
    "mesd": (72, 0, dict.fromkeys(SIX, 12), 5, (44, 14, 14)),
    "urdu": (56, 7, dict.fromkeys(("anger", "happiness", "neutral", "sadness"), 14), 5, (48, 4, 4)),
    "casia": (48, 4, {**dict.fromkeys(SEVEN, 8), "disgust": 0}, 4, (24, 12, 12)),
    "aibo": (
        30,
        6,
        dict.fromkeys(("anger", "emphatic", "neutral", "positive", "rest"), 6),
        2,
        (15, 0, 15),
    ),
    "demos": (54, 6, {**dict.fromkeys((*SEVEN, "guilt"), 6), "anger": 12}, 5, (36, 9, 9)),
    "emofilm": (
        60,
        54,
        dict.fromkeys(("fear", "contempt", "happiness", "anger", "sadness"), 12),
        5,
        (39, 12, 9),
    ),
    "smartkom": (
        30,
        6,
        dict.fromkeys(("anger", "happiness", "helplessness", "neutral", "unknown"), 6),
        5,
        (20, 5, 5),
    ),
}
SHARED = {("meld", "split")}  # the only published parts that share speakers


def prepared(name: str, root: Path, **choices: object) -> Prepared:
    build(name, root)
    return prepare(CORPORA[name], root, Choices(**choices))  # type: ignore[arg-type]


def by_id(result: Prepared) -> dict[str, dict[str, str]]:
    return {row["id"]: row for row in manifest_rows(result)}


def test_every_corpus_has_a_tree_and_figures() -> None:
    assert set(BUILDERS) == set(CORPORA) == set(EXPECTED)
    assert len(CORPORA) == 19


@pytest.mark.parametrize("name", CORPORA)
def test_counts_speakers_labels_and_parts(name: str, tmp_path: Path) -> None:
    clips, speakers, labels, folds, parts = EXPECTED[name]
    rows = manifest_rows(prepared(name, tmp_path))
    assert len(rows) == len({row["id"] for row in rows}) == clips
    assert len({row["speaker"] for row in rows} - {""}) == speakers
    assert Counter(row["label"] for row in rows) == {key: n for key, n in labels.items() if n}
    assert {row["fold"] for row in rows} == {str(number + 1) for number in range(folds)}
    split = Counter(row["split"] for row in rows)
    assert (split["train"], split["dev"], split["test"]) == parts
    assert sum(parts) == clips
    assert {row["corpus"] for row in rows} == {name}
    assert all(row["language"] for row in rows)
    assert all((tmp_path / row["file"]).is_file() for row in rows)
    assert not any(row["file"].startswith("/") for row in rows)


@pytest.mark.parametrize("column", ["split", "fold"])
@pytest.mark.parametrize("name", CORPORA)
def test_no_speaker_stands_on_two_sides(name: str, column: str, tmp_path: Path) -> None:
    """Asked of the rows; only parts that are published so may share speakers, and say it."""
    rows = manifest_rows(prepared(name, tmp_path))
    sides: dict[str, set[str]] = {}
    for row in rows:
        if row["speaker"]:
            sides.setdefault(row["speaker"], set()).add(row[column])
    shared = any(len(parts) > 1 for parts in sides.values())
    assert shared == ((name, column) in SHARED)
    assert (column in CORPORA[name].division.shared) == ((name, column) in SHARED)


@pytest.mark.parametrize("name", CORPORA)
def test_twice_gives_equal_bytes(name: str, tmp_path: Path) -> None:
    first = manifest_rows(prepared(name, tmp_path / "one"))
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    second = manifest_rows(prepare(CORPORA[name], tmp_path / "two"))
    assert as_csv(first) == as_csv(second)
    assert as_speechbrain(first) == as_speechbrain(second)


@pytest.mark.parametrize("name", [name for name in CORPORA if name != "enterface"])
def test_extraction_takes_the_manifest(name: str, tmp_path: Path) -> None:
    """Enterface comes as videos, which are no audio until somebody extracts it."""
    rows = manifest_rows(prepared(name, tmp_path / "corpus"))
    (tmp_path / "a.csv").write_text(as_csv(rows), encoding="utf-8")
    (tmp_path / "a.json").write_text(as_speechbrain(rows), encoding="utf-8")
    for manifest in ("a.csv", "a.json"):
        plan = read_plan(tmp_path / manifest, data_root=tmp_path / "corpus")
        assert plan.failures == ()
        assert [clip.id for clip in plan.clips] == [row["id"] for row in rows]
        for clip, row in zip(plan.clips, rows, strict=True):
            assert clip.meta["label"] == row["label"]
            assert clip.meta["label6"] == row["label6"]
            assert clip.meta["split"] == row["split"]


@pytest.mark.parametrize("name", CORPORA)
def test_a_foreign_file_is_an_error_that_names_it(name: str, tmp_path: Path) -> None:
    folder = build(name, tmp_path)
    folder.wav("music/jingle 7.wav")
    with pytest.raises(CorpusError, match=r"fits no rule: 1 \(music/jingle 7.wav\).*--lenient"):
        prepare(CORPORA[name], tmp_path)
    lenient = prepare(CORPORA[name], tmp_path, Choices(lenient=True))
    assert [flaw.name for flaw in lenient.flaws] == ["music/jingle 7.wav"]
    assert len(lenient.clips) == EXPECTED[name][0]


@pytest.mark.parametrize("name", CORPORA)
def test_an_empty_file_is_an_error(name: str, tmp_path: Path) -> None:
    folder = build(name, tmp_path)
    reading = prepare(CORPORA[name], tmp_path).reading
    doubled = {Path(file).stem for file in reading.repeated}
    victim = next(clip for clip in reading.clips if Path(clip.file).stem not in doubled)
    folder.write(victim.file, b"")
    with pytest.raises(CorpusError, match=r"damaged|cannot be read"):
        prepare(CORPORA[name], tmp_path)
    lenient = prepare(CORPORA[name], tmp_path, Choices(lenient=True))
    assert victim.id not in {clip.id for clip in lenient.clips} or name == "smartkom"
    assert len(lenient.flaws) == 1


@pytest.mark.parametrize("name", CORPORA)
def test_a_parent_folder_works_like_the_folder(name: str, tmp_path: Path) -> None:
    inside = manifest_rows(prepared(name, tmp_path / "data" / "copy"))
    above = manifest_rows(prepare(CORPORA[name], tmp_path / "data"))
    assert [row["file"] for row in above] == [f"copy/{row['file']}" for row in inside]
    assert [row["id"] for row in above] == [row["id"] for row in inside]


@pytest.mark.parametrize("name", CORPORA)
def test_another_corpus_is_refused(name: str, tmp_path: Path) -> None:
    other = "emovo" if name != "emovo" else "ravdess"
    build(other, tmp_path)
    with pytest.raises(CorpusError, match=f"no file below .* is one of {name}"):
        prepare(CORPORA[name], tmp_path, Choices(lenient=True))


@pytest.mark.parametrize(
    ("name", "child"),
    [
        ("iemocap", "Session1/sentences/wav"),
        ("esd", "0011/Angry"),
        ("casia", "wangzhe"),
        ("savee", "AudioData/DC"),
        ("meld", "dev_splits_complete"),
        ("enterface", "subject 1/anger"),
        ("smartkom", "SK-Public/w000_pk"),
    ],
)
def test_a_folder_too_deep_is_refused_with_the_right_one(
    name: str, child: str, tmp_path: Path
) -> None:
    build(name, tmp_path / "corpus")
    right = tmp_path / "corpus" / Path(child).parent
    with pytest.raises(CorpusError, match="is the folder to give") as caught:
        prepare(CORPORA[name], tmp_path / "corpus" / child)
    assert str(right).split("/Session1")[0] in str(caught.value)


@pytest.mark.parametrize(("name", "child"), [("iemocap", "Session1"), ("emodb", "wav")])
def test_a_folder_that_is_a_whole_part_works(name: str, child: str, tmp_path: Path) -> None:
    build(name, tmp_path)
    assert len(prepare(CORPORA[name], tmp_path / child).clips) in (32, 141)


def test_label_files_that_are_missing(tmp_path: Path) -> None:
    build("iemocap", tmp_path / "a")
    for session in (tmp_path / "a").iterdir():
        shutil.rmtree(session / "dialog", ignore_errors=True)
    with pytest.raises(CorpusError, match=r"no dialog/EmoEvaluation.*Session1"):
        prepare(CORPORA["iemocap"], tmp_path / "a")
    build("aibo", tmp_path / "b")
    with pytest.raises(CorpusError, match=r"no file with their labels.*chunk_labels_5cl"):
        prepare(CORPORA["aibo"], tmp_path / "b" / "wav")
    build("meld", tmp_path / "c")
    (tmp_path / "c" / "dev_sent_emo.csv").unlink()
    with pytest.raises(CorpusError, match=r"no label: 15.*dev_sent_emo.csv is not there"):
        prepare(CORPORA["meld"], tmp_path / "c")


def test_half_unpacked_archives(tmp_path: Path) -> None:
    """Labels without their audio, an archive still packed, git LFS pointers, nothing at all."""
    build("iemocap", tmp_path / "a")
    shutil.rmtree(tmp_path / "a" / "Session5" / "sentences")
    with pytest.raises(
        CorpusError, match=r"labelled, but without a file: 32 \(Ses05F_impro01_F000"
    ):
        prepare(CORPORA["iemocap"], tmp_path / "a")
    rest = prepare(CORPORA["iemocap"], tmp_path / "a", Choices(lenient=True))
    assert len(rest.clips) == 128
    assert {clip.session for clip in rest.clips} == {f"Session{n}" for n in range(1, 5)}
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "download.zip").write_bytes(b"PK")
    with pytest.raises(CorpusError, match=r"it holds no audio.*Unpack download.zip first"):
        prepare(CORPORA["emodb"], tmp_path / "b")
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 7\n"
    Folder(tmp_path / "c").write("AudioWAV/1001_DFA_ANG_XX.wav", pointer)
    with pytest.raises(CorpusError, match="git lfs pull"):
        prepare(CORPORA["crema-d"], tmp_path / "c")
    with pytest.raises(UsageError, match="is not there"):
        prepare(CORPORA["crema-d"], tmp_path / "nowhere")


def test_two_recordings_of_one_clip_are_refused(tmp_path: Path) -> None:
    folder = build("tess", tmp_path)
    folder.wav("again/OAF_back_angry.wav", seed=10**6)
    with pytest.raises(CorpusError, match=r"two recordings: 1 .OAF_back_angry: .* differ"):
        prepare(CORPORA["tess"], tmp_path)
    lenient = prepare(CORPORA["tess"], tmp_path, Choices(lenient=True))
    assert "OAF_back_angry" not in {clip.id for clip in lenient.clips}


def test_exceptions_are_kept_when_asked_for(tmp_path: Path) -> None:
    for name, extra in (("ravdess", 1), ("enterface", 6), ("crema-d", 0)):
        if name == "crema-d":  # the one without signal is empty in the tree: damaged, then
            continue
        kept = prepared(name, tmp_path / name, keep_exceptions=True)
        assert len(kept.clips) == EXPECTED[name][0] + extra
        assert kept.reading.left_out == ()


def test_rows_hold_the_columns_in_order(tmp_path: Path) -> None:
    text = as_csv(manifest_rows(prepared("emodb", tmp_path)))
    reader = csv.DictReader(io.StringIO(text))
    assert ",".join(reader.fieldnames or ()) == (
        "id,file,start,end,label,label6,arousal,valence,speaker,session,split,fold,language,"
        "gender,sentence,intensity,corpus,label6_source"
    )
    line = (
        "12b10La,wav/12b10La.wav,,,boredom,0,low,negative,12,,test,6,de,male,b10,,emodb,inference"
    )
    assert line in text.splitlines()


def test_speechbrain_items(tmp_path: Path) -> None:
    items = json.loads(as_speechbrain(manifest_rows(prepared("smartkom", tmp_path))))
    item = items["w000_pk_AAA_001"]
    assert item["wav"] == "{data_root}/SK-Public/w000_pk/w000_pkd.wav"
    assert (item["start"], item["end"]) == (0.1, 0.193812)  # samples 1600 to 3101
    assert (item["label"], item["label6"]) == ("happiness", 5)
    assert items["w000_pk_AAA_004"]["label6"] == ""  # the rest has no class


def test_choices_of_labels(tmp_path: Path) -> None:
    full = by_id(prepared("iemocap", tmp_path))
    four = prepare(CORPORA["iemocap"], tmp_path, Choices(labels=("anger", "neutral")))
    assert {row["label"] for row in manifest_rows(four)} == {"anger", "neutral"}
    assert four.chosen_away["sadness"] == 20
    six = by_id(prepare(CORPORA["iemocap"], tmp_path, Choices(six_only=True)))
    assert len(six) == 120
    assert all(row["label6"] for row in six.values())
    assert all(full[name] == row for name, row in six.items())  # the same fold, whatever is asked
    with pytest.raises(CorpusError, match="no clip of iemocap is labelled angry; expected labels"):
        prepare(CORPORA["iemocap"], tmp_path, Choices(labels=("angry",)))


def test_emodb(tmp_path: Path) -> None:
    rows = by_id(prepared("emodb", tmp_path))
    assert rows["03a02Wb"]["file"] == "wav/03a02Wbxx.wav"
    assert rows["03a01Wa"]["file"] == "wav/03a01Wa.wav"  # not the laryngogram
    assert {row["gender"] for row in rows.values() if row["speaker"] in {"03", "15"}} == {"male"}
    assert {row["gender"] for row in rows.values() if row["speaker"] in {"08", "16"}} == {"female"}
    test = {row["speaker"] for row in rows.values() if row["split"] == "test"}
    assert test == {"12", "14", "15", "16"}


def test_ravdess(tmp_path: Path) -> None:
    result = prepared("ravdess", tmp_path)
    rows = by_id(result)
    assert rows["03-01-05-01-01-01-12"]["file"] == "Actor_12/03-01-05-01-01-01-12.wav"
    assert len(result.reading.repeated) == 1
    assert result.reading.left_out == (("03-02-04-01-01-01-01", "song, not speech"),)
    assert rows["03-01-05-02-01-01-12"]["intensity"] == "strong"
    assert (rows["03-01-05-02-01-01-12"]["gender"], rows["03-01-05-02-01-01-11"]["gender"]) == (
        "female",
        "male",
    )
    parts = {row["speaker"]: row["split"] for row in rows.values()}
    assert [name for name, part in sorted(parts.items()) if part == "dev"] == [
        *("16", "17", "19", "20")
    ]


def test_crema_d(tmp_path: Path) -> None:
    result = prepared("crema-d", tmp_path)
    rows = by_id(result)
    assert rows["1040_ITH_SAD_X"]["intensity"] == ""
    assert rows["1001_IEO_ANG_HI"]["intensity"] == "high"
    assert rows["1001_IEO_ANG_HI"]["file"].endswith(".wav")
    assert [name for name, _ in result.reading.left_out] == ["1076_MTI_SAD_XX"]
    assert (rows["1001_DFA_ANG_XX"]["gender"], rows["1003_DFA_ANG_XX"]["gender"]) == ("male", "")


def test_iemocap(tmp_path: Path) -> None:
    result = prepared("iemocap", tmp_path)
    rows = by_id(result)
    row = rows["Ses01F_impro01_M000"]
    assert (row["speaker"], row["gender"]) == ("Ses01M", "male")  # who speaks, not who is tracked
    assert row["valence_rating"] == "2.5000"
    assert (row["arousal_rating"], row["dominance_rating"]) == ("3.0000", "3.5000")
    assert (row["arousal"], row["valence"]) == ("high", "negative")
    assert {row["session"]: row["split"] for row in rows.values()} == {
        **dict.fromkeys(("Session1", "Session2", "Session3"), "train"),
        "Session4": "dev",
        "Session5": "test",
    }
    assert {row["fold"] for row in rows.values() if row["session"] == "Session3"} == {"3"}
    assert result.reading.beside == 10
    assert rows["Ses05M_script01_1b_F006"]["label6"] == ""  # undecided


def test_meld(tmp_path: Path) -> None:
    result = prepared("meld", tmp_path)
    rows = by_id(result)
    assert rows["train_dia0_utt1"]["label"] == rows["dev_dia0_utt1"]["label"] == "happiness"
    assert rows["test_dia0_utt0"]["file"] == "output_repeated_splits_test/dia0_utt0.wav"
    assert {name for name, _ in result.reading.left_out} == {
        "train_dia125_utt3",
        "dev_splits_complete/dia66_utt9.wav",
    }
    Folder(tmp_path).wav("output_repeated_splits_test/final_videos_testdia1_utt3.wav")
    (tmp_path / "output_repeated_splits_test" / "dia1_utt3.wav").unlink()
    rows = by_id(prepare(CORPORA["meld"], tmp_path))
    assert "final_videos_test" in rows["test_dia1_utt3"]["file"]


def test_esd(tmp_path: Path) -> None:
    rows = by_id(prepared("esd", tmp_path))
    assert (rows["0010_000700"]["label"], rows["0011_000700"]["language"]) == ("anger", "en")
    assert rows["0010_000700"]["sentence"] == rows["0010_001750"]["sentence"] == "350"
    folds = {row["speaker"]: row["fold"] for row in rows.values()}
    assert {name for name, fold in folds.items() if fold == "1"} == {"0005", "0011", "0016", "0018"}
    (tmp_path / "0001" / "Sad" / "0001_000001.wav").write_bytes(noise(1))
    with pytest.raises(CorpusError, match="lies in Sad, but its number is one of Neutral"):
        prepare(CORPORA["esd"], tmp_path)


def test_tess(tmp_path: Path) -> None:
    rows = by_id(prepared("tess", tmp_path))
    assert rows["OAF_bite_neutral"]["speaker"] == "OAF"
    assert rows["OAF_dog_sad"]["file"] == "OAF_sad/OAF_dog_sad.wav"
    assert rows["YAF_bar_ps"]["label6"] == "4"


def test_savee_in_both_layouts(tmp_path: Path) -> None:
    rows = by_id(prepared("savee", tmp_path))
    assert (rows["DC_sa01"]["label"], rows["KL_su01"]["label"]) == ("sadness", "surprise")
    assert (rows["DC_a01"]["file"], rows["KL_a01"]["file"]) == (
        "AudioData/DC/a01.wav",
        "ALL/KL_a01.wav",
    )


def test_subesco(tmp_path: Path) -> None:
    rows = by_id(prepared("subesco", tmp_path))
    assert rows["F_02_MONIKA_S_2_SURPRISE_3"]["file"].endswith("_3].wav")
    assert {rows[f"{actor}_S_1_SAD_1"]["speaker"] for actor in ("F_01_OISHI", "M_01_ILIAS")} == {
        "F_01",
        "M_01",
    }
    assert rows["M_02_DURANTO_S_1_SAD_1"]["split"] == "test"


def test_shemo(tmp_path: Path) -> None:
    row = by_id(prepared("shemo", tmp_path))["F01F01"]
    assert (row["gender"], row["label"], row["speaker"]) == ("female", "fear", "F01")


def test_enterface(tmp_path: Path) -> None:
    result = prepared("enterface", tmp_path)
    rows = by_id(result)
    assert rows["s11_anger_1"]["file"] == "subject 11/anger/sentence 1/s12_an_1.avi"
    assert rows["s3_fear_2"]["speaker"] == "03"
    assert rows["s16_surprise_2"]["file"].endswith("s16_su_3avi.avi")
    assert rows["s1_anger_1"]["file"].endswith(".wav")
    assert len(result.reading.left_out) == 6
    assert "06" not in {row["speaker"] for row in rows.values()}


def test_mesd_words_and_voices(tmp_path: Path) -> None:
    rows = by_id(prepared("mesd", tmp_path))
    words = {row["sentence"] for row in rows.values()}
    assert words == {"abajo", "hasta luego", "por_favor", "adi\u00f3s"}  # the accent in one form
    assert {row["gender"] for row in rows.values()} == {"female", "male", "child"}


def test_casia_and_aibo_and_demos(tmp_path: Path) -> None:
    rows = by_id(prepared("casia", tmp_path / "casia"))
    assert rows["wangzhe_sad_201"]["file"] == "wangzhe/sad/201.wav"
    aibo = by_id(prepared("aibo", tmp_path / "aibo"))
    assert {(row["session"], row["split"]) for row in aibo.values()} == {
        ("Ohm", "train"),
        ("Mont", "test"),
    }
    assert {row["speaker"] for row in aibo.values()} >= {"Ohm_01", "Mont_01"}
    demos = by_id(prepared("demos", tmp_path / "demos"))
    marks = [
        demos[f"{kind}f_01_{emotion}"]["prototypical"]
        for kind, emotion in (("PR_", "rab02b"), ("NP_", "rab01a"), ("", "neu01a"))
    ]
    assert marks == ["yes", "no", ""]


def test_emofilm_with_and_without_its_legend(tmp_path: Path) -> None:
    rows = by_id(prepared("emofilm", tmp_path))
    assert rows["m_tri009aes"]["speaker"] == "actor m9 es"
    assert rows["f_ans000ait"]["speaker"] == ""  # ???? is nobody
    assert rows["f_ans000ait"]["session"] == "film f0"
    films: dict[str, set[str]] = {}
    for row in rows.values():
        films.setdefault(row["session"], set()).add(row["fold"])
    assert all(len(folds) == 1 for folds in films.values())
    (tmp_path / "f_m_corpus_it_es_en_legend.xlsx").unlink()
    rows = by_id(prepare(CORPORA["emofilm"], tmp_path))
    assert {row["speaker"] for row in rows.values()} == {""}
    scenes: dict[str, set[str]] = {}
    for name, row in rows.items():
        scenes.setdefault(name[5:8], set()).add(row["fold"])
    assert all(len(folds) == 1 for folds in scenes.values())


def test_emofilm_whose_films_hang_together_keeps_speakers_whole(tmp_path: Path) -> None:
    """A dubbing actor in every film makes one group of all: films are then divided."""
    folder = build("emofilm", tmp_path)
    lines = ["file,speaker,film"]
    for clip in prepare(CORPORA["emofilm"], tmp_path).clips:
        lines.append(f"{clip.id},{'the same' if clip.language == 'it' else clip.id},{clip.id[5:8]}")
    (tmp_path / "f_m_corpus_it_es_en_legend.xlsx").unlink()
    folder.write("f_m_corpus_it_es_en_legend.csv", "\n".join(lines))
    result = prepare(CORPORA["emofilm"], tmp_path)
    assert len({clip.fold for clip in result.clips}) == 5
    assert result.shared("fold") == result.shared("split") == []


def test_smartkom_cuts_turns_and_takes_the_state_they_overlap_most(tmp_path: Path) -> None:
    rows = by_id(prepared("smartkom", tmp_path))
    row = rows["w002_pk_AAC_002"]
    assert (row["label"], row["speaker"], row["session"]) == ("anger", "AAC", "w002_pk")
    assert (row["start"], row["end"]) == ("0.2", "0.293812")
    assert row["file"].endswith("w002_pkd.wav")
    path = tmp_path / "SK-Public/w000_pk/w000_pk_AAA.par"
    path.write_text(
        "TRN: 0 100 0 x\nUSH: 0 40 Neutral x\nUSH: 50 20 Ratlosigkeit x\n"
        "USH: 80 20 Ratlosigkeit x\n"
    )
    rows = by_id(prepare(CORPORA["smartkom"], tmp_path))
    assert rows["w000_pk_AAA_000"]["label"] == "helplessness"  # two parts of 20 are more than 40
    path.write_text("TRN: 0 100 0 x\nUSH: 0 40 Wut x\n")
    with pytest.raises(CorpusError, match="has the user state Wut"):
        prepare(CORPORA["smartkom"], tmp_path)
