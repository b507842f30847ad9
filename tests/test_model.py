"""The model against the golden outputs, against transformers' HuBERT, and in training."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.parallel import DistributedDataParallel

from exhubert_features.checkpoint import load_model
from exhubert_features.checkpoint.blank import blank_model
from exhubert_features.errors import CheckpointError, UsageError
from exhubert_features.model import ExHuBERTNetwork, frame_lengths, span_mask
from exhubert_features.model.config import ExHuBERTConfig, frame_count

PARITY = 1e-4
SMALL = {
    "hidden_size": 32,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "conv_dim": (16,) * 7,
    "classifier_proj_size": 8,
}


def small_model(layers: int = 4, **changes: object) -> ExHuBERTNetwork:
    torch.manual_seed(0)
    config = ExHuBERTConfig(
        **{**SMALL, "num_hidden_layers": layers, "classes": ("a", "b", "c"), **changes}
    )
    return ExHuBERTNetwork(config).eval()


@pytest.fixture(scope="module")
def model(tiny_checkpoint: Path) -> ExHuBERTNetwork:
    return load_model(tiny_checkpoint)[0].eval()


def close(found: torch.Tensor, expected: np.ndarray) -> None:
    np.testing.assert_allclose(found.detach().numpy(), expected, rtol=0, atol=PARITY)


@torch.no_grad()
def test_parity_unmasked(model: ExHuBERTNetwork, golden: dict[str, np.ndarray]) -> None:
    output = model(torch.tensor(golden["a_input"]))
    assert output.layer_ids == tuple(range(49))
    close(torch.stack(output.hidden_states), golden["a_hidden"])
    close(output.logits, golden["a_logits"])


@torch.no_grad()
def test_parity_masked(model: ExHuBERTNetwork, golden: dict[str, np.ndarray]) -> None:
    output = model(torch.tensor(golden["b_input"]), torch.tensor(golden["b_lengths"]))
    frames = output.frame_lengths.tolist()
    assert frames == golden["b_frames"].tolist()
    close(output.logits, golden["b_logits"])
    for index, hidden in enumerate(output.hidden_states):
        for row, count in enumerate(frames):
            close(hidden[row, :count].mean(0), golden["b_hidden_mean"][index, row])
    for row, count in enumerate(frames):
        close(output.hidden_states[-1][row, :count], golden["b_hidden_last"][row, :count])


@torch.no_grad()
@pytest.mark.parametrize("case", ["c0", "c1", "c2"])
@pytest.mark.parametrize("cut", ["", "_cut"])
def test_parity_card_inputs(
    model: ExHuBERTNetwork, golden: dict[str, np.ndarray], case: str, cut: str
) -> None:
    output = model(torch.tensor(golden[f"{case}_card_input{cut}"]).unsqueeze(0))
    close(output.logits, golden[f"{case}_logits{cut}"])
    if not cut:
        means = torch.stack([hidden[0].mean(0) for hidden in output.hidden_states])
        close(means, golden[f"{case}_hidden_mean"])


def released() -> dict:
    path = Path(__file__).parent / "data" / "golden" / "released.json"
    return json.loads(path.read_text())


def released_model() -> ExHuBERTNetwork:
    config = ExHuBERTConfig.from_dict(released()["config"], gated=True, classes=list("abcdef"))
    return blank_model(config)


def test_released_keys_and_shapes() -> None:
    model = released_model()
    shapes = {name: list(value.shape) for name, value in model.state_dict().items()}
    assert shapes == dict(released()["shapes"])
    assert sum(value.numel() for value in model.parameters()) == released()["parameters"]


def test_freezing_is_exactly_the_release() -> None:
    model = released_model()
    model.freeze_og_encoder()
    model.freeze_feature_encoder()
    frozen = {name for name, value in model.named_parameters() if not value.requires_grad}
    assert frozen == set(released()["frozen_by_og_and_feature_encoder"])


def test_freeze_base_model_leaves_the_head() -> None:
    model = small_model()
    model.freeze_base_model()
    training = {name for name, value in model.named_parameters() if value.requires_grad}
    assert training == {
        "projector.weight",
        "projector.bias",
        "classifier.weight",
        "classifier.bias",
    }


def test_freeze_og_encoder_refuses_plain_hubert() -> None:
    with pytest.raises(UsageError, match="exhubert expand"):
        small_model(gated=False).freeze_og_encoder()


def test_odd_number_of_layers_is_refused() -> None:
    with pytest.raises(CheckpointError, match="even num_hidden_layers"):
        small_model(layers=3)


@torch.no_grad()
def test_layer_selection_equals_all_layers(
    model: ExHuBERTNetwork, golden: dict[str, np.ndarray]
) -> None:
    waveforms = torch.tensor(golden["a_input"])
    everything = model(waveforms).hidden_states
    for layers, ids in [
        (None, range(49)),
        (2, (2,)),
        (-1, (48,)),
        ([0, 7, -1], (0, 7, 48)),
        ([12], (12,)),
    ]:
        output = model(waveforms, layers=layers)
        assert output.layer_ids == tuple(ids)
        for index, hidden in zip(output.layer_ids, output.hidden_states, strict=True):
            assert torch.equal(hidden, everything[index])


@torch.no_grad()
@pytest.mark.parametrize(
    ("layers", "logits", "runs"),
    [([5], False, 5), ([5], True, 48), (-1, False, 48), ([0], False, 0), (5, False, 5)],
)
def test_deeper_layers_do_not_run(
    model: ExHuBERTNetwork, golden: dict[str, np.ndarray], layers: object, logits: bool, runs: int
) -> None:
    ran: list[int] = []
    hooks = [
        layer.register_forward_hook(lambda *_, index=index: ran.append(index))
        for index, layer in enumerate(model.hubert.encoder.layers)
    ]
    try:
        output = model(torch.tensor(golden["a_input"]), layers=layers, logits=logits)
    finally:
        for hook in hooks:
            hook.remove()
    assert ran == list(range(runs))
    assert (output.logits is None) is (not logits)


@pytest.mark.parametrize(
    "layers", [[49], [-50], [], [1, 1], 49, -50, True, [True], "all", [1.5], 1.5]
)
def test_impossible_layers(model: ExHuBERTNetwork, layers: object) -> None:
    with pytest.raises(UsageError, match="layers is"):
        model(torch.zeros(1, 400), layers=layers)


@torch.no_grad()
def test_states_are_handed_over_with_their_layer(
    model: ExHuBERTNetwork, golden: dict[str, np.ndarray]
) -> None:
    """Whatever the order in which they are asked for, they come from the bottom up."""
    waveforms = torch.tensor(golden["a_input"])
    seen: list[tuple[int, torch.Tensor]] = []
    output = model(waveforms, layers=[48, 3], on_state=lambda *state: seen.append(state))
    whole = model(waveforms, layers=[3, 48])
    assert [layer for layer, _ in seen] == [3, 48]
    for (_, handed), kept in zip(seen, whole.hidden_states, strict=True):
        assert torch.equal(handed, kept)
    assert output.hidden_states == ()
    assert torch.equal(output.logits, whole.logits)


@torch.no_grad()
def test_identity_gates_are_recognised_and_skipped_exactly() -> None:
    model = small_model()
    waveforms = torch.randn(2, 4000)
    expected = model(waveforms).logits
    assert model.detect_identity_gates() == 2
    ran = []
    model.hubert.encoder.layers[0].gate_bb_linear.register_forward_hook(lambda *_: ran.append(1))
    assert torch.equal(model(waveforms).logits, expected)
    assert not ran
    model.hubert.encoder.layers[0].gate_bb_linear.weight[0, 1] = 1e-9
    assert model.detect_identity_gates() == 1


def test_identity_gates_are_computed_again_once_they_may_change() -> None:
    model = small_model()
    model.detect_identity_gates()
    model.train()
    assert not model.hubert.encoder.layers[0].identity_gate
    model.detect_identity_gates()
    model.load_state_dict(model.state_dict())
    assert not model.hubert.encoder.layers[0].identity_gate


def transformers_hubert(**changes: object):
    from transformers import HubertConfig, HubertModel

    torch.manual_seed(1)
    settings = {
        **SMALL,
        "num_hidden_layers": 3,
        "num_conv_pos_embeddings": 128,
        "num_conv_pos_embedding_groups": 16,
        "hidden_dropout": 0.0,
        **changes,
    }
    return HubertModel(HubertConfig(**settings)).eval()


@torch.no_grad()
@pytest.mark.parametrize("stable", [True, False])
def test_plain_hubert_equals_transformers(stable: bool, tmp_path: Path) -> None:
    reference = transformers_hubert(
        do_stable_layer_norm=stable,
        feat_extract_norm="layer" if stable else "group",
        conv_bias=stable,
    )
    reference.save_pretrained(tmp_path)
    ours = load_model(tmp_path)[0]
    waveforms = torch.randn(2, 8000)
    expected = reference(waveforms, output_hidden_states=True)
    output = ours(waveforms)
    assert output.logits is None
    for index in range(3):
        close(output.hidden_states[index], expected.hidden_states[index].numpy())
    # The last entry of transformers' hidden_states changed its meaning; this one did not.
    close(output.hidden_states[3], expected.last_hidden_state.numpy())


@torch.no_grad()
def test_base_model_does_not_see_padding() -> None:
    model = small_model(
        gated=False, do_stable_layer_norm=False, feat_extract_norm="group", conv_bias=False
    )
    clips = [torch.randn(length) for length in (6000, 1000, 3333)]
    batch = torch.nn.utils.rnn.pad_sequence(clips, batch_first=True)
    together = model(batch, torch.tensor([6000, 1000, 3333]))
    for row, clip in enumerate(clips):
        alone = model(clip.unsqueeze(0))
        count = alone.frame_lengths[0]
        torch.testing.assert_close(
            together.hidden_states[-1][row, :count], alone.hidden_states[-1][0], atol=1e-5, rtol=0
        )


def test_frame_counts_agree() -> None:
    config = ExHuBERTConfig()
    samples = [0, 1, 399, 400, 719, 720, 16_000, 48_000, 60_000]
    counts = [frame_count(value, config) for value in samples]
    assert counts == [0, 0, 0, 1, 1, 2, 49, 149, 187]
    assert frame_lengths(torch.tensor(samples), config).tolist() == counts


def train_once(model: ExHuBERTNetwork, **options: object) -> torch.Tensor:
    model.train()
    output = model(torch.randn(2, 8000), labels=torch.tensor([0, 2]), **options)
    output.loss.backward()
    return output.loss.detach()


@pytest.mark.parametrize("augment", [True, False])
@pytest.mark.parametrize("recompute", [True, False])
def test_every_parameter_gets_a_gradient(augment: bool, recompute: bool) -> None:
    model = small_model(apply_spec_augment=augment)
    model.enable_gradient_checkpointing(recompute)
    assert torch.isfinite(train_once(model))
    assert [name for name, value in model.named_parameters() if value.grad is None] == []


def test_gradient_checkpointing_changes_nothing() -> None:
    still = {"apply_spec_augment": False, "hidden_dropout": 0.0, "attention_dropout": 0.0}
    still |= {"activation_dropout": 0.0, "feat_proj_dropout": 0.0}
    gradients = []
    for recompute in (False, True):
        model = small_model(**still)
        model.enable_gradient_checkpointing(recompute)
        torch.manual_seed(5)
        train_once(model)
        gradients.append(torch.cat([value.grad.flatten() for value in model.parameters()]))
    torch.testing.assert_close(*gradients)


NOISES = (
    "hidden_dropout",
    "attention_dropout",
    "activation_dropout",
    "feat_proj_dropout",
    "mask_time_prob",
    "mask_feature_prob",
)


@torch.no_grad()
@pytest.mark.parametrize("noise", [None, *NOISES])
def test_dropout_and_masking_act_in_training_only(noise: str | None) -> None:
    model = small_model(**{name: 0.5 if name == noise else 0.0 for name in NOISES})
    waveforms = torch.randn(1, 16_000)
    assert torch.equal(model(waveforms).logits, model(waveforms).logits)
    model.train()
    assert torch.equal(model(waveforms).logits, model(waveforms).logits) is (noise is None)


def test_loss_options_are_those_of_cross_entropy() -> None:
    model = small_model()
    weights = torch.tensor([1.0, 2.0, 5.0])
    labels = torch.tensor([0, 2])
    output = model(torch.randn(2, 8000), labels=labels, class_weights=weights, label_smoothing=0.2)
    expected = torch.nn.functional.cross_entropy(
        output.logits, labels, weights, label_smoothing=0.2
    )
    torch.testing.assert_close(output.loss, expected)


def test_spans_stay_inside_each_clip() -> None:
    torch.manual_seed(0)
    rows = torch.tensor([100, 40, 9, 10])
    seen = torch.zeros(4, 100, dtype=torch.bool)
    for _ in range(300):
        mask = span_mask(rows, 100, probability=0.05, length=10, minimum=2)
        assert 11 <= mask[0].sum() <= 20  # two spans, not one on the other
        assert 11 <= mask[1].sum() <= 20
        assert mask[3].sum() == 10
        starts = mask & ~torch.nn.functional.pad(mask, (1, 0))[:, :-1]
        assert (mask.sum(1) >= 10 * starts.sum(1)).all()  # no span is cut short
        seen |= mask
    assert seen.sum(1).tolist() == [100, 40, 0, 10]  # 9 frames are shorter than a span


def test_share_of_masked_frames_is_as_configured() -> None:
    torch.manual_seed(0)
    rows = torch.full((2000,), 50)
    mask = span_mask(rows, 50, probability=0.3, length=10, minimum=0)
    # 1 or 2 spans, with equal chance, of 10 frames out of 50, hardly less by their overlaps.
    assert 0.24 < float(mask.float().mean()) < 0.3
    none = span_mask(rows, 50, probability=0.1, length=10, minimum=0).sum(1)
    assert sorted(set(none.tolist())) == [0, 10]


def test_bfloat16_autocast_trains() -> None:
    model = small_model()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = train_once(model)
    assert torch.isfinite(loss)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*script_method:DeprecationWarning")
def test_compiles_whole_and_agrees() -> None:
    """In one graph each, masking included; what a backend makes of it is torch's own affair."""
    model = small_model(layers=2)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    waveforms, lengths = torch.randn(2, 8000), torch.tensor([8000, 4000])
    with torch.no_grad():
        torch.testing.assert_close(
            compiled(waveforms, lengths).logits, model(waveforms, lengths).logits
        )
    model.train()
    compiled(waveforms, lengths, labels=torch.tensor([0, 2])).loss.backward()
    assert [name for name, value in model.named_parameters() if value.grad is None] == []


@pytest.fixture(scope="module")
def process_group(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A group of one: what waits for gradients is the same as with many."""
    meeting = tmp_path_factory.mktemp("group") / "meet"
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{meeting}", rank=0, world_size=1
    )
    yield
    torch.distributed.destroy_process_group()


FREEZES = {
    "nothing": lambda model: None,
    "the authors' parts": lambda model: (model.freeze_og_encoder(), model.freeze_feature_encoder()),
    "all but the head": lambda model: model.freeze_base_model(),
    "and recompute": lambda model: (
        model.freeze_og_encoder(),
        model.enable_gradient_checkpointing(),
    ),
}


def distributed_steps(model: ExHuBERTNetwork, **options: object) -> None:
    wrapped = DistributedDataParallel(model.train())
    for _ in range(2):  # unused parameters show themselves in the second step
        wrapped(torch.randn(2, 4000), **options).loss.backward()


@pytest.mark.parametrize("freeze", FREEZES)
@pytest.mark.parametrize("augment", [True, False])
def test_distributed_training_finds_no_unused_parameter(
    freeze: str, augment: bool, process_group: None
) -> None:
    model = small_model(apply_spec_augment=augment)
    FREEZES[freeze](model)
    distributed_steps(model, labels=torch.tensor([0, 1]))


def test_distributed_training_would_find_one(process_group: None) -> None:
    """A control: the test above can fail."""
    model = small_model()
    model.unused = torch.nn.Linear(2, 2)
    with pytest.raises(RuntimeError, match="parameters that were not used"):
        distributed_steps(model, labels=torch.tensor([0, 1]))
