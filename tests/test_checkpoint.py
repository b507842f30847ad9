"""Checkpoints of every layout load alike; damaged, foreign and hostile ones are refused."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from checkpoint_files import (
    State,
    as_legacy,
    as_parametrizations,
    as_safetensors,
    as_shards,
    rewrite,
    set_config,
    stored,
)

from exhubert_features.checkpoint import (
    find_checkpoint,
    load_model,
    read_config,
    read_state,
    weights_sha256,
    write_random_checkpoint,
)
from exhubert_features.errors import CheckpointError, UsageError
from exhubert_features.spec import CLASSES

TRACE = "exhubert-was-here"


LAYOUTS = {
    "safetensors": as_safetensors,
    "sharded safetensors": as_shards("safetensors"),
    "sharded bin": as_shards("bin"),
    "legacy pickle": as_legacy,
    "parametrizations": as_parametrizations,
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_same_weights(
    layout: str, small_checkpoint: Path, checkpoint_copy: Path
) -> None:
    state = stored(checkpoint_copy)
    (checkpoint_copy / "pytorch_model.bin").unlink()
    LAYOUTS[layout](checkpoint_copy, state)
    model, checkpoint = load_model(checkpoint_copy)
    assert {file.parent for file in checkpoint.weight_files} == {checkpoint_copy}
    loaded = model.state_dict()
    assert list(loaded) == list(load_model(small_checkpoint)[0].state_dict())
    for key, tensor in state.items():
        torch.testing.assert_close(loaded[key], tensor, rtol=0, atol=0)


def test_bare_encoder_without_prefix_has_no_head(checkpoint_copy: Path) -> None:
    state = stored(checkpoint_copy)
    bare = {
        key.removeprefix("hubert."): tensor
        for key, tensor in state.items()
        if key.startswith("hubert.")
    }
    torch.save(bare, checkpoint_copy / "pytorch_model.bin")
    model, _ = load_model(checkpoint_copy)
    assert model.config.gated and model.config.classes == ()
    torch.testing.assert_close(
        model.hubert.encoder.layer_norm.weight.data, state["hubert.encoder.layer_norm.weight"]
    )


def test_safetensors_are_preferred(checkpoint_copy: Path) -> None:
    as_safetensors(checkpoint_copy, stored(checkpoint_copy))
    assert find_checkpoint(checkpoint_copy).weight_files == (checkpoint_copy / "model.safetensors",)


def test_golden_checkpoint_gets_the_released_names(tiny_checkpoint: Path) -> None:
    model, checkpoint = load_model(tiny_checkpoint)
    assert model.config.classes == CLASSES
    assert model.config.gated and not model.training
    assert checkpoint.revision is None
    assert read_config(checkpoint) == model.config
    assert not any(parameter.is_meta for parameter in model.parameters())


@pytest.mark.parametrize("kind", ["HubertModel", "HubertForCTC", "HubertForSequenceClassification"])
@pytest.mark.parametrize("stable", [True, False])
def test_what_transformers_writes(kind: str, stable: bool, tmp_path: Path) -> None:
    import transformers

    torch.manual_seed(0)
    names = {0: "calm", 1: "cross", 2: "glad"}
    config = transformers.HubertConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48,
        conv_dim=(16,) * 7, feat_extract_norm="layer" if stable else "group", conv_bias=stable,
        do_stable_layer_norm=stable, classifier_proj_size=8, id2label=names,
    )  # fmt: skip
    original = getattr(transformers, kind)(config).eval()
    original.save_pretrained(tmp_path)
    model, _ = load_model(tmp_path)
    assert not model.config.gated
    classifies = kind == "HubertForSequenceClassification"
    assert model.config.classes == (tuple(names.values()) if classifies else ())
    clip = torch.randn(1, 4000)
    encoder = original if kind == "HubertModel" else original.hubert
    with torch.no_grad():
        output = model(clip)
        expected = encoder(clip).last_hidden_state
        torch.testing.assert_close(output.hidden_states[-1], expected, rtol=0, atol=1e-5)
        if classifies:
            torch.testing.assert_close(output.logits, original(clip).logits, rtol=0, atol=1e-5)


def test_weighted_layer_sum_loads_without_its_head_and_says_so(checkpoint_copy: Path) -> None:
    rewrite(checkpoint_copy, lambda state: state.update(layer_weights=torch.ones(5)))
    with pytest.warns(UserWarning, match="use_weighted_layer_sum"):
        model, _ = load_model(checkpoint_copy)
    assert model.config.classes == ()


def test_unused_masking_vector_may_be_missing(checkpoint_copy: Path) -> None:
    rewrite(checkpoint_copy, lambda state: state.pop("hubert.masked_spec_embed"))
    with pytest.raises(CheckpointError, match="masked_spec_embed"):
        load_model(checkpoint_copy)
    set_config(checkpoint_copy, mask_time_prob=0.0)
    assert not load_model(checkpoint_copy)[0].hubert.masked_spec_embed.any()


GENERIC = tuple(f"LABEL_{index}" for index in range(7))


@pytest.mark.parametrize(
    ("rows", "stored_names", "expected"),
    [
        (6, GENERIC[:6], CLASSES),
        (6, (), CLASSES),
        (7, GENERIC, GENERIC),
        (7, GENERIC[:6], GENERIC),  # the card's transfer learning leaves the config as it was
        (2, (), GENERIC[:2]),  # transformers does not write two generic names
        (3, ("a", "b", "c"), ("a", "b", "c")),
        (6, ("a", "b", "c", "d", "e", "f"), ("a", "b", "c", "d", "e", "f")),
    ],
)
def test_class_names(
    rows: int, stored_names: tuple[str, ...], expected: tuple[str, ...], checkpoint_copy: Path
) -> None:
    def resize(state: State) -> None:
        state["classifier.weight"], state["classifier.bias"] = (
            torch.ones(rows, 16),
            torch.ones(rows),
        )

    rewrite(checkpoint_copy, resize)
    set_config(
        checkpoint_copy, id2label={str(index): name for index, name in enumerate(stored_names)}
    )
    assert load_model(checkpoint_copy)[0].config.classes == expected


def test_class_names_that_do_not_fit(checkpoint_copy: Path) -> None:
    set_config(checkpoint_copy, id2label={"0": "calm", "1": "cross"})
    with pytest.raises(CheckpointError, match=r"json names 2 classes.*expected 6.*--classes"):
        load_model(checkpoint_copy)
    assert load_model(checkpoint_copy, classes="abcdef")[0].config.classes == tuple("abcdef")
    with pytest.raises(UsageError, match="expected 6"):
        load_model(checkpoint_copy, classes=["a", "b"])


def test_remote_code_is_not_run(
    checkpoint_copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (checkpoint_copy / "ExHuBERT_model.py").write_text(
        f"open({TRACE!r}, 'w')\nclass ExHuBERT: pass\n"
    )
    assert "auto_map" in json.loads((checkpoint_copy / "config.json").read_text())
    load_model(checkpoint_copy)
    assert not (tmp_path / TRACE).exists()


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "text": (
        lambda folder: (folder / "pytorch_model.bin").write_text("<html>not found</html>"),
        r"pytorch_model\.bin cannot be read",
    ),
    "git lfs": (
        lambda folder: (folder / "pytorch_model.bin").write_text("version https://git-lfs.x/v1"),
        "git lfs pull",
    ),
    "nested": (
        lambda folder: torch.save({"model": {"w": torch.ones(1)}}, folder / "pytorch_model.bin"),
        r"pytorch_model\.bin holds a dict with \['model'\].*state_dict\(\) alone",
    ),
    "list": (
        lambda folder: torch.save([torch.ones(1)], folder / "pytorch_model.bin"),
        r"pytorch_model\.bin holds a list",
    ),
    "missing key": (
        lambda folder: rewrite(
            folder, lambda state: state.pop("hubert.encoder.layers.3.attention.q_proj.bias")
        ),
        r"pytorch_model\.bin.*1 keys missing \(first hubert\.encoder\.layers\.3\.attention\.q_proj",
    ),
    "missing head": (
        lambda folder: rewrite(folder, lambda state: state.pop("projector.weight")),
        r"1 keys missing \(first projector\.weight",
    ),
    "one gate missing": (
        lambda folder: rewrite(
            folder, lambda state: state.pop("hubert.encoder.layers.2.gate_bb_linear.weight")
        ),
        r"keys missing \(first hubert\.encoder\.layers\.2\.gate_bb_linear",
    ),
    "unknown key": (
        lambda folder: rewrite(folder, lambda state: state.update(adapter=torch.ones(1))),
        r"1 keys unknown \(first adapter\)",
    ),
    "misshaped": (
        lambda folder: rewrite(
            folder, lambda state: state.update({"projector.weight": torch.ones(16, 31)})
        ),
        r"projector\.weight \(16, 31\) instead of \(16, 32\)",
    ),
    "NaN": (
        lambda folder: rewrite(folder, lambda state: state["projector.bias"].fill_(torch.nan)),
        r"projector\.bias \(NaN or infinity\)",
    ),
    "infinity": (
        lambda folder: rewrite(folder, lambda state: state["classifier.bias"].sub_(torch.inf)),
        r"classifier\.bias \(NaN or infinity\)",
    ),
    "integers": (
        lambda folder: rewrite(
            folder, lambda state: state.update({"projector.bias": torch.ones(16, dtype=torch.int8)})
        ),
        r"projector\.bias \(torch\.int8",
    ),
    "too few layers": (
        lambda folder: set_config(folder, num_hidden_layers=6),
        r"has 4 encoder layers.*expected the 6 of .*config\.json",
    ),
    "a layer of an absurd number": (
        lambda folder: rewrite(
            folder,
            lambda state: state.update(
                {
                    key.replace("layers.3.", "layers.999999999."): state.pop(key)
                    for key in list(state)
                    if ".layers.3." in key
                }
            ),
        ),
        r"keys missing \(first hubert\.encoder\.layers\.3",
    ),
    "a hundred thousand convolutions": (
        lambda folder: set_config(
            folder, conv_dim=[24] * 100_000, conv_kernel=[2] * 100_000, conv_stride=[1] * 100_000
        ),
        r"has 7 convolutions.*expected the 100000 of .*config\.json",
    ),
    "a few bytes that claim terabytes": (
        lambda folder: (
            rewrite(
                folder,
                lambda state: state.update({"projector.weight": torch.ones(1).expand(10**9, 32)}),
            ),
            set_config(folder, classifier_proj_size=10**9),
        ),
        r"projector\.weight \(\(1000000000, 32\) out of 4 bytes\)|misshaped",
    ),
    "another width": (
        lambda folder: set_config(folder, hidden_size=64),
        r"tensors misshaped \(first hubert\.masked_spec_embed \(32,\) instead of \(64,\)",
    ),
    "BERT config": (
        lambda folder: set_config(folder, model_type="bert"),
        r"config\.json describes a bert; expected hubert",
    ),
    "BERT weights": (
        lambda folder: torch.save(
            {"bert.pooler.dense.weight": torch.ones(1)}, folder / "pytorch_model.bin"
        ),
        r"has 0 encoder layers, first keys bert\.pooler",
    ),
    "sizes as text": (
        lambda folder: set_config(folder, hidden_size="32", conv_dim=[24, 0], conv_bias=None),
        r"config\.json: config has hidden_size: '32', conv_dim: \(24, 0\), conv_bias: None; ",
    ),
    "unlike stacks": (
        lambda folder: set_config(folder, conv_kernel=[10, 3]),
        "conv_dim, conv_kernel and conv_stride of one length",
    ),
    "rates out of range": (
        lambda folder: set_config(
            folder,
            layer_norm_eps=None,
            hidden_dropout=True,
            attention_dropout=3,
        ),
        r"config has layer_norm_eps: None, hidden_dropout: True, attention_dropout: 3; expected",
    ),
    "no groups": (
        lambda folder: set_config(folder, num_conv_pos_embedding_groups=0),
        "config has num_conv_pos_embedding_groups: 0; expected whole sizes above 0",
    ),
    "unlike sizes": (
        lambda folder: set_config(folder, num_attention_heads=5),
        r"config has hidden_size: 32, num_attention_heads: 5; expected hidden_size divisible by",
    ),
    "sizes missing": (
        lambda folder: (folder / "config.json").write_text('{"model_type": "hubert"}'),
        r"config\.json has no hidden_size, num_hidden_layers, .*do_stable_layer_norm; expected",
    ),
    "same name twice": (
        lambda folder: set_config(folder, id2label={str(index): "calm" for index in range(6)}),
        r"config has classes: \('calm', .*expected distinct class names",
    ),
    "scalar classifier": (
        lambda folder: rewrite(
            folder, lambda state: state.update({"classifier.weight": torch.tensor(1.0)})
        ),
        r"keys unknown \(first .*classifier\.weight",
    ),
    "other activation": (
        lambda folder: set_config(folder, hidden_act="relu"),
        "hidden_act: 'relu'",
    ),
    "no config": (
        lambda folder: (folder / "config.json").unlink(),
        r"has no config\.json",
    ),
    "broken config": (
        lambda folder: (folder / "config.json").write_text('{"hidden_size": 32,'),
        r"config\.json cannot be read as JSON",
    ),
    "config list": (
        lambda folder: (folder / "config.json").write_text("[1]"),
        r"config\.json holds a list",
    ),
    "no weights": (
        lambda folder: (folder / "pytorch_model.bin").unlink(),
        r"has no weights.*model\.safetensors, .*not supported",
    ),
    "shard missing": (
        lambda folder: (folder / "model.safetensors.index.json").write_text(
            '{"weight_map": {"a": "model-1.safetensors"}}'
        ),
        r"has no model-1\.safetensors",
    ),
    "shard outside": (
        lambda folder: (folder / "model.safetensors.index.json").write_text(
            '{"weight_map": {"a": "../secret.safetensors"}}'
        ),
        r"index\.json names no shards, or files outside",
    ),
    "tensor twice": (
        lambda folder: rewrite(
            folder, lambda state: state.update({"encoder.layer_norm.bias": torch.ones(32)})
        ),
        r"holds encoder\.layer_norm\.bias, which was there already",
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_named(damage: str, checkpoint_copy: Path) -> None:
    spoil, message = DAMAGES[damage]
    spoil(checkpoint_copy)
    with pytest.raises(CheckpointError, match=message):
        load_model(checkpoint_copy)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_any_float_becomes_float32(dtype: torch.dtype, checkpoint_copy: Path) -> None:
    state = {key: tensor.to(dtype) for key, tensor in stored(checkpoint_copy).items()}
    torch.save(state, checkpoint_copy / "pytorch_model.bin")
    loaded = load_model(checkpoint_copy)[0].state_dict()
    for key, tensor in state.items():
        torch.testing.assert_close(loaded[key], tensor.float(), rtol=0, atol=0)


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs Linux")
@pytest.mark.parametrize("format_", ["safetensors", "bin"])
def test_parameters_are_the_mapped_file(format_: str, checkpoint_copy: Path) -> None:
    if format_ == "safetensors":
        as_safetensors(checkpoint_copy, stored(checkpoint_copy))
    model, checkpoint = load_model(checkpoint_copy)
    lines = Path("/proc/self/maps").read_text().splitlines()
    mapped = [
        tuple(int(end, 16) for end in line.split()[0].split("-"))
        for line in lines
        if line.endswith(str(checkpoint.weight_files[0]))
    ]
    for name, parameter in model.named_parameters():
        address = parameter.data_ptr()
        assert any(low <= address < high for low, high in mapped), name


@pytest.mark.slow
def test_loading_does_not_load_the_compiler(small_checkpoint: Path) -> None:
    """Initialising on the meta device would: 2 s and 130 MB for nothing."""
    code = """if True:
        import sys
        from exhubert_features.checkpoint import load_model
        load_model(sys.argv[1])
        print("torch._dynamo" in sys.modules, "transformers" in sys.modules)
    """
    command = [sys.executable, "-c", code, str(small_checkpoint)]
    assert subprocess.run(command, capture_output=True, text=True).stdout.split() == ["False"] * 2


def test_training_does_not_write_to_the_file(checkpoint_copy: Path) -> None:
    before = weights_sha256(find_checkpoint(checkpoint_copy))
    model, checkpoint = load_model(checkpoint_copy)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1.0)
    assert hashlib.sha256(checkpoint.weight_files[0].read_bytes()).hexdigest() == before


def test_random_checkpoints(tmp_path: Path) -> None:
    folders = [
        write_random_checkpoint(tmp_path / "one", seed=1),
        write_random_checkpoint(tmp_path / "same", seed=1, layout="release"),
        write_random_checkpoint(tmp_path / "other", seed=2),
    ]
    one, same, other = (load_model(folder)[0] for folder in folders)
    assert one.config == same.config and one.config.classes == CLASSES
    assert torch.equal(one.classifier.weight, same.classifier.weight)
    assert not torch.equal(one.classifier.weight, other.classifier.weight)
    with torch.no_grad():
        output = one(torch.randn(2, 16000))
    scales = [float(hidden.std()) for hidden in output.hidden_states]
    assert min(scales) > 0.3 and max(scales) < 10


def test_source_that_is_nothing(tmp_path: Path, checkpoint_copy: Path) -> None:
    for source, message in [
        (tmp_path / "absent", "no folder here and no Hub id"),
        ("absent", "no folder here and no Hub id"),
        (checkpoint_copy / "pytorch_model.bin", "is a file"),
    ]:
        with pytest.raises(CheckpointError, match=message):
            find_checkpoint(source)


def test_read_state_keeps_only_what_is_used(checkpoint_copy: Path) -> None:
    rewrite(checkpoint_copy, lambda state: state.update({"lm_head.weight": torch.ones(32, 32)}))
    assert "lm_head.weight" not in read_state(find_checkpoint(checkpoint_copy))
    load_model(checkpoint_copy)
