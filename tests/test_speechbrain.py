"""The SpeechBrain lobe: a drop-in that is right under training and mixed precision."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from speechbrain.nnet.containers import LengthsCapableSequential
from torch import Tensor, nn

from exhubert_features import load_encoder
from exhubert_features.checkpoint import save_checkpoint, write_random_checkpoint
from exhubert_features.errors import AudioError, UsageError
from exhubert_features.speechbrain import EmotionClassifier, ExHuBERT, LayerWeights, LobeOutput

DATA = Path(__file__).parent / "data"


@pytest.fixture
def source(tiny_checkpoint: Path) -> str:
    return str(tiny_checkpoint)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Four layers, for tests that train."""
    return str(write_random_checkpoint(tmp_path_factory.mktemp("small") / "model", layers=4))


def noise(*shape: int, seed: int = 0) -> Tensor:
    return 0.1 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def ragged(*samples: int) -> tuple[Tensor, Tensor]:
    """A zero-padded batch and its relative lengths."""
    clips = [noise(count, seed=index) for index, count in enumerate(samples)]
    wav = nn.utils.rnn.pad_sequence(clips, batch_first=True)
    return wav, torch.tensor(samples) / wav.shape[1]


def test_signature_is_the_hubert_lobes() -> None:
    try:
        from speechbrain.integrations.huggingface.hubert import HuBERT
    except ImportError:  # as SpeechBrain 1.0 has it, which transformers 5 has broken
        theirs = pytest.importorskip(
            "speechbrain.lobes.models.huggingface_transformers.hubert", exc_type=ImportError
        )
        HuBERT = theirs.HuBERT

    def positional(lobe: type) -> list[tuple[str, Any]]:
        parameters = inspect.signature(lobe).parameters.values()
        return [(p.name, p.default) for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]

    assert positional(ExHuBERT) == positional(HuBERT)


# -- what it computes --------------------------------------------------------------------------


@pytest.mark.parametrize("case", ["c0", "c1", "c2"])
def test_card_mode_is_the_cards(source: str, golden: dict[str, np.ndarray], case: str) -> None:
    lobe = ExHuBERT(source, None, freeze=True, output_logits=True, preprocess="card")
    raw = torch.from_numpy(golden[f"{case}_raw"])[None]
    embeddings, logits, lengths = lobe(raw)
    np.testing.assert_allclose(logits, golden[f"{case}_logits"], rtol=0, atol=1e-4)
    # The card's padding is not handed on: lengths refer to the clip's own frames.
    assert embeddings.shape[1] == (raw.shape[1] - 400) // 320 + 1
    assert lengths.tolist() == [1.0]


def test_normalised_ragged_batch_matches_the_reference(
    source: str, golden: dict[str, np.ndarray]
) -> None:
    lobe = ExHuBERT(
        source, None, freeze=True, output_all_hiddens=True, output_logits=True, preprocess="none"
    )
    wav = torch.from_numpy(golden["b_input"])
    output = lobe(wav, torch.from_numpy(golden["b_lengths"]) / wav.shape[1])
    assert isinstance(output, LobeOutput)
    assert output.embeddings.shape == (49, 3, 49, 32)
    np.testing.assert_allclose(output.logits, golden["b_logits"], rtol=0, atol=1e-4)
    frames = (output.lengths * 49).round()
    assert frames.tolist() == golden["b_frames"].tolist()
    mean = output.embeddings.sum(2) / frames.view(1, -1, 1)  # padded frames are zero
    np.testing.assert_allclose(mean, golden["b_hidden_mean"], rtol=0, atol=1e-4)


@pytest.mark.parametrize("output_norm", [False, True])
def test_a_clip_is_the_same_alone_and_beside_longer_ones(source: str, output_norm: bool) -> None:
    lobe = ExHuBERT(source, None, freeze=True, output_norm=output_norm)
    wav, lengths = ragged(16_000, 48_000, 33_333)
    together = lobe(wav, lengths)
    for row, samples in enumerate((16_000, 48_000, 33_333)):
        alone = lobe(wav[row : row + 1, :samples])[0]
        torch.testing.assert_close(together[row, : len(alone)], alone, rtol=0, atol=1e-5)
        assert not together[row, len(alone) :].any()
    if output_norm:
        torch.testing.assert_close(together[0, :49].mean(), torch.tensor(0.0), rtol=0, atol=1e-5)
        torch.testing.assert_close(
            together[0, :49].var(correction=0), torch.tensor(1.0), rtol=0, atol=1e-3
        )


def test_same_embeddings_as_the_encoder(source: str) -> None:
    wav, lengths = ragged(16_000, 9_000)
    expected = load_encoder(source, device="cpu")(wav, torch.tensor([16_000, 9_000])).layers
    states = ExHuBERT(source, None, freeze=True, output_all_hiddens=True)(wav, lengths)
    # The lobe computes one padded batch, the encoder on a CPU each clip alone; states reach 40.
    largest = float(expected.abs().max())
    torch.testing.assert_close(states[:, 1, :27], expected[:, 1, :27], rtol=0, atol=1e-5 * largest)


def test_relative_lengths_refer_to_the_batch_as_given(source: str) -> None:
    """Also where no clip fills the batch, as on one rank of several."""
    lobe = ExHuBERT(source, None, freeze=True, output_logits=True)
    embeddings, _, lengths = lobe(noise(1, 16_000), torch.tensor([0.5]))
    assert embeddings.shape == (1, 49, 32)
    assert (lengths * 49).round().tolist() == [24]


def test_length_rounded_up_is_the_whole_clip(source: str) -> None:
    lobe = ExHuBERT(source, None, freeze=True)
    wav = noise(1, 16_000)
    assert torch.equal(lobe(wav, torch.tensor([1.000001])), lobe(wav))


@pytest.mark.parametrize(
    ("options", "shape"),
    [
        ({}, (2, 49, 32)),
        ({"output_all_hiddens": True}, (49, 2, 49, 32)),
        ({"layers": [24]}, (2, 49, 32)),
        ({"layers": 24}, (2, 49, 32)),
        ({"layers": [0, 3, 24]}, (3, 2, 49, 32)),
        ({"layers": [0, -1]}, (2, 2, 49, 32)),
        ({"layers": [5], "output_all_hiddens": True}, (1, 2, 49, 32)),
    ],
)
def test_layers(source: str, options: dict[str, Any], shape: tuple[int, ...]) -> None:
    assert ExHuBERT(source, None, freeze=True, **options)(noise(2, 16_000)).shape == shape


# -- training ----------------------------------------------------------------------------------


def test_frozen_means_eval_for_ever(source: str) -> None:
    lobe = ExHuBERT(source, None, freeze=True, apply_spec_augment=True)
    wav = noise(2, 16_000)
    before = lobe(wav)
    assert not before.requires_grad
    nn.ModuleDict({"lobe": lobe}).train()
    assert not any(module.training for module in lobe.model.modules())
    torch.testing.assert_close(lobe(wav), before, rtol=0, atol=0)
    free = ExHuBERT(source, None)
    assert not torch.equal(free(wav), free(wav)), "dropout should be on where nothing is frozen"


def test_frozen_parts_are_the_authors_and_stay_in_eval_mode(source: str) -> None:
    released = json.loads((DATA / "golden" / "released.json").read_text())
    lobe = ExHuBERT(
        source,
        None,
        freeze_feature_extractor=True,
        freeze_original=True,
        apply_spec_augment=True,
        output_logits=True,
    ).train()
    frozen = {name for name, weight in lobe.model.named_parameters() if not weight.requires_grad}
    assert frozen == set(released["frozen_by_og_and_feature_encoder"])
    modes = [layer.attention.training for layer in lobe.model.hubert.encoder.layers]
    assert modes == [False, True] * 24


def test_recipes_freeze_the_convolutions_by_their_own_call(source: str) -> None:
    lobe = ExHuBERT(source, None)
    lobe.model.feature_extractor._freeze_parameters()
    lobe.train()
    assert not any(weight.requires_grad for weight in lobe.model.feature_extractor.parameters())
    assert not lobe.model.feature_extractor.training
    assert lobe.model.hubert.encoder.training
    assert lobe.normalize_wav and lobe.feature_extractor.do_normalize
    assert lobe.feature_extractor.sampling_rate == 16_000


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"layers": [1]},
        {"output_all_hiddens": True, "apply_spec_augment": True},
        {"output_logits": True, "freeze_original": True, "freeze_feature_extractor": True},
        {"output_logits": True, "classes": ["calm", "tense"], "layers": [2]},
    ],
)
def test_every_trainable_weight_gets_a_gradient(small: str, options: dict[str, Any]) -> None:
    """Or distributed training stops at the first unused parameter."""
    lobe = ExHuBERT(small, None, **options)
    output = lobe(*ragged(16_000, 9_000))
    target = output.logits if isinstance(output, LobeOutput) else output
    target.square().sum().backward()
    for name, weight in lobe.named_parameters():
        assert (weight.grad is not None) == weight.requires_grad, name


def test_spec_augment_only_on_request(small: str) -> None:
    wav = noise(1, 48_000)
    changed = []
    for apply in (False, True):
        lobe = ExHuBERT(small, None, apply_spec_augment=apply).eval()
        # Unused, it must not decay with the rest.
        assert lobe.model.hubert.masked_spec_embed.requires_grad is apply
        before = lobe(wav)
        lobe.model.hubert.training = True  # the masking alone, without any dropout
        changed.append(not torch.equal(lobe(wav), before))
    assert changed == [False, True]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_mixed_precision(small: str, dtype: torch.dtype) -> None:
    lobe = ExHuBERT(small, None, output_logits=True).eval()
    wav, lengths = ragged(16_000, 9_000)
    exact = lobe(wav, lengths)
    with torch.autocast("cpu", dtype=dtype):
        mixed = lobe(wav, lengths)
        loss = mixed.logits.float().square().sum()
    torch.testing.assert_close(mixed.embeddings.float(), exact.embeddings, rtol=0, atol=0.1)
    loss.backward()
    gradients = [weight.grad for weight in lobe.parameters() if weight.grad is not None]
    assert gradients and all(torch.isfinite(gradient).all() for gradient in gradients)
    half = ExHuBERT(small, None, freeze=True).to(dtype)
    assert half(wav, lengths).dtype == dtype


def test_new_classifier(small: str) -> None:
    lobe = ExHuBERT(small, None, output_logits=True, classes=["calm", "tense"])
    assert lobe(noise(3, 16_000)).logits.shape == (3, 2)
    assert lobe.model.config.classes == ("calm", "tense")
    with pytest.raises(UsageError, match="freeze=True"):
        ExHuBERT(small, None, freeze=True, classes=["calm", "tense"])
    with pytest.raises(UsageError, match="classes is 'calm'; expected a list"):
        ExHuBERT(small, None, classes="calm")


def test_unknown_preprocessing_is_refused_at_once() -> None:
    with pytest.raises(UsageError, match="preprocess is 'cards'"):
        ExHuBERT("no/model", None, preprocess="cards")


def test_classifier_counts_own_frames_only(small: str) -> None:
    lobe = ExHuBERT(small, None, freeze=True, output_logits=True)
    classifier = EmotionClassifier(modules={"exhubert": lobe}, hparams={})
    wav, lengths = ragged(16_000, 9_000)
    probabilities, score, index, names = classifier.classify_batch(wav, lengths)
    for row, samples in enumerate((16_000, 9_000)):
        alone = lobe(wav[row : row + 1, :samples])
        mean = classifier.encode_batch(wav, lengths)[row]
        torch.testing.assert_close(mean, alone.embeddings[0].mean(0), rtol=0, atol=1e-5)
        expected = alone.logits[0].softmax(dim=-1)
        torch.testing.assert_close(probabilities[row], expected, rtol=0, atol=1e-5)
        assert score[row] == probabilities[row].max()
        assert names[row] == lobe.model.config.classes[int(index[row])]


def test_classifier_needs_logits(small: str) -> None:
    lobe = ExHuBERT(small, None, freeze=True)
    classifier = EmotionClassifier(modules={"exhubert": lobe}, hparams={})
    for method in (classifier.encode_batch, classifier.classify_batch):
        with pytest.raises(UsageError, match="output_logits: True"):
            method(noise(3, 16_000))


def test_fine_tuned_model_becomes_a_checkpoint(small: str, tmp_path: Path) -> None:
    lobe = ExHuBERT(small, None, output_logits=True, classes=["calm", "tense"]).eval()
    save_checkpoint(lobe.model, tmp_path / "tuned")
    tuned = ExHuBERT(str(tmp_path / "tuned"), None, freeze=True, output_logits=True)
    assert tuned.model.config.classes == ("calm", "tense")
    wav = noise(2, 16_000)
    torch.testing.assert_close(tuned(wav).logits, lobe(wav).logits, rtol=0, atol=1e-6)


# -- hosts -------------------------------------------------------------------------------------


def test_lengths_reach_it_under_either_name(source: str) -> None:
    lobe = ExHuBERT(source, None, freeze=True, output_logits=True)
    wav, lengths = ragged(16_000, 9_000)
    expected = lobe(wav, lengths).embeddings
    torch.testing.assert_close(lobe(wav, lengths=lengths).embeddings, expected, rtol=0, atol=0)
    chain = LengthsCapableSequential(lobe, nn.Identity())
    torch.testing.assert_close(chain(wav, lengths), expected, rtol=0, atol=0)
    assert not torch.allclose(lobe(wav).embeddings, expected)
    with pytest.raises(UsageError, match="both"):
        lobe(wav, lengths, lengths)


@pytest.mark.parametrize(
    ("wav", "lengths", "error", "words"),
    [
        (torch.zeros(16_000), None, UsageError, r"\(batch, samples\)"),
        (torch.zeros(2, 16_000), [1.0], UsageError, "wav_lens"),
        (torch.zeros(2, 16_000), [1.0, 0.0], UsageError, "wav_lens"),
        (torch.zeros(2, 16_000), [1.0, 1.2], UsageError, "wav_lens"),
        (torch.zeros(2, 16_000), [1.0, torch.nan], UsageError, "wav_lens"),
        (torch.zeros(2, 16_000), [1.0, torch.inf], UsageError, "wav_lens"),
        (torch.zeros(2, 16_000), [1.0, 0.02], AudioError, "clip 1 has 320 samples"),
        (torch.full((1, 16_000), torch.nan), None, AudioError, "clip 0 has nan"),
        (torch.zeros(1, 16_000, dtype=torch.int16), None, AudioError, "int16"),
    ],
)
def test_unusable_batches(
    source: str, wav: Tensor, lengths: list[float] | None, error: type[Exception], words: str
) -> None:
    lobe = ExHuBERT(source, None, freeze=True)
    with pytest.raises(error, match=words):
        lobe(wav, None if lengths is None else torch.tensor(lengths))


def test_layer_weights() -> None:
    states = noise(5, 2, 7, 3)
    weigh = LayerWeights(5)
    torch.testing.assert_close(weigh(states), states.mean(0))
    weigh.weights.data[2] = 100.0
    torch.testing.assert_close(weigh(states), states[2])
    normed = LayerWeights(5, layernorm=True)(1000 * states)
    torch.testing.assert_close(normed.mean(-1), torch.zeros(2, 7), rtol=0, atol=1e-5)
    weigh(states).sum().backward()
    assert weigh.weights.grad is not None
    with pytest.raises(UsageError, match="4 layers for 5 weights"):
        weigh(states[:4])


@pytest.mark.parametrize("kind", ["ImportError", "OSError", "RuntimeError"])
def test_broken_speechbrain_is_named(tmp_path: Path, kind: str) -> None:
    """Or a torchaudio behind it, which for another CUDA raises RuntimeError."""
    blocked = tmp_path / "speechbrain.py"
    blocked.write_text(f"raise {kind}('not here')")
    program = """
import exhubert_features
from exhubert_features.errors import MissingDependency
try:
    import exhubert_features.speechbrain
except MissingDependency as error:
    assert isinstance(error, ImportError)
    print(error)
"""
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n{program}"
    run = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[1],
    )
    assert "SpeechBrain cannot be imported (not here)" in run.stdout
    assert "pip install" in run.stdout
