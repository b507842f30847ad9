"""``encoder.predict`` and ``encoder.extract``: what users have goes in, whole results come out."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
from waves import noise

from exhubert_features import CLASSES, Encoder, ExtractionSpec, FeatureStore, load_encoder
from exhubert_features.checkpoint import write_random_checkpoint
from exhubert_features.cli import main
from exhubert_features.errors import AudioError, UsageError
from exhubert_features.extraction import plan
from exhubert_features.heads import HeadConfig, build_head, save_head
from exhubert_features.prediction import class_columns


@pytest.fixture(scope="module")
def encoder(two_layers: Path) -> Encoder:
    return load_encoder(two_layers, device="cpu")


def scores(table: pd.DataFrame) -> np.ndarray:
    return table[list(CLASSES)].to_numpy()


def test_the_same_clip_gives_the_same_numbers_everywhere(
    encoder: Encoder, two_layers: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Command, Python, tensors, SpeechBrain's lobe and a store, none told how to prepare audio."""
    from exhubert_features.speechbrain import ExHuBERT

    wave = noise(25_000)
    soundfile.write(tmp_path / "a.wav", wave, 16_000, "FLOAT")
    assert (
        main(["predict", str(tmp_path / "a.wav"), "--model", str(two_layers), "--format", "json"])
        == 0
    )
    command = json.loads(capsys.readouterr().out)["predictions"][0]["probabilities"]
    lobe = ExHuBERT(str(two_layers), None, output_logits=True, freeze=True)
    store = encoder.extract(tmp_path / "a.wav", dtype="float32").write(tmp_path / "store")
    found = {
        "command": list(command.values()),
        "predict": scores(encoder.predict(tmp_path / "a.wav"))[0],
        "tensors": encoder(wave).probabilities[0],
        "lobe": lobe(torch.tensor(wave)[None]).logits[0].softmax(dim=-1),
        "store": torch.tensor(store.logits()[0]).softmax(dim=-1),
    }
    for name, probabilities in found.items():
        np.testing.assert_allclose(probabilities, found["predict"], atol=1e-6, err_msg=name)
    # Another way of preparing gives others, so that agreeing on them means something.
    masked = encoder(wave, preprocess="masked").probabilities[0].numpy()
    assert np.abs(masked - found["predict"]).max() > 1e-3


def test_embeddings_are_the_same_everywhere(
    encoder: Encoder, two_layers: Path, tmp_path: Path
) -> None:
    from exhubert_features.speechbrain import ExHuBERT

    wave = noise(25_000)
    lobe = ExHuBERT(str(two_layers), None, output_all_hiddens=True, freeze=True)
    store = encoder.extract({"a": wave}, dtype="float32").write(tmp_path / "store")
    table = encoder.extract({"a": wave}, layers=1).to_dataframe()
    output = encoder(wave)
    own = output.layers[:, 0, : int(output.frame_lengths[0])].mean(dim=1)
    np.testing.assert_allclose(lobe(torch.tensor(wave)[None])[:, 0].mean(dim=1), own, atol=1e-5)
    np.testing.assert_allclose(store["a"].pooled[:, 0], own, atol=1e-5)
    np.testing.assert_allclose(table.filter(like="feature_").to_numpy()[0], own[1], atol=1e-5)


def test_any_rate_and_channels(encoder: Encoder, tmp_path: Path) -> None:
    stereo = np.stack([noise(22_050), noise(22_050, 1)], axis=1)
    stereo = np.round(stereo * 32768) / 32768
    soundfile.write(tmp_path / "a.wav", stereo, 22_050)
    speech, rate = soundfile.read(tmp_path / "a.wav")  # float64, (N, channels), as it comes
    wanted = scores(encoder.predict(tmp_path / "a.wav"))
    for source in ((speech, rate), (speech.T, rate), [(torch.tensor(speech), rate)]):
        np.testing.assert_allclose(scores(encoder.predict(source)), wanted, atol=1e-6)
    right = scores(encoder.predict(tmp_path / "a.wav", channel=1))
    np.testing.assert_allclose(scores(encoder.predict((speech[:, 1], rate))), right, atol=1e-6)
    assert np.abs(right - wanted).max() > 1e-4


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """c.wav is silent, b.wav no audio, a.wav two windows long."""
    soundfile.write(tmp_path / "a.wav", noise(80_000), 16_000)
    (tmp_path / "b.wav").write_text("no audio")
    soundfile.write(tmp_path / "c.wav", np.zeros(16_000), 16_000)
    return tmp_path


def test_the_table_of_predictions(encoder: Encoder, corpus: Path) -> None:
    table = encoder.predict(corpus)
    assert list(table.columns) == [
        *CLASSES, "label", "arousal", "valence", "id", "warnings", "error_kind", "error"
    ]  # fmt: skip
    assert table.index.names == ["file", "start", "end"]
    assert table.index.get_level_values("file").tolist() == [
        str(corpus / name) for name in ("a.wav", "b.wav", "c.wav")
    ]
    assert table.index.get_level_values("start").tolist() == [pd.Timedelta(0)] * 3
    ends = table.index.get_level_values("end")
    assert ends[0] == pd.Timedelta(5, "s") and ends[1] is pd.NaT
    assert table["id"].tolist() == ["a.wav", "b.wav", "c.wav"]
    assert table["warnings"].tolist() == ["", "", "silent"]
    assert table["error_kind"].tolist() == [None, "unreadable", None]
    assert "b.wav cannot be read" in table["error"].iloc[1]
    assert table["label"].tolist()[1] is None and np.isnan(scores(table)[1]).all()
    np.testing.assert_allclose(scores(table)[[0, 2]].sum(axis=1), 1)
    np.testing.assert_allclose(table["arousal"], scores(table)[:, 3:].sum(axis=1))
    valence = scores(table) @ [-1, 0, 1, -1, 0, 1]
    np.testing.assert_allclose(table["valence"], valence, atol=1e-12)
    with pytest.raises(AudioError, match=r"b\.wav"):
        encoder.predict(corpus, strict=True)


def test_windows(encoder: Encoder, corpus: Path) -> None:
    table = encoder.predict(corpus / "a.wav", windows=True)
    starts = table.index.get_level_values("start").total_seconds().tolist()
    ends = table.index.get_level_values("end").total_seconds().tolist()
    assert (starts, ends) == ([0, 1, 2], [3, 4, 5])
    rows = encoder.predict(corpus / "a.wav", windows=True, window=2.0, hop=1.5)
    assert rows.index.get_level_values("start").total_seconds().tolist() == [0, 1.5, 3]
    alone = scores(encoder.predict(table.index))  # the index goes in again, as any of audformat's
    np.testing.assert_allclose(alone, scores(table), atol=1e-5)


def test_the_index_of_any_table_goes_in_again(encoder: Encoder, corpus: Path) -> None:
    """Predictions', features' and a store's; failures fail again, in their place."""
    table = encoder.predict(corpus)
    again = encoder.predict(table)
    pd.testing.assert_frame_equal(again, table)
    features = encoder.extract(table.index, layers=2).to_dataframe()
    assert features["error"].notna().tolist() == [False, True, False]
    store = encoder.extract(corpus).write(corpus / "store")
    assert len(encoder.predict(store.to_dataframe())) == len(store) == 2


def test_nothing_to_do_gives_an_empty_table(encoder: Encoder, corpus: Path) -> None:
    nothing = encoder.predict(encoder.predict(corpus).iloc[:0])
    assert len(nothing) == 0 and "label" in nothing
    assert encoder.extract({}).to_dataframe().shape == (0, 34)


@pytest.mark.parametrize("layer", [None, -1, 2])
def test_the_table_of_features(encoder: Encoder, corpus: Path, layer: int | None) -> None:
    extraction = encoder.extract(corpus, layers=[1, 2], pools=["std", "mean"])
    table = extraction.to_dataframe(layer=layer, pool="mean")
    assert list(table.columns) == ["id", "error", *(f"feature_{n}" for n in range(32))]
    wanted = [row.pooled[1, 1] for row in extraction if hasattr(row, "pooled")]
    found = table.filter(like="feature_").to_numpy()
    np.testing.assert_allclose(found[[0, 2]], wanted, atol=1e-6)
    assert np.isnan(found[1]).all() and "b.wav" in table["error"].iloc[1]
    assert [failure.id for failure in extraction.failures] == ["b.wav"]
    with pytest.raises(UsageError, match=r"layer 0.*expected a layer out of \[1, 2\]"):
        extraction.to_dataframe(layer=0)
    with pytest.raises(UsageError, match="pool max"):
        extraction.to_dataframe(pool="max")


def test_settings_are_those_of_a_spec(encoder: Encoder, tmp_path: Path) -> None:
    settings = {"layers": (1,), "pools": ("max",), "frame_layers": (2,), "logits": False,
                "preprocess": "masked", "window": 2.0, "hop": 1.0, "segments": True,
                "dtype": "float32", "channel": 0}  # fmt: skip
    wanted = encoder.extract({"a": noise(800)}, spec=ExtractionSpec(**settings)).fingerprint
    assert encoder.extract({"a": noise(800)}, **settings).fingerprint == wanted
    assert encoder.extract({"a": noise(800)}, pools="max").spec.pools == ("max",)
    assert encoder.extract({"a": noise(800)}, layers=-1, frame_layers=None).spec == ExtractionSpec(
        layers=(2,), frame_layers=(0, 1, 2)
    )
    assert encoder.extract({"a": noise(800)}, window=2.0).spec.hop == 2.0
    with pytest.raises(UsageError, match="spec and settings beside it"):
        encoder.extract({"a": noise(800)}, spec=ExtractionSpec(), layers=1)


def test_writing_goes_on_and_lists_failures(
    encoder: Encoder, corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = encoder.extract(corpus).write(corpus / "store", progress=True)
    assert isinstance(store, FeatureStore)
    assert (sorted(store.ids), [failure.id for failure in store.failures]) == (
        ["a.wav", "c.wav"], ["b.wav"]
    )  # fmt: skip
    assert "3 of 3 clips, 1 failed" in capsys.readouterr().err
    soundfile.write(corpus / "d.wav", noise(800), 16_000)
    extraction = encoder.extract(corpus)
    outlook = extraction.outlook(corpus / "store")
    assert (outlook.clips, outlook.present, outlook.seconds) == (1, 2, 0.05)
    assert [failure.id for failure in outlook.failures] == ["b.wav"]
    extraction.write(corpus / "store", progress=True)
    assert "2 of 2 clips, 1 failed" in capsys.readouterr().err
    assert encoder.extract(corpus).outlook(corpus / "store").clips == 0
    encoder.extract(corpus).write(corpus / "store")
    assert capsys.readouterr().err == ""


def test_a_plan_is_a_source(encoder: Encoder, corpus: Path) -> None:
    work = plan(corpus)
    pd.testing.assert_frame_equal(encoder.predict(work), encoder.predict(corpus))


@pytest.fixture
def head(encoder: Encoder, tmp_path: Path) -> Path:
    torch.manual_seed(0)
    config = HeadConfig(
        kind="linear", target="valence", classes=(), layers=(1,), pools=("mean",), width=32
    )
    untrained = build_head(config)
    untrained.fingerprint = encoder.extract({"a": noise(800)}, preprocess="masked").fingerprint
    save_head(untrained, tmp_path / "head")
    return tmp_path / "head"


def test_a_head_decides_how_audio_is_prepared(encoder: Encoder, head: Path, corpus: Path) -> None:
    table = encoder.predict([corpus / "a.wav", corpus / "b.wav"], head=head)
    assert list(table.columns) == ["valence", "id", "warnings", "error_kind", "error"]
    assert np.isfinite(table["valence"]).tolist() == [True, False]
    with pytest.raises(UsageError, match="what the head was trained with"):
        encoder.predict(corpus, head=head, preprocess="card")
    assert len(encoder.predict(corpus / "a.wav", head=head, windows=True)) == 3


def test_classes_named_like_other_columns_keep_apart() -> None:
    assert class_columns(("label", "joy", "error")) == ("class_label", "joy", "class_error")


def test_the_strict_call_names_functions_that_exist(encoder: Encoder) -> None:
    """What it refuses, the front door takes; the errors say so in names that can be typed."""
    refused = [
        (noise(22_050), {"sample_rate": 22_050}),
        (np.zeros((2, 800, 2), np.float32), {}),
        (["a.wav"], {}),
    ]
    named: set[str] = set()
    for waveforms, options in refused:
        with pytest.raises(AudioError) as raised:
            encoder(waveforms, **options)
        names = re.findall(r"encoder\.(\w+)", str(raised.value))
        assert {"predict", "extract"} <= set(names)
        named.update(names)
    assert all(callable(getattr(Encoder, name)) for name in named)


def test_a_model_without_a_classifier_says_so_at_once(tmp_path: Path) -> None:
    bare = load_encoder(write_random_checkpoint(tmp_path / "bare", layers=2, classes=()))
    with pytest.raises(UsageError, match="no classifier"):
        bare.predict(noise(800))


def test_parts_that_fail_keep_their_bounds(encoder: Encoder, corpus: Path) -> None:
    (corpus / "list.csv").write_text("file,start,end\na.wav,1,2\na.wav,3,9\nb.wav,0.5,1\n")
    table = encoder.predict(corpus / "list.csv")
    assert table["error_kind"].tolist() == [None, "segment", "unreadable"]
    starts, ends = (
        table.index.get_level_values(name).total_seconds().tolist() for name in ("start", "end")
    )
    assert (starts, ends) == ([1, 3, 0.5], [2, 9, 1])
