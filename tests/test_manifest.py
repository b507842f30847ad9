"""Sources to clips: files, folders, tables, SpeechBrain manifests and arrays."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
from read_plans import Found, read_plan

from exhubert_features.errors import UsageError

RATE = 16_000


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """``audio/`` with a.wav (1 s), sub/b.flac (2 s at 8 kHz) and things that are not audio."""
    folder = tmp_path / "audio"
    (folder / "sub").mkdir(parents=True)
    noise = np.random.default_rng(0).normal(0, 0.1, 32_000).astype(np.float32)
    soundfile.write(folder / "a.wav", noise[:RATE], RATE)
    soundfile.write(folder / "sub" / "b.flac", noise[:16_000], 8_000)
    (folder / "README.txt").write_text("about the corpus")
    (folder / "._a.wav").write_bytes(b"macOS keeps such files")
    return tmp_path


def table(folder: Path, text: str, name: str = "list.csv") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def ids(plan: Found) -> list[str]:
    return [clip.id for clip in plan.clips]


def kinds(plan: Found) -> dict[str, str]:
    return {failure.id: failure.kind for failure in plan.failures}


def test_folder(corpus: Path) -> None:
    plan = read_plan(corpus / "audio")
    assert ids(plan) == ["a.wav", "sub/b.flac"]
    assert plan.failures == ()
    assert plan.left_out == 2
    first, second = plan.clips
    assert (first.samples, second.samples) == (16_000, 32_000)
    assert first.file == str(corpus / "audio" / "a.wav")
    content = (corpus / "audio" / "a.wav").read_bytes()
    assert first.audio_sha256 == hashlib.sha256(content).hexdigest()


def test_files_are_known_by_their_path(corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(corpus)
    plan = read_plan(["./audio/a.wav", Path("audio/sub/b.flac")])
    assert ids(plan) == ["audio/a.wav", "audio/sub/b.flac"]


def test_links_are_followed_but_not_in_circles(corpus: Path) -> None:
    elsewhere = corpus / "elsewhere"
    elsewhere.mkdir()
    soundfile.write(elsewhere / "c.wav", np.zeros(800), RATE)
    (corpus / "audio" / "link").symlink_to(elsewhere)
    (corpus / "audio" / "sub" / "circle").symlink_to(corpus / "audio")
    assert ids(read_plan(corpus / "audio")) == ["a.wav", "link/c.wav", "sub/b.flac"]


def test_recordings_that_cannot_be_read_are_not_passed_over(corpus: Path) -> None:
    (corpus / "audio" / "phone.m4a").write_bytes(b"\0\0\0 ftypM4A ")
    (corpus / "audio" / "gone.wav").symlink_to("nowhere.wav")
    plan = read_plan(corpus / "audio")
    # Cut off for who looks into its boxes; another word would do, but not silence.
    assert kinds(plan) == {"phone.m4a": "truncated", "gone.wav": "missing"}
    assert len(plan.clips) == 2


def test_table(corpus: Path) -> None:
    path = table(
        corpus,
        "file,id,start,end,speaker,Emotion\n"
        "audio/a.wav,x/1,,,anna,joy\n"
        "audio/a.wav,ü 2,0.25,0.75,ben,anger\n"
        f"{corpus}/audio/sub/b.flac,three,1,,ben,\n",
    )
    first, second, third = read_plan(path).clips
    assert (first.id, first.start, first.end, first.samples) == ("x/1", 0.0, None, 16_000)
    assert (second.id, second.start, second.end, second.samples) == ("ü 2", 0.25, 0.75, 8_000)
    assert (third.file, third.samples) == (f"{corpus}/audio/sub/b.flac", 16_000)
    assert second.meta == {"speaker": "ben", "Emotion": "anger"}
    # The same bytes, but not the same audio: moving a boundary must be seen as a change.
    assert len({clip.audio_sha256 for clip in (first, second, third)}) == 3
    assert read_plan(path).clips[1].audio_sha256 == second.audio_sha256


def test_ids_by_default(corpus: Path) -> None:
    path = table(corpus, "file,start,end\naudio/a.wav,,\naudio/a.wav,0.5,\naudio/a.wav,0,0.5\n")
    assert ids(read_plan(path)) == ["audio/a.wav", "audio/a.wav@0.5-", "audio/a.wav@0-0.5"]


def test_tabs_bom_and_audformat_times(corpus: Path) -> None:
    path = corpus / "list.tsv"
    row = "audio/sub/b.flac\t0 days 00:00:00.500000\t0 days 00:00:01.500000\n"
    path.write_text("file\tstart\tend\n" + row + "audio/a.wav\t0 days\tNaT\n", encoding="utf-8-sig")
    first, second = read_plan(path).clips
    assert (first.start, first.end) == (0.5, 1.5)
    assert (second.start, second.end, second.samples) == (0.0, None, RATE)


def test_speechbrain_csv_counts_samples(corpus: Path) -> None:
    path = table(
        corpus, "ID,duration,wav,start,stop,spk_id\nutt1,1.0,$data_root/sub/b.flac,4000,12000,s1\n"
    )
    (clip,) = read_plan(path, data_root=corpus / "audio").clips
    assert (clip.id, clip.start, clip.end, clip.samples) == ("utt1", 0.5, 1.5, 16_000)
    assert clip.meta == {"duration": "1.0", "spk_id": "s1"}


def test_speechbrain_json(corpus: Path) -> None:
    items = {
        "u1": {"wav": "{data_root}/a.wav", "length": 1.0, "emo": "ang"},
        "u2": {"wav": {"file": "{data_root}/sub/b.flac", "start": 4000, "stop": 12_000}},
        "u3": {"wav": "audio/a.wav", "words": ["a", "b"]},
    }
    path = table(corpus, json.dumps(items), "train.json")
    first, second, third = read_plan(path, data_root=corpus / "audio").clips
    assert first.meta == {"length": "1.0", "emo": "ang"}
    assert (second.start, second.end) == (0.5, 1.5)
    assert third.meta == {"words": '["a", "b"]'}
    with pytest.raises(UsageError, match="data_root"):
        read_plan(path)


def test_bad_rows_do_not_stop_the_others(corpus: Path) -> None:
    path = table(
        corpus,
        "id,file,start,end\n"
        "fine,audio/a.wav,,\n"
        "gone,audio/gone.wav,,\n"
        "folder,audio,,\n"
        "text,audio/a.wav,soon,\n"
        "late,audio/a.wav,5,6\n"
        "nofile,,,\n"
        "wide,audio/a.wav,,,extra\n"
        "nan,audio/a.wav,nan,\n"
        "short,audio/a.wav,0,0.01\n",
    )
    plan = read_plan(path)
    assert ids(plan) == ["fine"]
    assert kinds(plan) == {
        "gone": "missing",
        "folder": "directory",
        "text": "manifest",
        "late": "segment",
        "nofile": "manifest",
        "wide": "manifest",
        "nan": "manifest",
        "short": "too_short",
    }
    reason = next(failure.reason for failure in plan.failures if failure.id == "text")
    assert "line 5" in reason
    assert "soon" in reason


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", "name,speaker\nx,y\n"),
        ("a.csv", ""),
        ("a.csv", "file\n\udcff\n"),
        ("a.json", "[1, 2]"),
        ("a.json", '{"a": 3}'),
        ("a.json", "{"),
    ],
)
def test_unusable_manifests_are_wrong_usage(tmp_path: Path, name: str, content: str) -> None:
    path = tmp_path / name
    path.write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(UsageError, match=name):
        read_plan(path)


def test_duplicate_ids(corpus: Path) -> None:
    path = table(corpus, "id,file\nx,audio/a.wav\nx,audio/sub/b.flac\ny,audio/a.wav\n")
    plan = read_plan(path)
    assert ids(plan) == ["x", "y"]
    assert plan.clips[0].file.endswith("a.wav")  # the first has the id
    assert kinds(plan) == {"x (2)": "duplicate"}  # and the failure does not shadow it


@pytest.mark.parametrize("name", ["a/b", "ünï çødé 語", "x" * 300, "#0001", " "])
def test_unusual_ids_are_kept(name: str) -> None:
    plan = read_plan({name: np.zeros(800, np.float32)})
    assert ids(plan) == [name]


@pytest.mark.parametrize("name", ["", "a\0b", "a\nb", "a\udcffb"])
def test_ids_that_cannot_be_stored(name: str) -> None:
    plan = read_plan({name: np.zeros(800, np.float32)})
    assert plan.clips == ()
    (failure,) = plan.failures
    assert failure.kind == "id"
    failure.id.encode("utf-8")


def test_file_names_that_are_no_text(corpus: Path) -> None:
    source = corpus / "audio" / "a.wav"
    odd = os.fsencode(corpus / "audio") + b"/\xff.wav"
    Path(os.fsdecode(odd)).write_bytes(source.read_bytes())
    plan = read_plan(corpus / "audio")
    assert ids(plan) == ["a.wav", "sub/b.flac"]
    assert kinds(plan) == {"\\udcff.wav": "id"}


def test_arrays() -> None:
    wave = np.random.default_rng(0).normal(size=8_000).astype(np.float32)
    plan = read_plan({"a": wave, "b": (wave, 8_000), "c": wave[:10], "d": (wave, 10)})
    assert [(clip.id, clip.samples, clip.file) for clip in plan.clips] == [
        ("a", 8_000, ""),
        ("b", 16_000, ""),
    ]
    assert kinds(plan) == {"c": "too_short", "d": "rate"}


def test_a_channel_that_is_missing(corpus: Path) -> None:
    plan = read_plan(corpus / "audio", channel=1)
    assert set(kinds(plan).values()) == {"channel"}


def test_nothing_to_do_is_wrong_usage(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not exist"):
        read_plan(tmp_path / "typo.wav")
    with pytest.raises(UsageError, match="no audio in"):
        read_plan(tmp_path)
    with pytest.raises(UsageError, match="no input"):
        read_plan([])


def test_a_typo_among_others_is_recorded(corpus: Path) -> None:
    plan = read_plan([corpus / "audio" / "a.wav", corpus / "typo.wav"])
    assert len(plan.clips) == 1
    assert list(kinds(plan).values()) == ["missing"]


def test_the_order_of_the_source_is_kept(corpus: Path) -> None:
    path = table(corpus, "id,file\nx,gone.wav\ny,audio/a.wav\nz,\nw,audio/sub/b.flac\n")
    assert [clip.id for clip in read_plan(path).everything] == ["x", "y", "z", "w"]


def test_data_root_holds_what_is_not_beside_the_manifest(corpus: Path) -> None:
    (corpus / "lists").mkdir()
    path = table(corpus / "lists", "file\naudio/a.wav\n")
    assert kinds(read_plan(path)) == {"audio/a.wav": "missing"}
    (clip,) = read_plan(path, data_root=corpus).clips
    assert clip.file == str(corpus / "audio" / "a.wav")


WAVE = np.random.default_rng(0).normal(0, 0.1, 8_000).astype(np.float32)


@pytest.mark.parametrize(
    ("source", "ids_and_samples"),
    [
        (WAVE, [("0", 8_000)]),
        (torch.tensor(WAVE), [("0", 8_000)]),
        ((WAVE, 8_000), [("0", 16_000)]),
        ((WAVE, 8_000.0), [("0", 16_000)]),
        ([WAVE, (WAVE, 32_000)], [("0", 8_000), ("1", 4_000)]),
        ((WAVE, WAVE), [("0", 8_000), ("1", 8_000)]),
        ({"a": torch.tensor(WAVE)}, [("a", 8_000)]),
    ],
)
def test_arrays_of_every_kind(source: object, ids_and_samples: list[tuple[str, int]]) -> None:
    plan = read_plan(source)  # type: ignore[arg-type]
    assert [(clip.id, clip.samples) for clip in plan.clips] == ids_and_samples


@pytest.mark.parametrize("layout", ["samples first", "channels first"])
def test_channels_of_arrays(layout: str) -> None:
    both = np.stack([WAVE, 0.5 * WAVE[::-1]])
    source = both.T if layout == "samples first" else both
    for channel, expected in [(None, both.mean(axis=0)), (0, both[0]), (1, both[1])]:
        plan = read_plan(source, channel=channel)
        np.testing.assert_array_equal(plan.waves["0"], expected)
    assert kinds(read_plan(source, channel=2)) == {"0": "channel"}


@pytest.mark.parametrize(
    ("array", "kind"),
    [
        (np.zeros((300, 400)), "channel"),  # a matrix of features
        (np.zeros((2, 2, 800)), "channel"),
        (np.zeros((800, 2), np.int16), "dtype"),
        ((WAVE, 44_100.5), "rate"),
    ],
)
def test_arrays_that_are_no_audio(array: object, kind: str) -> None:
    assert kinds(read_plan([array])) == {"0": kind}  # type: ignore[list-item]


def test_audformat_tables(corpus: Path) -> None:
    name = str(corpus / "audio" / "sub" / "b.flac")
    index = pd.MultiIndex.from_arrays(
        [[name, name], pd.to_timedelta([0.5, 0], unit="s"), pd.to_timedelta([1.5, None], unit="s")],
        names=["file", "start", "end"],
    )
    frame = pd.DataFrame({"emotion": ["joy", None], "age": [3, 4]}, index=index)
    for source in (index, frame, frame.reset_index()):
        first, second = read_plan(source).clips
        assert (first.file, first.start, first.end) == (name, 0.5, 1.5)
        assert (second.start, second.end, second.samples) == (0.0, None, 32_000)
        assert (first.id, second.id) == (f"{name}@0.5-1.5", name)
    assert read_plan(frame).clips[0].meta == {"emotion": "joy", "age": "3"}
    assert read_plan(frame).clips[1].meta == {"emotion": "", "age": "4"}
    named = read_plan(frame.assign(id=["x", "y"]))
    assert ids(named) == ["x", "y"]
    (whole,) = read_plan(pd.Index([name], name="file")).clips
    assert whole.audio_sha256 == second.audio_sha256
    with pytest.raises(UsageError, match="the table has the columns age"):
        read_plan(frame[["age"]].reset_index(drop=True))


def test_what_is_no_source_is_named(corpus: Path) -> None:
    with pytest.raises(UsageError, match="a ndarray among the inputs"):
        read_plan([corpus / "audio", WAVE])  # type: ignore[list-item]
    with pytest.raises(UsageError, match="a is a str"):
        read_plan({"a": "a.wav"})  # type: ignore[dict-item]
    with pytest.raises(UsageError, match="a int among the inputs"):
        read_plan((16_000, WAVE))  # type: ignore[arg-type]
