"""Heads as modules, their files, and the features they refuse."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from exhubert_features.errors import CheckpointError, FingerprintMismatch, UsageError
from exhubert_features.fingerprint import Fingerprint, ModelIdentity
from exhubert_features.heads import (
    Head,
    HeadConfig,
    build_head,
    load_head,
    save_head,
)
from exhubert_features.records import ClipFeatures
from exhubert_features.spec import ExtractionSpec
from exhubert_features.stamps import stamped

SPEC = ExtractionSpec(layers=(2, 5, 9), pools=("mean", "std"), frame_layers=(5, 9))
IDENTITY = ModelIdentity(
    weights_sha256="f" * 64,
    architecture="exhubert",
    num_states=13,
    hidden_size=6,
    classes=(),
    precision="float32",
)
FINGERPRINT = Fingerprint(model=IDENTITY, spec=SPEC)
POOLED = HeadConfig(
    kind="linear", target="emotion", classes=("a", "b", "c"), layers=(9, 2), pools=("std",), width=6
)
FRAMES = replace(POOLED, kind="attention", layers=(9,), pools=())
CONFIGS = [
    POOLED,
    replace(POOLED, kind="mlp", hidden=5),
    replace(POOLED, kind="weighted", pools=("mean", "std")),
    FRAMES,
    replace(FRAMES, layers=(5, 9), classes=()),
    replace(POOLED, classes=()),
]


def trained(config: HeadConfig, seed: int = 0) -> Head:
    """A head with random weights, statistics and temperature."""
    torch.manual_seed(seed)
    head = build_head(config)
    head.set_standardisation(torch.randn_like(head.mean), torch.rand_like(head.mean) + 0.5)
    head.temperature.fill_(1.7)
    head.fingerprint = FINGERPRINT
    return head.eval()


def row(name: str = "x", frames: int = 7, seed: int = 0) -> ClipFeatures:
    random = np.random.default_rng(seed)
    return ClipFeatures(
        id=name, clip_id=name, file="", start=0, end=1, samples=16_000, audio_sha256="",
        pooled=random.normal(size=(3, 2, 6)).astype(np.float16),
        frames=random.normal(size=(2, frames, 6)).astype(np.float16),
    )  # fmt: skip


def batch_for(config: HeadConfig, clips: int = 4) -> tuple[torch.Tensor, torch.Tensor | None]:
    torch.manual_seed(1)
    if config.pools:
        return torch.randn(clips, len(config.layers), len(config.pools), 6), None
    return torch.randn(clips, len(config.layers), 8, 6), torch.tensor([8, 3, 5, 1][:clips])


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: f"{config.kind}{config.outputs}")
def test_every_head_trains_and_survives_the_disk(config: HeadConfig, tmp_path: Path) -> None:
    head = trained(config)
    features, lengths = batch_for(config)
    output = head(features, lengths)
    assert output.shape == (4, config.outputs)
    output.sum().backward()
    assert all(parameter.grad is not None for parameter in head.parameters())
    save_head(head, tmp_path, notes={"clips": 3})
    loaded = load_head(tmp_path)
    assert loaded.config == config
    assert loaded.fingerprint == FINGERPRINT and loaded.notes == {"clips": 3}
    torch.testing.assert_close(loaded(features, lengths), output.detach(), rtol=0, atol=0)
    torch.testing.assert_close(
        loaded.probabilities(features, lengths), head.probabilities(features, lengths).detach()
    )


def test_linear_head_is_standardise_then_matrix_product() -> None:
    head = trained(POOLED)
    features, _ = batch_for(POOLED)
    standard = ((features - head.mean) / head.deviation).reshape(4, -1)
    expected = standard @ head.linear.weight.T + head.linear.bias
    torch.testing.assert_close(head(features), expected)
    torch.testing.assert_close(head.probabilities(features), (expected / 1.7).softmax(-1))


def test_a_constant_feature_is_not_blown_up() -> None:
    head = build_head(POOLED)
    head.set_standardisation(torch.full_like(head.mean, 3.0), torch.zeros_like(head.mean))
    assert torch.equal(head.deviation, torch.ones_like(head.deviation))


def test_regression_answers_in_the_targets_unit() -> None:
    head = trained(replace(POOLED, classes=()))
    features, _ = batch_for(POOLED)
    before = head(features)
    head.target_mean.fill_(50.0)
    head.target_scale.fill_(10.0)
    torch.testing.assert_close(head(features), before * 10 + 50)
    torch.testing.assert_close(head.probabilities(features), head(features))


def test_weighted_head_can_pick_one_layer() -> None:
    head = trained(replace(POOLED, kind="weighted"))
    with torch.no_grad():
        head.layer_logits.copy_(torch.tensor([0.0, 100.0]))
    features, _ = batch_for(POOLED)
    changed = features.clone()
    changed[:, 0] += 5.0
    torch.testing.assert_close(head(changed), head(features))
    changed[:, 1] += 5.0
    assert not torch.allclose(head(changed), head(features))


def test_padding_never_reaches_attention() -> None:
    head = trained(FRAMES)
    features, lengths = batch_for(FRAMES)
    alone = torch.cat([head(features[i : i + 1, :, : lengths[i]]) for i in range(4)])
    spoilt = features.clone()
    for clip, length in enumerate(lengths):
        spoilt[clip, :, length:] = torch.nan
    torch.testing.assert_close(head(spoilt, lengths), alone)
    torch.testing.assert_close(head(spoilt, lengths / 8), alone)  # as SpeechBrain says lengths


@pytest.mark.parametrize("shape", [(4, 12), (4, 1, 1, 6), (4, 2, 1, 7), (4, 2, 2, 6)])
def test_features_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(UsageError, match=r"expected \(batch, 2, 1, 6\)"):
        trained(POOLED)(torch.zeros(shape))


def test_kind_and_features_must_fit() -> None:
    with pytest.raises(UsageError, match="attention on pooled features"):
        build_head(replace(POOLED, kind="attention"))
    with pytest.raises(UsageError, match="linear on frames"):
        build_head(replace(POOLED, pools=()))


def test_prediction_picks_the_heads_own_layers_and_pools() -> None:
    head = trained(POOLED)
    clip = row()
    found = head.predict_features([clip], fingerprint=FINGERPRINT)
    picked = torch.from_numpy(clip.pooled[[2, 0]][:, [1]].astype(np.float32))[None]
    np.testing.assert_allclose(found.scores, head.probabilities(picked).detach(), rtol=1e-5)
    assert found.ids == ("x",)
    assert found.labels == (POOLED.classes[int(found.scores.argmax())],)


def test_prediction_in_any_batch_is_the_same() -> None:
    head = trained(FRAMES)
    rows = [row(str(index), frames=3 + index % 5, seed=index) for index in range(70)]
    together = head.predict_features(iter(rows), fingerprint=FINGERPRINT).scores
    alone = [head.predict_features([one], fingerprint=FINGERPRINT).scores[0] for one in rows]
    np.testing.assert_allclose(together, alone, atol=1e-6)
    assert head.predict_features([], fingerprint=FINGERPRINT).scores.shape == (0, 3)


def changed(**values: Any) -> Fingerprint:
    """FINGERPRINT with ``part__key=value`` replaced."""
    data = FINGERPRINT.to_dict()
    for path, value in values.items():
        *parts, key = path.split("__")
        place = data
        for part in parts:
            place = place[part]
        place[key] = value
    return Fingerprint.from_dict(data)


@pytest.mark.parametrize(
    ("found", "named"),
    [
        (changed(model__weights_sha256="0"), "model.weights_sha256 is '0', not 'fff"),
        (changed(spec__preprocess="masked"), "spec.preprocess is 'masked', not 'card'"),
        (changed(model__precision="bfloat16"), "model.precision"),
        (changed(numerics=2), "numerics is 2, not 1"),
        (changed(spec__layers=[5, 9]), "lack layers 2"),
        (changed(spec__pools=["mean"]), "lack pools std"),
        (changed(model__architecture="hubert"), "model.architecture is 'hubert', not 'exhubert'"),
    ],
)
def test_other_features_are_refused_and_the_difference_named(
    found: Fingerprint, named: str
) -> None:
    with pytest.raises(FingerprintMismatch) as caught:
        trained(POOLED).predict_features([row()], fingerprint=found)
    assert named in str(caught.value)


def test_the_same_numbers_from_elsewhere_are_accepted() -> None:
    found = changed(model__classes=["z"], spec__layers=[2, 9, 5], spec__logits=False)
    assert trained(POOLED).predict_features([row()], fingerprint=found).ids == ("x",)


def test_rows_without_frames_are_refused() -> None:
    with pytest.raises(UsageError, match="x has no frames"):
        trained(FRAMES).predict_features([replace(row(), frames=None)], fingerprint=FINGERPRINT)


def test_the_head_knows_how_to_extract_for_it() -> None:
    assert trained(POOLED).fingerprint.spec == SPEC


def test_an_untrained_head_is_not_saved(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no fingerprint"):
        save_head(build_head(POOLED), tmp_path)


def test_saving_again_replaces_the_old_head(tmp_path: Path) -> None:
    save_head(trained(POOLED, seed=0), tmp_path)
    save_head(trained(POOLED, seed=1), tmp_path)
    assert len(list(tmp_path.iterdir())) == 2
    features, _ = batch_for(POOLED)
    torch.testing.assert_close(load_head(tmp_path)(features), trained(POOLED, seed=1)(features))


def test_an_interrupted_save_leaves_the_old_head(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from exhubert_features.heads import files

    save_head(trained(POOLED, seed=0), tmp_path)

    def dies_before_the_card(path: Path, data: object, *, replace: bool) -> bool:
        raise KeyboardInterrupt

    monkeypatch.setattr(files, "write_json", dies_before_the_card)
    with pytest.raises(KeyboardInterrupt):
        save_head(trained(POOLED, seed=1), tmp_path)
    features, _ = batch_for(POOLED)
    torch.testing.assert_close(load_head(tmp_path)(features), trained(POOLED, seed=0)(features))


def spoil_json(**values: Any) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        card = json.loads((folder / "head.json").read_text())
        for path, value in values.items():
            *parts, key = path.split("__")
            place = card
            for part in parts:
                place = place[part]
            place[key] = value
        del card["sha256"]  # whoever changes a head on purpose can count its hash again
        (folder / "head.json").write_text(json.dumps(stamped(card)))

    return spoil


def flip_a_byte(folder: Path) -> None:
    (file,) = folder.glob("*.safetensors")
    content = bytearray(file.read_bytes())
    content[-3] ^= 1
    file.write_bytes(content)


def remove_weights(folder: Path) -> None:
    next(folder.glob("*.safetensors")).unlink()


def with_text(text: str) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        (folder / "head.json").write_text(text)

    return spoil


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (flip_a_byte, "its hash differs"),
        (remove_weights, "cannot be read"),
        (with_text("{"), "cannot be read as a head"),
        (with_text("[" * 100_000), "cannot be read as a head"),
        (with_text("[]"), "is no head"),
        (with_text('{"format": "other"}'), "is no head"),
        (spoil_json(version=3), "has version 3"),
        (spoil_json(weights="../../etc/passwd"), "names the weights"),
        (spoil_json(fingerprint=None), "no usable 'fingerprint'"),
        (spoil_json(config__kind="os.system"), "describes no known head"),
        (spoil_json(config__extra=1), "describes no known head"),
        (spoil_json(config__width=10**12), "do not fit"),
        (spoil_json(config__width="6"), "wrong kind"),
        (spoil_json(config__layers=[]), "wrong kind"),
        (spoil_json(config__layers=["2"]), "wrong kind"),
        (spoil_json(config__classes=["a"]), "do not fit"),
        (spoil_json(config__kind="mlp"), "do not fit"),
    ],
)
def test_damaged_and_hostile_heads_are_refused(
    tmp_path: Path, spoil: Callable[[Path], None], message: str
) -> None:
    save_head(trained(POOLED), tmp_path)
    spoil(tmp_path)
    with pytest.raises(CheckpointError, match=message):
        load_head(tmp_path)


def test_weights_that_are_not_numbers_are_refused(tmp_path: Path) -> None:
    head = trained(POOLED)
    with torch.no_grad():
        head.linear.weight[0, 0] = torch.nan
    save_head(head, tmp_path)
    with pytest.raises(CheckpointError, match=r"NaN, infinite .* linear.weight"):
        load_head(tmp_path)
    with pytest.raises(CheckpointError, match="cannot be read as a head"):
        load_head(tmp_path / "absent")


def test_speechbrain_brain_trains_a_head() -> None:
    speechbrain = pytest.importorskip("speechbrain")

    class HeadBrain(speechbrain.Brain):
        def compute_forward(self, batch: Any, stage: Any) -> torch.Tensor:
            features, lengths, _ = batch
            return self.modules.head(features, lengths)

        def compute_objectives(self, predictions: Any, batch: Any, stage: Any) -> torch.Tensor:
            return torch.nn.functional.cross_entropy(predictions, batch[2])

    head = build_head(FRAMES)
    before = head.linear.weight.detach().clone()
    features, lengths = batch_for(FRAMES)
    assert lengths is not None
    brain = HeadBrain({"head": head}, lambda parameters: torch.optim.SGD(parameters, lr=0.1))
    batches = [(features, lengths / 8, torch.tensor([0, 1, 2, 0]))]
    loader = torch.utils.data.DataLoader(batches, batch_size=None)
    brain.fit(range(2), loader, progressbar=False)
    assert not torch.equal(head.linear.weight, before)
