"""The encoder: golden preprocessing, batch invariance, and clips that cannot be used."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from waves import noise

from exhubert_features import CLASSES, Encoder, load_encoder
from exhubert_features.checkpoint import load_model
from exhubert_features.errors import AudioError, UsageError
from exhubert_features.spec import AROUSAL, VALENCE, Preprocess


@pytest.fixture(scope="module")
def encoder(tiny_checkpoint: Path) -> Encoder:
    return load_encoder(tiny_checkpoint, device="cpu")


@pytest.mark.parametrize("case", ["c0", "c1", "c2"])
def test_card_preprocessing_is_the_cards(
    encoder: Encoder, golden: dict[str, np.ndarray], case: str
) -> None:
    raw = golden[f"{case}_raw"]
    whole = encoder(raw, preprocess="card")
    np.testing.assert_allclose(whole.logits, golden[f"{case}_logits"], rtol=0, atol=1e-4)
    np.testing.assert_allclose(
        whole.layers[:, 0].mean(1), golden[f"{case}_hidden_mean"], rtol=0, atol=1e-4
    )
    cut = encoder(raw, preprocess="card", truncate=True)
    np.testing.assert_allclose(cut.logits, golden[f"{case}_logits_cut"], rtol=0, atol=1e-4)
    assert whole.frame_lengths.tolist() == [encoder.frame_count(len(raw))]
    assert cut.frame_lengths.tolist() == [encoder.frame_count(min(len(raw), 48_000))]


def test_card_mode_in_a_mixed_batch(encoder: Encoder, golden: dict[str, np.ndarray]) -> None:
    together = encoder([golden[f"c{case}_raw"] for case in range(3)], preprocess="card")
    expected = np.concatenate([golden[f"c{case}_logits"] for case in range(3)])
    np.testing.assert_allclose(together.logits, expected, rtol=0, atol=1e-4)


def test_none_leaves_normalisation_to_the_caller(
    encoder: Encoder, golden: dict[str, np.ndarray]
) -> None:
    output = encoder(golden["b_input"], golden["b_lengths"], preprocess="none")
    np.testing.assert_allclose(output.logits, golden["b_logits"], rtol=0, atol=1e-4)


def test_masked_normalisation_is_huberts_own(encoder: Encoder) -> None:
    from transformers import Wav2Vec2FeatureExtractor

    clips = [3 * noise(400) + 0.2, noise(2_000, 1)]  # short: n and n - 1 must not be mixed up
    extractor = Wav2Vec2FeatureExtractor(return_attention_mask=True)
    batch = extractor(clips, padding=True, sampling_rate=16_000, return_tensors="pt")
    theirs = encoder(batch["input_values"], batch["attention_mask"].sum(1), preprocess="none")
    ours = encoder(clips, preprocess="masked")
    for row, frames in enumerate(ours.frame_lengths.tolist()):
        found, expected = (output.layers[:, row, :frames] for output in (ours, theirs))
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)


def test_output_is_named_and_shaped(encoder: Encoder) -> None:
    output = encoder([noise(16_000), noise(4_000)], layers=[0, 24, -1])
    assert output.layers.shape == (3, 2, 149, 32)  # the card pads to 3 s
    assert encoder(noise(16_000), layers=24, preprocess="masked").layers.shape == (1, 1, 49, 32)
    assert output.layer_ids == (0, 24, 48)
    assert output.frame_lengths.tolist() == [49, 12]
    assert output.classes == CLASSES
    torch.testing.assert_close(output.probabilities.sum(1), torch.ones(2))
    assert [f"{AROUSAL[label]}-{VALENCE[label]}" for label in CLASSES] == list(CLASSES)


FEW = settings(max_examples=settings.default.max_examples // 3)  # each is many passes
LENGTHS = st.lists(st.integers(400, 12_000), min_size=2, max_size=5)


PREPROCESS = st.sampled_from(["card", "masked", "none"])


@FEW
@given(LENGTHS, st.integers(0, 2**16), PREPROCESS)
def test_batch_invariance(
    encoder: Encoder, lengths: list[int], seed: int, preprocess: Preprocess
) -> None:
    clips = [noise(length, seed + index) for index, length in enumerate(lengths)]
    together = encoder(clips, preprocess=preprocess)
    for row, clip in enumerate(clips):
        alone = encoder(clip, preprocess=preprocess)
        frames = int(alone.frame_lengths[0])
        assert int(together.frame_lengths[row]) == frames
        assert torch.equal(together.layers[:, row, :frames], alone.layers[:, 0, :frames])
        assert torch.equal(together.logits[row], alone.logits[0])


@FEW
@given(LENGTHS, st.integers(0, 2**16), PREPROCESS)
def test_batch_invariance_of_a_padded_batch(
    encoder: Encoder, lengths: list[int], seed: int, preprocess: Preprocess
) -> None:
    """What a GPU does, and extraction. States reach 40, logits 6."""
    clips = [noise(length, seed + index) for index, length in enumerate(lengths)]
    together = encoder(clips, preprocess=preprocess, together=True)
    for row, clip in enumerate(clips):
        alone = encoder(clip, preprocess=preprocess)
        frames = int(alone.frame_lengths[0])
        for found, expected in [
            (together.layers[:, row, :frames], alone.layers[:, 0, :frames]),
            (together.logits[row], alone.logits[0]),
        ]:
            largest = max(1.0, float(expected.abs().max()))
            assert float((found - expected).abs().max()) / largest <= 1e-5


def test_together_runs_once_and_apart_runs_for_each(encoder: Encoder) -> None:
    """On a CPU in float32 clips run one by one, unless told otherwise."""
    batches: list[int] = []
    hook = encoder.model.hubert.register_forward_pre_hook(
        lambda _, inputs: batches.append(len(inputs[0]))
    )
    try:
        for together in (None, False, True):
            encoder([noise(800), noise(900)], layers=0, logits=False, together=together)
    finally:
        hook.remove()
    assert batches == [1, 1, 1, 1, 2]


def test_visiting_gives_what_a_call_gives(encoder: Encoder) -> None:
    clips = [noise(8_000), noise(5_000, 1)]
    seen: dict[int, torch.Tensor] = {}
    logits = encoder.visit(clips, seen.__setitem__, layers=[7, 0], preprocess="masked")
    whole = encoder(clips, layers=[0, 7], preprocess="masked", together=True)
    assert list(seen) == [0, 7]
    assert torch.equal(torch.stack([seen[0], seen[7]]), whole.layers)
    assert torch.equal(logits, whole.logits)


def test_every_door_gives_the_same(encoder: Encoder) -> None:
    clips = [noise(8_000), noise(5_000, 1)]
    padded = np.zeros((2, 8_000), np.float32)
    for row, clip in enumerate(clips):
        padded[row, : len(clip)] = clip
    expected = encoder(clips)
    for waveforms, lengths in [
        (padded, [8_000, 5_000]),
        (torch.tensor(padded), torch.tensor([8_000, 5_000])),
        ([torch.tensor(clip, dtype=torch.float64) for clip in clips], None),
    ]:
        found = encoder(waveforms, lengths)
        assert torch.equal(found.layers, expected.layers)
        assert torch.equal(found.logits, expected.logits)


def odd_arrays() -> dict[str, object]:
    """The same 5,000 samples in memory that torch would not take, or takes with a warning."""
    clip = noise(5_000)
    read_only = clip.copy()
    read_only.flags.writeable = False
    return {
        "reversed": np.ascontiguousarray(clip[::-1])[::-1],
        "strided": np.repeat(clip, 2)[::2],
        "byte-swapped": clip.astype(">f4"),
        "read-only": read_only,
        "long double": clip.astype(np.longdouble),
        "in a graph": torch.tensor(clip, requires_grad=True),
        "list of numbers": [clip.tolist()],
    }


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("kind", odd_arrays())
def test_any_memory_will_do(encoder: Encoder, kind: str) -> None:
    found = encoder(odd_arrays()[kind])
    assert torch.equal(found.logits, encoder(noise(5_000)).logits)
    assert not found.layers.requires_grad


@pytest.mark.parametrize("clip", [None, "clip.wav", {"id": 1}, np.array([None, None])])
def test_what_is_no_audio_is_named(encoder: Encoder, clip: object) -> None:
    with pytest.raises(AudioError, match=f"clip 1 is a {type(clip).__name__} without samples"):
        encoder([noise(1_000), clip])


def test_one_number_is_no_clip(encoder: Encoder) -> None:
    for number in (np.float32(3), np.array(3.0), torch.tensor(3.0)):
        with pytest.raises(AudioError, match=r"clip 0 has shape \(\)"):
            encoder(number)


def test_copies_and_pickles_give_the_same(encoder: Encoder) -> None:
    expected = encoder(noise(5_000)).logits
    for twin in (copy.deepcopy(encoder), pickle.loads(pickle.dumps(encoder))):
        assert torch.equal(twin(noise(5_000)).logits, expected)
        assert twin.identity == encoder.identity


def test_autocast_around_it_changes_nothing(encoder: Encoder) -> None:
    """The precision goes into fingerprints, so nothing else may decide it."""
    expected = encoder(noise(5_000))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = encoder(noise(5_000))
    assert torch.equal(found.layers, expected.layers)
    assert torch.equal(found.logits, expected.logits)


def test_the_callers_audio_is_not_touched(encoder: Encoder) -> None:
    waveforms = torch.tensor(noise(4_000)).unsqueeze(0).repeat(2, 1)
    before = waveforms.clone()
    encoder(waveforms, [4_000, 1_000])
    assert torch.equal(waveforms, before)


@pytest.mark.parametrize("preprocess", ["card", "masked", "none"])
@pytest.mark.parametrize(
    ("clip", "message"),
    [
        (np.zeros(0, np.float32), "clip 1 has 0 samples"),
        (noise(399), "clip 1 has 399 samples; expected at least 400"),
        (np.append(noise(500), np.float32("nan")), "clip 1 has nan at sample 500"),
        (np.append(noise(500), np.float32("inf")), "clip 1 has inf"),
        (np.zeros(800, np.int16), "clip 1 is torch.int16.*32768"),
        (noise(800).reshape(2, 400), r"clip 1 has shape \(2, 400\)"),
    ],
)
def test_clips_that_cannot_be_used(
    encoder: Encoder, preprocess: str, clip: np.ndarray, message: str
) -> None:
    with pytest.raises(AudioError, match=message):
        encoder([noise(1_000), clip], preprocess=preprocess)


def test_wrong_use_is_named(encoder: Encoder) -> None:
    with pytest.raises(AudioError, match="22050 Hz; expected 16000 Hz"):
        encoder(noise(1_000), sample_rate=22_050)
    with pytest.raises(AudioError, match="no waveform"):
        encoder([])
    with pytest.raises(AudioError, match="clip 0 has length 2000"):
        encoder(noise(1_000).reshape(1, -1), [2_000])
    with pytest.raises(UsageError, match="Relative lengths"):
        encoder(noise(1_000).reshape(1, -1), torch.tensor([1.0]))
    with pytest.raises(UsageError, match="preprocess is 'cards'"):
        encoder(noise(1_000), preprocess="cards")
    with pytest.raises(UsageError, match="truncate=True"):
        encoder(noise(1_000), preprocess="masked", truncate=True)
    with pytest.raises(UsageError, match="no probabilities"):
        _ = encoder(noise(1_000), logits=False).probabilities
    with pytest.raises(UsageError, match="precision is 'int4'"):
        Encoder(encoder.model, precision="int4")
    with pytest.raises(UsageError, match="device is 'gpu'"):
        Encoder(encoder.model, device="gpu")


def test_silence_has_finite_features(encoder: Encoder) -> None:
    assert torch.isfinite(encoder(np.zeros(16_000, np.float32)).layers).all()


@pytest.mark.filterwarnings("ignore:this machine has no units")
def test_bfloat16_is_close(tiny_checkpoint: Path, encoder: Encoder) -> None:
    rough = load_encoder(tiny_checkpoint, device="cpu", precision="bfloat16")(noise(16_000))
    exact = encoder(noise(16_000))
    assert rough.layers.dtype == torch.float32  # on a CPU only products are in bfloat16
    assert rough.logits.dtype == torch.float32
    similarity = torch.cosine_similarity(
        rough.layers.float().flatten(1), exact.layers.flatten(1), dim=1
    )
    assert float(similarity.min()) > 0.99


def test_identity_names_the_weights(tiny_checkpoint: Path, encoder: Encoder) -> None:
    import hashlib

    expected = hashlib.sha256((tiny_checkpoint / "pytorch_model.bin").read_bytes()).hexdigest()
    assert encoder.identity.weights_sha256 == expected
    assert encoder.provenance["source"] == str(tiny_checkpoint)


def test_identity_of_a_model_in_memory_follows_its_weights(small_checkpoint: Path) -> None:
    model, same = (load_model(small_checkpoint)[0] for _ in range(2))
    first = Encoder(model, device="cpu").identity.weights_sha256
    assert Encoder(same, device="cpu").identity.weights_sha256 == first
    with torch.no_grad():
        model.classifier.bias[0] += 1
    assert Encoder(model, device="cpu").identity.weights_sha256 != first
