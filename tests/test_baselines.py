"""What else knows the target: the released six classes untold, and eGeMAPS functionals."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from emotional_store import write_emotional_store
from waves import noise

from exhubert_features import FeatureStore, LabelOptions, probe
from exhubert_features.checkpoint import write_random_checkpoint
from exhubert_features.cli import main
from exhubert_features.errors import AudioError, LabelError, MissingDependency, UsageError
from exhubert_features.evaluation import Evaluation
from exhubert_features.extraction.functionals import write_egemaps
from exhubert_features.fingerprint import Fingerprint
from exhubert_features.spec import CLASSES

SIX = {"angry": "high-negative", "happy": "high-positive", "sad": "low-negative"}  # by the table


def write_telling_store(
    path: Path, *, hits: float = 1.0, always: str = "low-neutral"
) -> FeatureStore:
    """The emotional store with logits of the six classes, right in a share of the clips.

    In the others it is ``always`` that is told; it is the second best in all.
    """
    plain = write_emotional_store(path / "plain", seed=3, speakers=6, clips=9)
    model = replace(plain.fingerprint.model, classes=CLASSES)
    random = np.random.default_rng(0)
    rows = []
    for name in plain.ids:
        row = plain[name]
        right, names = random.random() < hits, np.array(CLASSES)
        logits = np.where(names == SIX[row.meta["emotion"]], 4.0, 0.0)
        logits[CLASSES.index(always)] = 2.0 if right else 9.0
        rows.append(replace(row, logits=logits.astype(np.float32)))
    fingerprint = Fingerprint(model=model, spec=plain.fingerprint.spec)
    return FeatureStore.write(path / "six", rows, fingerprint=fingerprint)


def six_classes(store: FeatureStore, **options: object) -> Evaluation:
    return probe(
        store, target="emotion", layers=[3], baselines=["six-classes"],
        joining=LabelOptions(**options),  # type: ignore[arg-type]
    )  # fmt: skip


def test_the_models_own_answer_is_scored_in_the_labels_words(tmp_path: Path) -> None:
    found = six_classes(write_telling_store(tmp_path)).comparisons
    axes = ["six classes", "arousal", "valence"]
    assert [one.against.rpartition(" as ")[2] for one in found] == axes
    for one in found:
        assert one.score is not None and one.score.value == 1.0
        assert "Told so, this one scores" in one.note
    six, arousal, valence = (one.note for one in found)
    assert "No label stands for low-neutral, low-positive, high-neutral" in six
    assert "No label stands for" not in arousal
    assert "No label stands for neutral" in valence


def test_the_head_is_told_as_levels_too(tmp_path: Path) -> None:
    """Known truth: the head by its own confusions, the model right in six of ten clips."""
    found = six_classes(write_telling_store(tmp_path, hits=0.6))
    arousal = next(one for one in found.comparisons if one.against.endswith("arousal"))
    tested, told = found.tested, found.scaled_probabilities
    assert told is not None and arousal.score is not None
    high = np.array([SIX[name].startswith("high") for name in tested.classes])
    truth, guess = high[tested.values], told[:, high].sum(axis=1) > 0.5
    head = np.mean([(guess == truth)[truth == level].mean() for level in (False, True)])
    assert f"this one scores {head:.3f}" in arousal.note
    assert arousal.difference.value == pytest.approx(head - arousal.score.value)
    # Where the model says low-neutral, it says low: all low clips are right, 0.6 of the high.
    assert arousal.score.value == pytest.approx(0.8, abs=0.1)
    assert arousal.p_value is not None and arousal.p_value < 0.05


def test_what_no_label_stands_for_is_not_answered(tmp_path: Path) -> None:
    """High-neutral is told first of every clip: no emotion here, but a high arousal."""
    found = six_classes(write_telling_store(tmp_path, hits=0.0, always="high-neutral"))
    six, arousal, valence = (one.score for one in found.comparisons)
    assert six is not None and arousal is not None and valence is not None
    assert six.value == 1.0 and arousal.value == 0.5 and valence.value == 1.0


def test_what_the_table_does_not_know_is_left_out_and_said(tmp_path: Path) -> None:
    store = write_telling_store(tmp_path)
    found = six_classes(store, mapping={"happy": "other", "sad": "calm"}).comparisons
    notes = " ".join(one.note for one in found)
    assert "Left out, as the table has no class for them: other." in notes
    assert "calm is taken for low-positive, not low-neutral" in notes
    with pytest.raises(LabelError, match=r"\(angry, hungry, other\) stand for fewer than two"):
        six_classes(store, mapping={"happy": "other", "sad": "hungry"})


def test_labels_may_be_levels_themselves(tmp_path: Path) -> None:
    store = write_telling_store(tmp_path)
    high = six_classes(store, mapping={"angry": "High", "happy": "High", "sad": "Low"})
    (arousal,) = high.comparisons
    assert arousal.against.endswith("arousal") and arousal.score is not None
    assert arousal.score.value == 1.0
    six = six_classes(store, mapping=SIX)
    assert [one.score.value for one in six.comparisons if one.score] == [1.0] * 3
    assert not any("Ambiguous" in one.note for one in six.comparisons)


def test_soft_labels_are_told_by_their_largest_share(tmp_path: Path) -> None:
    store = write_telling_store(tmp_path)
    rows = []
    for place, name in enumerate(store.ids):
        meta = store[name].meta
        votes = {emotion: "3" if emotion == meta["emotion"] else "1" for emotion in SIX}
        tie = dict.fromkeys(SIX, "1") if place == 0 else {}
        rows.append({"id": name, "speaker": meta["speaker"], **votes, **tie})
    found = probe(
        store, target="angry,happy,sad", labels=rows, layers=[3], baselines=["six-classes"],
        joining=LabelOptions(soft=True),
    )  # fmt: skip
    assert [one.score.value for one in found.comparisons if one.score] == [1.0] * 3


def test_six_classes_need_the_released_models_logits(tmp_path: Path) -> None:
    write_emotional_store(tmp_path / "two", speakers=4, clips=6)
    with pytest.raises(UsageError, match="no logits of the released six classes"):
        six_classes(FeatureStore(tmp_path / "two"))
    with pytest.raises(UsageError, match="the target is a number"):
        probe(write_telling_store(tmp_path), target="arousal", layers=[3],
              baselines=["six-classes"])  # fmt: skip


def test_what_is_known_of_clips_is_no_feature(tmp_path: Path) -> None:
    """A table may hold the label in numbers, as it does for other tools."""
    store = write_emotional_store(tmp_path / "store", speakers=4, clips=6)
    table = tmp_path / "features.csv"
    index = {name: str(place) for place, name in enumerate(("angry", "happy", "sad"))}
    metas = [store[name].meta for name in store.ids]
    known = [f"{name},{index[meta['emotion']]},{meta['speaker'][1:]}"
             for name, meta in zip(store.ids, metas, strict=True)]  # fmt: skip
    lines = [f"{line},{place % 7}" for place, line in enumerate(known)]
    table.write_text("\n".join(["id,emotion,speaker,noise", *lines]))
    (one,) = probe(store, target="emotion", layers=[3], baselines=[table]).comparisons
    assert one.score is not None and one.score.value < 0.7
    table.write_text("\n".join(["id,emotion,speaker", *known]))
    with pytest.raises(LabelError, match="has no column of numbers"):
        probe(store, target="emotion", layers=[3], baselines=[table])


def test_six_classes_as_typed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_telling_store(tmp_path)
    command = ["probe", str(tmp_path / "six"), "--target", "emotion", "--layers", "3"]
    command += ["--baseline", "six-classes", "-o", str(tmp_path / "out")]
    assert main(command) == 0
    assert "the model's own classes, untrained, both told as valence" in capsys.readouterr().out
    page = (tmp_path / "out/report.html").read_text()
    assert "untrained, both told as six classes" in page


def test_without_opensmile_the_remedy_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "opensmile", None)
    store = write_emotional_store(tmp_path / "store", speakers=1, clips=1)
    with pytest.raises(MissingDependency, match=r"pip install 'exhubert-features\[opensmile\]'"):
        write_egemaps(store, tmp_path / "table.csv")


@pytest.fixture(scope="module")
def spoken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of synthetic speech, one clip of 25 ms and one at 44.1 kHz among it."""
    pytest.importorskip("opensmile")
    from exhubert_features.synthetic import write_corpus

    folder = tmp_path_factory.mktemp("spoken")
    manifest = write_corpus(folder / "audio", speakers=4, sentences=2)
    soundfile.write(folder / "audio/short.wav", noise(400), 16_000)
    soundfile.write(folder / "audio/odd.wav", noise(31_337), 44_100)
    with manifest.open("a") as stream:
        stream.write("short.wav,short,speaker01,anger\nodd.wav,odd,speaker02,sadness\n")
    model = write_random_checkpoint(folder / "model", layers=2)
    command = ["extract", str(manifest), "-o", str(folder / "store"), "--model", str(model)]
    assert main([*command, "--device", "cpu"]) == 0
    return folder


@pytest.mark.slow
def test_egemaps_are_opensmiles(spoken: Path, tmp_path: Path) -> None:
    import opensmile
    import pandas

    store = FeatureStore(spoken / "store")
    table = pandas.read_csv(write_egemaps(store, tmp_path / "t.csv"), index_col="id")
    assert table.shape == (len(store), 88) and np.isfinite(table.to_numpy()).all()
    smile = opensmile.Smile(
        feature_set=opensmile.FeatureSet.eGeMAPSv02,
        feature_level=opensmile.FeatureLevel.Functionals,
    )
    name = "speaker02/anger_01"
    expected = smile.process_file(str(spoken / f"audio/{name}.wav"))
    np.testing.assert_allclose(table.loc[name], expected.to_numpy()[0], rtol=1e-3, atol=1e-3)


@pytest.mark.slow
def test_egemaps_as_typed(spoken: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["probe", str(spoken / "store"), "--target", "emotion", "-o", str(tmp_path)]
    assert main([*command, "--baseline", "egemaps", "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)["comparisons"]
    assert found["against"].endswith("egemaps.csv") and found["score"]["value"] > 0.5
    assert main([*command, "--baseline", str(tmp_path / "egemaps.csv")]) == 0  # not made again


@pytest.mark.slow
def test_audio_that_has_gone_is_named(spoken: Path, tmp_path: Path) -> None:
    pytest.importorskip("opensmile")
    store = write_emotional_store(tmp_path / "store", speakers=1, clips=1)
    with pytest.raises(AudioError, match=r"the audio of '0-0-00' is not at /audio/0-0-00\.wav"):
        write_egemaps(store, tmp_path / "table.csv")
