"""Joining labels: every way they can fail to fit is counted and named."""

from __future__ import annotations

import numpy as np
import pytest

from exhubert_features.errors import LabelError
from exhubert_features.evaluation import LabelOptions, join_labels

CLIPS = [
    {"id": "a", "clip_id": "a", "file": "/data/wav/a.wav", "speaker": "1"},
    {"id": "b", "clip_id": "b", "file": "/data/wav/b.wav", "speaker": "1"},
    {"id": "c", "clip_id": "c", "file": "/data/wav/c.wav", "speaker": "2"},
]


DROP = LabelOptions(drop_unlabelled=True)


def table(**emotions: str) -> list[dict[str, str]]:
    return [{"id": key, "emotion": value, "speaker": "s" + key} for key, value in emotions.items()]


def test_join_on_id_keeps_the_store_order() -> None:
    labels = join_labels(CLIPS, table(c="sad", a="happy", b="sad"), target="emotion")
    assert labels.ids.tolist() == ["a", "b", "c"]
    assert labels.classes == ("happy", "sad")
    assert labels.values.tolist() == [0, 1, 1]
    assert labels.groups.tolist() == ["sa", "sb", "sc"]
    assert labels.rows.tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    "names",
    [
        ["/data/wav/a.wav", "/data/wav/b.wav", "/data/wav/c.wav"],
        ["wav/a.wav", "wav/b.wav", "wav/c.wav"],
        ["{data_root}/a.wav", "$data_root/wav/b.wav", "wav\\c.wav"],
    ],
)
def test_join_on_file_by_path_or_its_end(names: list[str]) -> None:
    rows = [
        {"wav": name, "emotion": emotion, "speaker": "x"}
        for name, emotion in zip(names, "xyx", strict=True)
    ]
    assert join_labels(CLIPS, rows, target="emotion").values.tolist() == [0, 1, 0]


def test_a_file_name_that_fits_two_clips_is_ambiguous() -> None:
    clips = [{"id": side, "file": f"/data/{side}/001.wav"} for side in ("left", "right")]
    rows = [{"file": "001.wav", "emotion": "x"}]
    with pytest.raises(LabelError, match=r"clips fit the names of 1 file \(001.wav\)"):
        join_labels(clips, rows, target="emotion", group=None)


def test_join_on_file_where_the_corpus_has_moved() -> None:
    clips = [
        {"id": f"{speaker}{n}", "file": f"/mine/corpus/{speaker}/{n}.wav"}
        for speaker in "xy"
        for n in range(3)
    ]
    rows = [
        {"file": f"D:\\theirs\\{speaker}\\{n}.wav", "emotion": speaker}
        for speaker in "wxyz"  # the table has more speakers than the store, under the same names
        for n in range(3)
    ]
    labels = join_labels(clips, rows, target="emotion", group=None, options=DROP)
    assert labels.values.tolist() == [0, 0, 0, 1, 1, 1] and labels.classes == ("x", "y")
    moved = "Files under D:/theirs in the labels were taken for those under mine/corpus"
    assert labels.warnings[0] == moved
    with pytest.raises(LabelError, match=r"no clip in the store for 6 labels \(.*w.0\.wav"):
        join_labels(clips, rows, target="emotion", group=None)


def test_two_folders_that_fit_as_well_are_no_match() -> None:
    clips = [{"id": "1", "file": "/mine/a/1.wav"}]
    rows = [{"file": f"/theirs/{side}/1.wav", "emotion": side} for side in ("b", "c")]
    with pytest.raises(LabelError, match="no label fits any clip"):
        join_labels(clips, rows, target="emotion", group=None)


def test_windows_of_a_clip_share_its_label() -> None:
    clips = [
        {"id": f"{clip}#000{window}", "clip_id": clip, "file": f"{clip}.wav"}
        for clip in "ab"
        for window in (0, 1)
    ]
    labels = join_labels(clips, table(a="x", b="y"), target="emotion", group=None)
    assert labels.values.tolist() == [0, 0, 1, 1]
    assert labels.clips.tolist() == ["a", "a", "b", "b"]


def test_columns_of_the_store_need_no_table() -> None:
    clips = [{**clip, "emotion": emotion} for clip, emotion in zip(CLIPS, "xyx", strict=True)]
    assert join_labels(clips, target="emotion").groups.tolist() == ["1", "1", "2"]
    with pytest.raises(LabelError, match=r"no column 'mood'.*clip_id, emotion"):
        join_labels(clips, target="mood")


def test_missing_and_extra_labels_are_counted_named_and_dropped_only_when_asked() -> None:
    rows = table(a="x", b="y", d="x", e="")
    with pytest.raises(LabelError) as caught:
        join_labels(CLIPS, rows, target="emotion")
    assert "no label, group or split for 1 clip (c)" in str(caught.value)
    assert "no clip in the store for 2 labels (d, e)" in str(caught.value)
    labels = join_labels(CLIPS, rows, target="emotion", options=DROP)
    assert labels.ids.tolist() == ["a", "b"]
    assert labels.rows.tolist() == [0, 1]
    assert len(labels.warnings) == 2


def test_labels_of_failed_clips_are_not_extra() -> None:
    failed = [{"id": "broken", "file": "/data/wav/broken.wav"}]
    by_id = table(a="x", b="y", c="x", broken="x")
    assert len(join_labels(CLIPS, by_id, target="emotion", failed=failed)) == 3
    by_file = [{"file": f"wav/{row['id']}.wav", **row, "id": ""} for row in by_id]
    assert len(join_labels(CLIPS, by_file, target="emotion", failed=failed)) == 3


def test_an_empty_label_or_group_is_missing() -> None:
    rows = [*table(a="x", b="y"), {"id": "c", "emotion": "x", "speaker": ""}]
    with pytest.raises(LabelError, match=r"no label, group or split for 1 clip \(c\)"):
        join_labels(CLIPS, rows, target="emotion")


def test_duplicates_are_named_and_conflicts_never_dropped() -> None:
    rows = table(a="x", b="y", c="x")
    with pytest.raises(LabelError, match=r"more than one row for 1 label \(a\)"):
        join_labels(CLIPS, [*rows, rows[0]], target="emotion")
    assert len(join_labels(CLIPS, [*rows, rows[0]], target="emotion", options=DROP)) == 3
    conflict = [*rows, {**rows[0], "emotion": "y"}]
    with pytest.raises(LabelError, match=r"contradict each other for 1 clip \(a\)"):
        join_labels(CLIPS, conflict, target="emotion", options=DROP)


def test_only_the_first_culprits_are_named() -> None:
    clips = [{"id": f"n{index}", "file": ""} for index in range(30)]
    with pytest.raises(LabelError, match=r"29 clips \(n1, n2, n3, n4, n5, \.\.\.\)"):
        join_labels(clips, [{"id": "n0", "emotion": "x"}], target="emotion", group=None)


def test_nothing_fits() -> None:
    with pytest.raises(LabelError, match=r"no label fits any clip.*the first clip is 'a'"):
        join_labels(CLIPS, table(q="x"), target="emotion")
    with pytest.raises(LabelError, match="1 label rows have nothing in column 'id'"):
        join_labels(CLIPS, [*table(a="x", b="y"), {"id": "", "emotion": "x"}], target="emotion")


def test_mapping_merges_and_leaves_out() -> None:
    labels = join_labels(
        CLIPS,
        table(a="exc", b="hap", c="xxx"),
        target="emotion",
        classes=("ang", "hap"),
        options=LabelOptions(mapping={"exc": "hap", "hap": "hap", "xxx": ""}),
    )
    assert labels.values.tolist() == [1, 1]
    assert labels.warnings == ("Left out by the label map: 1 of 3 clips",)


def test_labels_outside_the_given_classes_are_refused() -> None:
    with pytest.raises(LabelError, match=r"1 label \(z\) .*outside the head's classes"):
        join_labels(CLIPS, table(a="x", b="z", c="z"), target="emotion", classes=("x", "y"))
    with pytest.raises(LabelError, match="one class, 'x'"):
        join_labels(CLIPS, table(a="x", b="x", c="x"), target="emotion")


def test_regression_is_recognised_or_said() -> None:
    floats = join_labels(CLIPS, table(a="1.5", b="2", c="-3"), target="emotion")
    assert floats.task == "regression" and floats.classes == ()
    np.testing.assert_array_equal(floats.values, [1.5, 2, -3])
    whole = table(a="1", b="2", c="3")
    assert join_labels(CLIPS, whole, target="emotion").classes == ("1", "2", "3")
    assert (
        join_labels(CLIPS, whole, target="emotion", options=LabelOptions(task="regression")).task
        == "regression"
    )
    with pytest.raises(LabelError, match=r"no finite number .* for 1 clip \(b\)"):
        join_labels(
            CLIPS,
            table(a="1", b="inf", c="3"),
            target="emotion",
            options=LabelOptions(task="regression"),
        )
    with pytest.raises(LabelError, match=r"no finite number .* for 1 clip \(b\)"):
        join_labels(CLIPS, table(a="1.5", b="high", c="3"), target="emotion")


def test_many_whole_numbers_need_a_word_from_the_user() -> None:
    clips = [{"id": str(index)} for index in range(60)]
    rows = [{"id": str(index), "score": str(index)} for index in range(60)]
    with pytest.raises(LabelError, match="--task regression"):
        join_labels(clips, rows, target="score", group=None)


@pytest.mark.parametrize("nothing", ["nan", "NaN", ""])
def test_what_is_not_a_number_is_a_missing_label(nothing: str) -> None:
    rows = table(a="1.5", b=nothing, c="3")
    with pytest.raises(LabelError, match=r"no label, group or split for 1 clip \(b\)"):
        join_labels(CLIPS, rows, target="emotion")
    labels = join_labels(CLIPS, rows, target="emotion", options=DROP)
    assert labels.task == "regression" and labels.values.tolist() == [1.5, 3]


def test_the_six_classes_are_called_by_their_names_and_the_absent_ones_said() -> None:
    rows = [{"id": key, "label6": n} for key, n in zip("abc", "530", strict=True)]
    labels = join_labels(CLIPS, rows, target="label6", group=None)
    assert [labels.classes[value] for value in labels.values] == [
        *("high-positive", "high-negative", "low-negative"),
    ]
    assert labels.warnings == (
        "Of the six classes no clip is low-neutral or low-positive or high-neutral: "
        "scores are over the others",
    )
    renamed = LabelOptions(mapping={"0": "calm", "3": "loud", "5": "loud"})
    assert join_labels(CLIPS, rows, target="label6", group=None, options=renamed).classes == (
        *("calm", "loud"),
    )


def test_all_six_classes_are_no_ratings() -> None:
    clips = [{"id": str(n), "file": f"{n}.wav"} for n in range(6)]
    rows = [{"id": str(n), "label6": str(n)} for n in range(6)]
    labels = join_labels(clips, rows, target="label6", group=None)
    assert labels.task == "classification" and labels.warnings == ()
