"""The same promises on a GPU; skipped where there is none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from exhubert_features import Encoder, load_encoder
from exhubert_features.spec import Preprocess

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@pytest.fixture(scope="module")
def encoder(tiny_checkpoint: Path) -> Encoder:
    return load_encoder(tiny_checkpoint, device="cuda")


def test_parity(encoder: Encoder, golden: dict[str, np.ndarray]) -> None:
    output = encoder(golden["a_input"], preprocess="none")
    np.testing.assert_allclose(output.layers.cpu(), golden["a_hidden"], rtol=0, atol=1e-4)
    np.testing.assert_allclose(output.logits.cpu(), golden["a_logits"], rtol=0, atol=1e-4)
    masked = encoder(golden["b_input"], golden["b_lengths"], preprocess="none")
    np.testing.assert_allclose(masked.logits.cpu(), golden["b_logits"], rtol=0, atol=1e-4)
    card = encoder([golden[f"c{case}_raw"] for case in range(3)], preprocess="card")
    expected = np.concatenate([golden[f"c{case}_logits"] for case in range(3)])
    np.testing.assert_allclose(card.logits.cpu(), expected, rtol=0, atol=1e-4)


def test_parity_leaves_the_tf32_switch_as_it_was(encoder: Encoder) -> None:
    before = torch.backends.cudnn.allow_tf32
    encoder(np.ones(1_000, np.float32))
    assert torch.backends.cudnn.allow_tf32 is before


@pytest.mark.parametrize("preprocess", ["card", "masked"])
def test_batch_invariance(encoder: Encoder, preprocess: Preprocess) -> None:
    generator = np.random.default_rng(0)
    clips = [
        generator.normal(0, 0.1, length).astype(np.float32)
        for length in (400, 5_000, 16_000, 47_999, 30_000)
    ]
    together = encoder(clips, preprocess=preprocess)
    for row, clip in enumerate(clips):
        alone = encoder(clip, preprocess=preprocess)
        frames = int(alone.frame_lengths[0])
        scale = float(alone.layers.abs().max())
        difference = (together.layers[:, row, :frames] - alone.layers[:, 0, :frames]).abs().max()
        assert float(difference) / scale <= 1e-5


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_half_precisions_are_close(tiny_checkpoint: Path, encoder: Encoder, precision: str) -> None:
    clip = np.random.default_rng(1).normal(0, 0.1, 48_000).astype(np.float32)
    rough = load_encoder(tiny_checkpoint, device="cuda", precision=precision)(clip)
    exact = encoder(clip)
    similarity = torch.cosine_similarity(
        rough.layers.float().flatten(1), exact.layers.flatten(1), dim=1
    )
    assert float(similarity.min()) > 0.99


def test_training_step_under_autocast(tiny_checkpoint: Path) -> None:
    from exhubert_features.checkpoint import load_model

    model = load_model(tiny_checkpoint)[0].cuda().train().requires_grad_(True)
    model.freeze_og_encoder()
    model.freeze_feature_encoder()
    optimizer = torch.optim.AdamW(p for p in model.parameters() if p.requires_grad)
    waveforms, labels = torch.randn(4, 16_000, device="cuda"), torch.tensor([0, 1, 2, 3]).cuda()
    losses = []
    for _ in range(20):
        with torch.autocast("cuda", dtype=torch.bfloat16):
            loss = model(waveforms, labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss))
    assert losses[-1] < losses[0]


def test_the_front_door_agrees_with_the_cpu(tiny_checkpoint: Path, encoder: Encoder) -> None:
    clips = {str(n): np.random.default_rng(n).normal(0, 0.1, 16_000 * n) for n in (1, 3, 7)}
    exact = load_encoder(tiny_checkpoint, device="cpu").predict(clips)
    columns = list(encoder.classes)
    np.testing.assert_allclose(encoder.predict(clips)[columns], exact[columns], atol=1e-4)


def test_auto_takes_bfloat16_where_a_gpu_has_units_for_it() -> None:
    from exhubert_features.precision import resolve_precision, speedup

    device = torch.device("cuda")
    fast = speedup("bfloat16", device) > 2
    assert resolve_precision("auto", device) == ("bfloat16" if fast else "float32")
