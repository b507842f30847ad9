"""wav2vec 2.0, WavLM and HuBERT as transformers writes them: the same numbers, and one chain."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from checkpoint_files import rewrite, set_config
from family_checkpoints import FAMILIES, LAYERS, SHAPES, written
from waves import noise

from exhubert_features import Encoder, load_encoder
from exhubert_features.checkpoint import load_model
from exhubert_features.checkpoint.convert import convert
from exhubert_features.checkpoint.expand import expand
from exhubert_features.cli import main
from exhubert_features.errors import CheckpointError, FingerprintMismatch, UsageError
from exhubert_features.fingerprint import Fingerprint
from exhubert_features.model.config import ExHuBERTConfig
from exhubert_features.model.kernels import multiplies_int8
from exhubert_features.model.relative import distance_buckets
from exhubert_features.spec import ExtractionSpec

PARITY = 1e-5
EVERY = list(product(FAMILIES, SHAPES))


@pytest.mark.parametrize(("family", "shape"), EVERY)
@torch.no_grad()
def test_hidden_states_are_transformers_own(family: str, shape: str, tmp_path: Path) -> None:
    original = written(tmp_path, family, shape)
    encoder = load_encoder(tmp_path, device="cpu")
    wave = noise(30_000)
    theirs = original(torch.from_numpy(wave)[None], output_hidden_states=True)
    ours = encoder(wave, preprocess="none")
    assert ours.layer_ids == tuple(range(LAYERS + 1)) and len(theirs.hidden_states) == LAYERS + 1
    # Ours ends with the layer norm, whatever transformers' release makes of its last entry.
    expected = [*theirs.hidden_states[:-1], theirs.last_hidden_state]
    torch.testing.assert_close(ours.layers, torch.stack(expected), rtol=0, atol=PARITY)
    assert encoder.identity.architecture == family and encoder.classes == ()


@pytest.mark.skipif(not multiplies_int8(), reason="this machine has no products of 8 bits")
@pytest.mark.parametrize(("family", "shape"), EVERY)
def test_in_int8_the_states_are_nearly_those_of_float32(
    family: str, shape: str, tmp_path: Path
) -> None:
    written(tmp_path, family, shape)
    wave = noise(30_000)
    exact, rough = (
        load_encoder(tmp_path, device="cpu", precision=precision)(wave, preprocess="none").layers
        for precision in ("float32", "int8")
    )
    cosines = torch.cosine_similarity(exact.mean(2), rough.mean(2), dim=-1)
    assert not torch.equal(exact, rough)
    assert cosines.min() > 0.999


@pytest.mark.parametrize(("family", "shape"), EVERY)
def test_a_clip_in_a_batch_is_the_clip_alone(family: str, shape: str, tmp_path: Path) -> None:
    written(tmp_path, family, shape)
    encoder = load_encoder(tmp_path, device="cpu")
    waves = [noise(samples, samples) for samples in (30_000, 400, 7_000)]
    together = encoder(waves, preprocess="masked", together=True)
    for row, wave in enumerate(waves):
        alone = encoder(wave, preprocess="masked").layers[:, 0]
        found = together.layers[:, row, : alone.shape[1]]
        torch.testing.assert_close(found, alone, rtol=0, atol=PARITY)


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_a_masked_batch_is_transformers_own(family: str, tmp_path: Path) -> None:
    """Where transformers masks: norms over channels. Those over time it takes over padding."""
    from transformers import Wav2Vec2FeatureExtractor

    original = written(tmp_path, family)
    waves = [3 * noise(9_000, 1) + 0.2, noise(24_000)]
    extractor = Wav2Vec2FeatureExtractor.from_pretrained(tmp_path, return_attention_mask=True)
    batch = extractor(waves, padding=True, sampling_rate=16_000, return_tensors="pt")
    theirs = original(**batch).last_hidden_state
    ours = load_encoder(tmp_path, device="cpu")(waves, preprocess="masked", together=True)
    for row, frames in enumerate(ours.frame_lengths.tolist()):
        found, expected = ours.layers[-1, row, :frames], theirs[row, :frames]
        torch.testing.assert_close(found, expected, rtol=0, atol=PARITY)


def test_far_frames_share_buckets_as_in_transformers() -> None:
    from transformers.models.wavlm.modeling_wavlm import WavLMAttention

    for buckets, farthest in ((320, 800), (32, 128)):
        theirs = WavLMAttention(8, 2, num_buckets=buckets, max_distance=farthest)
        distance = torch.arange(1_500)[None] - torch.arange(1_500)[:, None]
        expected = theirs._relative_positions_bucket(distance)
        assert torch.equal(distance_buckets(1_500, buckets, farthest), expected)


@pytest.mark.parametrize(("family", "shape"), [("wavlm", "base"), ("wav2vec2", "large")])
@torch.no_grad()
def test_a_classifier_is_taken_along(family: str, shape: str, tmp_path: Path) -> None:
    names = {0: "calm", 1: "cross", 2: "glad"}
    original = written(tmp_path, family, shape, kind="ForSequenceClassification", id2label=names)
    encoder = load_encoder(tmp_path, device="cpu")
    assert encoder.classes == tuple(names.values())
    wave = noise(20_000)
    theirs = original(torch.from_numpy(wave)[None]).logits
    torch.testing.assert_close(encoder(wave, preprocess="none").logits, theirs, rtol=0, atol=PARITY)


@pytest.mark.parametrize("kind", ["ForCTC", "ForPreTraining", "ForAudioFrameClassification",
                                  "ForXVector"])  # fmt: skip
def test_other_heads_are_left_out(kind: str, tmp_path: Path) -> None:
    original = written(tmp_path, "wav2vec2", kind=kind, codevector_dim=16, proj_codevector_dim=16,
                       add_adapter=kind == "ForCTC")  # fmt: skip
    if kind in ("ForAudioFrameClassification", "ForXVector"):
        with pytest.warns(UserWarning, match="head of another kind"):
            model, _ = load_model(tmp_path)
    else:
        model, _ = load_model(tmp_path)
    assert model.config.classes == ()
    own = original.wav2vec2.encoder.layer_norm.weight
    assert torch.equal(model.hubert.encoder.layer_norm.weight, own)


def test_pickled_weights_run_nothing(tmp_path: Path) -> None:
    state = written(tmp_path, "wav2vec2").state_dict()
    (tmp_path / "model.safetensors").unlink()
    torch.save(state, tmp_path / "pytorch_model.bin")
    (tmp_path / "modeling.py").write_text("raise SystemExit('this was run')")
    set_config(tmp_path, auto_map={"AutoModel": "modeling.Model"})
    assert load_encoder(tmp_path, device="cpu").num_states == LAYERS + 1
    rewrite(tmp_path, lambda content: content.update(evil=print))
    with pytest.raises(CheckpointError, match="nothing of it was run"):
        load_encoder(tmp_path)


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "a language's adapter": (
        lambda folder: set_config(folder, adapter_attn_dim=16),
        "config has adapter_attn_dim: 16",
    ),
    "another family": (
        lambda folder: set_config(folder, model_type="data2vec-audio"),
        "describes a data2vec-audio; expected hubert or wav2vec2 or wavlm",
    ),
    "WavLM's attention": (
        lambda folder: set_config(folder, model_type="wavlm"),
        r"keys missing \(first hubert\.encoder\.layers\.0\.attention\.gru_rel_pos_const",
    ),
    "telephone speech": (
        lambda folder: (folder / "preprocessor_config.json").write_text('{"sampling_rate": 8000}'),
        "sampling_rate: 8000",
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_is_not_supported_is_refused_by_name(damage: str, tmp_path: Path) -> None:
    written(tmp_path, "wav2vec2")
    change, words = DAMAGES[damage]
    change(tmp_path)
    with pytest.raises(CheckpointError, match=words):
        load_encoder(tmp_path)


@pytest.mark.parametrize("family", ["wav2vec2", "wavlm"])
@pytest.mark.parametrize(("shape", "law"), [("base", "none"), ("large", "masked")])
def test_the_card_is_the_models_own(family: str, shape: str, law: Any, tmp_path: Path) -> None:
    """transformers' own feature extractor and model, called on one clip, are the measure."""
    from transformers import Wav2Vec2FeatureExtractor

    original = written(tmp_path, family, shape)
    encoder = load_encoder(tmp_path, device="cpu")
    wave = 2 * noise(9_000) + 0.3
    extractor = Wav2Vec2FeatureExtractor.from_pretrained(tmp_path)
    heard = extractor(wave, sampling_rate=16_000, return_tensors="pt")
    with torch.no_grad():
        expected = original(**heard).last_hidden_state[0]
    torch.testing.assert_close(encoder(wave).layers[-1, 0], expected, rtol=0, atol=PARITY)
    extraction = encoder.extract({"clip": wave})
    assert extraction.fingerprint.spec.preprocess == law
    (row,) = extraction
    np.testing.assert_allclose(row.pooled[-1, 0], expected.mean(0), rtol=0, atol=PARITY)


def test_without_a_preprocessor_somebody_must_say(tmp_path: Path) -> None:
    written(tmp_path, "wavlm")
    (tmp_path / "preprocessor_config.json").unlink()
    encoder = load_encoder(tmp_path, device="cpu")
    with pytest.raises(CheckpointError, match=r"preprocessor_config\.json.*--preprocess mask"):
        encoder.extract({"clip": noise(8_000)})
    extraction = encoder.extract({"clip": noise(8_000)}, preprocess="masked")
    assert extraction.fingerprint.spec.preprocess == "masked"


def test_huberts_numbers_and_hashes_stay() -> None:
    """Stores made before there were other families must still fit."""
    assert ExHuBERTConfig().sha256.startswith("1a8d9b4b2f2bf073")
    assert ExHuBERTConfig().card == "card" and ExHuBERTConfig(gated=False).card == "card"
    others = {replace(ExHuBERTConfig(gated=False), family=name).sha256 for name in FAMILIES}
    assert len(others) == len(FAMILIES)


def test_each_has_a_fingerprint_of_its_own(tmp_path: Path) -> None:
    found = {}
    for family in FAMILIES:
        written(tmp_path / family, family)
        model = load_encoder(tmp_path / family, device="cpu").identity
        found[family] = Fingerprint(model=model, spec=ExtractionSpec(preprocess="masked"))
    assert len({one.key for one in found.values()}) == len(FAMILIES)
    words = found["wavlm"].difference(found["wav2vec2"])
    assert "model.architecture is 'wavlm', not 'wav2vec2'" in words


def test_writing_is_for_huberts(tmp_path: Path) -> None:
    written(tmp_path / "wavlm", "wavlm")
    with pytest.raises(UsageError, match=r"this is a wavlm; expected an ExHuBERT or HuBERT"):
        convert(tmp_path / "wavlm", tmp_path / "new")
    with pytest.raises(CheckpointError, match="cannot be block-extended: it is a wavlm"):
        expand(tmp_path / "wavlm", tmp_path / "new")
    assert not (tmp_path / "new").exists()


@pytest.mark.slow
def test_the_lobe_takes_them_too(tmp_path: Path) -> None:
    from exhubert_features.speechbrain import ExHuBERT

    written(tmp_path, "wavlm")
    wave = noise(9_000)
    expected = load_encoder(tmp_path, device="cpu")(wave).layers[-1]
    found = ExHuBERT(str(tmp_path), None, freeze=True)(torch.from_numpy(wave)[None])
    torch.testing.assert_close(found, expected, rtol=0, atol=PARITY)


@pytest.fixture(scope="module")
def wavlm_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from exhubert_features.synthetic import write_corpus

    folder = tmp_path_factory.mktemp("wavlm")
    written(folder / "model", "wavlm")
    manifest = write_corpus(folder / "audio", speakers=4, sentences=2)
    command = ["extract", str(manifest), "-o", str(folder / "store")]
    assert main([*command, "--model", str(folder / "model"), "--device", "cpu"]) == 0
    return folder


@pytest.mark.slow
def test_the_whole_chain(wavlm_store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, store = wavlm_store, str(wavlm_store / "store")
    assert main(["inspect", store]) == 0
    shown = capsys.readouterr().out
    assert "layers    0-3 of 4" in shown and "logits    no" in shown and "masked" in shown
    target = ["--target", "emotion"]
    assert main(["probe", store, *target, "-o", str(folder / "probe")]) == 0
    assert main(["train", store, *target, "-o", str(folder / "head")]) == 0
    compared = ["compare", str(folder / "probe"), str(folder / "head"), "-o", str(folder / "both")]
    assert main(compared) == 0
    assert main(["evaluate", str(folder / "head"), store, "-o", str(folder / "on")]) == 0
    report = json.loads((folder / "head/report.json").read_text())
    assert not any("EmoSet" in words for words in report["warnings"])
    capsys.readouterr()

    clip = str(folder / "audio/speaker01/anger_01.wav")
    model = ["--model", str(folder / "model"), "--device", "cpu"]
    assert main(["predict", clip, *model, "--head", str(folder / "head"), "--format", "json"]) == 0
    assert "anger" in capsys.readouterr().out
    assert main(["predict", clip, *model]) == 2
    assert "the model has no classifier" in capsys.readouterr().err


def test_a_head_of_one_encoder_is_not_used_on_another(tmp_path: Path) -> None:
    from exhubert_features.heads import check_fingerprint

    encoders: list[Encoder] = []
    for family in ("wavlm", "wav2vec2"):
        written(tmp_path / family, family)
        encoders.append(load_encoder(tmp_path / family, device="cpu"))
    trained, found = (Fingerprint(model=one.identity, spec=ExtractionSpec()) for one in encoders)
    with pytest.raises(FingerprintMismatch, match="architecture is 'wav2vec2', not 'wavlm'"):
        check_fingerprint(trained, found)
