"""In which precision a model computes: who decides, how close it stays, what it refuses."""

from __future__ import annotations

import copy
import os
import pickle
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from waves import noise

from exhubert_features import Encoder, load_encoder, precision
from exhubert_features.checkpoint import load_model, save_checkpoint, write_random_checkpoint
from exhubert_features.cli import main
from exhubert_features.errors import UsageError
from exhubert_features.model import ExHuBERTNetwork
from exhubert_features.model.kernels import BFloat16Linear, Int8Linear, multiplies_int8
from exhubert_features.precision import fastest_precision, prepare_model, resolve_precision
from exhubert_features.spec import Precision
from exhubert_features.store import FeatureStore

CPU = torch.device("cpu")
needs_int8 = pytest.mark.skipif(not multiplies_int8(), reason="no products of 8 bits here")

# Rows that agree in sign with a weight's, against weights that are not alike. Prints whether the
# machine's own trial, such products, and those of weights that use all steps anyhow, are exact.
EXTREMES = """
import torch
from exhubert_features.model import kernels

def is_exact(whole):
    rows = torch.where(whole > 0, 127.0, -127.0)
    packed = kernels.Int8Linear.pack(whole.to(torch.int8))
    product = kernels._multiply(kernels._as_bytes(rows), packed, ones)
    return torch.equal(product.double(), rows.double() @ whole.double().t())

ones, generator = torch.ones(128), torch.Generator().manual_seed(0)
weights = torch.randn(128, 1024, generator=generator)
shapes = [weights, weights.sign(), weights.pow(5), weights.abs(), -weights.abs().sqrt()]
print(kernels.multiplies_int8())
print(all(is_exact((w / kernels._weight_steps(w)[:, None]).round()) for w in shapes))
print(is_exact(127 * weights.sign()))
"""


@pytest.mark.slow
@needs_int8
@pytest.mark.parametrize("instructions", ["ALL", "AVX512_CORE", "AVX2"])
def test_extreme_activations_do_not_saturate(instructions: str) -> None:
    """And without care they would, where there is no VNNI."""
    run = subprocess.run(
        [sys.executable, "-c", EXTREMES],
        env={**os.environ, "ONEDNN_MAX_CPU_ISA": instructions},
        capture_output=True,
        text=True,
        check=True,
    )
    found = run.stdout.split()
    assert found[:2] == ["True", "True"]
    if instructions != "ALL":
        assert found[2] == "False"


@needs_int8
def test_each_row_of_an_int8_product_has_its_own_step() -> None:
    generator = torch.Generator().manual_seed(0)
    weight, bias = torch.randn(96, 64, generator=generator), torch.randn(96, generator=generator)
    rows = torch.randn(5, 64, generator=generator)
    rows[1] *= 1e6  # a loud row leaves the others as they are
    rows[2] = 0
    layer = Int8Linear(weight, bias)
    found, exact = layer(rows), rows @ weight.t() + bias
    assert torch.equal(found[2], bias)
    torch.testing.assert_close(found[1], exact[1], rtol=0, atol=4e5)
    torch.testing.assert_close(found[[0, 3, 4]], exact[[0, 3, 4]], rtol=0, atol=0.4)
    for row in range(len(rows)):
        assert torch.equal(layer(rows[row : row + 1])[0], found[row])


@needs_int8
def test_a_gate_near_the_identity_keeps_its_rest() -> None:
    weight = torch.eye(64) + 0.01 * torch.randn(64, 64, generator=torch.Generator().manual_seed(0))
    rows = torch.randn(9, 64, generator=torch.Generator().manual_seed(1))
    exact = rows @ weight.t()
    errors = [
        float((Int8Linear(weight, torch.zeros(64), gate=gate)(rows) - exact).norm())
        for gate in (False, True)
    ]
    assert errors[1] < errors[0] / 10


@needs_int8
def test_what_is_not_finite_stays_so() -> None:
    rows = torch.ones(3, 64)
    rows[0, 3], rows[1, 3] = torch.inf, torch.nan
    finite = Int8Linear(torch.ones(8, 64), torch.zeros(8))(rows).isfinite().all(dim=1)
    assert finite.tolist() == [False, False, True]


def test_products_in_bfloat16() -> None:
    generator = torch.Generator().manual_seed(0)
    weight, bias, rows = (
        torch.randn(shape, generator=generator) for shape in [(96, 64), (96,), (2, 7, 64)]
    )
    exact = rows @ weight.t() + bias
    found = BFloat16Linear(weight, bias)(rows)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, exact, rtol=0, atol=2**-8 * float(exact.abs().max()))
    after = BFloat16Linear(weight, bias, gelu=True)(rows).float()
    torch.testing.assert_close(after, torch.nn.functional.gelu(found), rtol=2**-7, atol=1e-3)


def sounds(count: int) -> list[np.ndarray]:
    """A second each of dark, white or bright noise, with or without a voice's harmonics."""
    time = np.arange(16_000) / 16_000
    generator = np.random.default_rng(0)
    clips = []
    for number in range(count):
        hiss = generator.normal(0, 1, 16_001)
        hiss = (hiss[1:] + hiss[:-1], hiss[1:], hiss[1:] - hiss[:-1])[number % 3]
        phase = 2 * np.pi * generator.uniform(80, 300) * time
        voice = sum(np.sin(k * phase) / k for k in range(1, 9))
        clips.append((0.05 * hiss + (number % 2) * 0.2 * voice).astype(np.float32))
    return clips


def agreement(model: ExHuBERTNetwork, name: Precision) -> tuple[float, float]:
    """The least cosine between pooled layers, and the share of clips with the same top class."""
    exact, rough = (
        Encoder(copy.deepcopy(model), device="cpu", precision=one)(
            sounds(25), preprocess="masked", together=True
        )
        for one in ("float32", name)
    )
    cosine = torch.cosine_similarity(rough.layers.mean(2), exact.layers.mean(2), dim=-1)
    same = rough.logits.argmax(1) == exact.logits.argmax(1)
    return float(cosine.min()), float(same.float().mean())


@pytest.mark.slow
@needs_int8
@pytest.mark.filterwarnings("ignore:this machine has no units")
@pytest.mark.parametrize(
    ("name", "cosine", "same"), [("bfloat16", 0.9999, 0.99), ("int8", 0.999, 0.98)]
)
def test_fidelity(tmp_path: Path, name: Precision, cosine: float, same: float) -> None:
    """Four models of all 48 layers, a tenth as wide as the released one."""
    found = []
    for seed in range(4):
        folder = tmp_path / str(seed)
        write_random_checkpoint(folder, hidden=96, ffn=384, conv=64, projector=64, seed=seed)
        found.append(agreement(load_model(folder)[0], name))
    print(f"{name}: {found}")
    assert min(one for one, _ in found) >= cosine
    assert np.mean([one for _, one in found]) >= same - 1e-6  # float32 knows no 0.99


@needs_int8
@pytest.mark.filterwarnings("ignore:in int8 this model")
def test_an_int8_encoder_is_an_encoder(small_checkpoint: Path) -> None:
    encoder = load_encoder(small_checkpoint, device="cpu", precision="int8")
    assert encoder.identity.precision == encoder.precision == "int8"
    expected = encoder(noise(5_000))
    assert expected.layers.dtype == torch.float32
    for twin in (copy.deepcopy(encoder), pickle.loads(pickle.dumps(encoder))):
        assert torch.equal(twin(noise(5_000)).logits, expected.logits)
    together = encoder([noise(5_000), noise(9_000, 1)])
    scale = float(expected.layers.abs().max())
    assert float((together.layers[:, :1] - expected.layers).abs().max()) < 0.05 * scale
    with pytest.raises(RuntimeError, match="does not require grad"):  # it cannot learn
        encoder.model.train()(torch.randn(1, 800)).logits.sum().backward()
    with pytest.raises(UsageError, match="not the checkpoint's any more"):
        save_checkpoint(encoder.model, "nowhere")
    with pytest.raises(UsageError, match="moved to another device"):
        encoder.model.to("meta")


def pretend(monkeypatch: pytest.MonkeyPatch, **speeds: float) -> None:
    def speedup(name: str, device: torch.device, width: int | None = None) -> float:
        return speeds.get(name, 0.0) / speeds["float32"]

    monkeypatch.setattr(precision, "speedup", speedup)


@pytest.mark.parametrize(
    ("speeds", "chosen"),
    [
        ({"float32": 90, "bfloat16": 9, "int8": 140}, "float32"),  # AVX2
        ({"float32": 130, "bfloat16": 12, "int8": 360}, "int8"),  # AVX512 with VNNI
        ({"float32": 210, "bfloat16": 930, "int8": 1100}, "bfloat16"),  # AVX512 with bf16
        ({"float32": 210, "bfloat16": 930, "int8": 0}, "bfloat16"),  # a torch without int8
        ({"float32": 210, "bfloat16": 1000, "int8": 2500}, "int8"),
    ],
)
def test_auto_takes_what_is_much_faster(
    monkeypatch: pytest.MonkeyPatch, speeds: dict[str, float], chosen: str
) -> None:
    pretend(monkeypatch, **speeds)
    assert fastest_precision(CPU) == chosen
    assert resolve_precision("auto", CPU) == chosen


def test_auto_measures_the_models_own_width(tiny_checkpoint: Path) -> None:
    """On 32 numbers a row nothing is faster than float32, whatever units there are."""
    assert load_encoder(tiny_checkpoint, device="cpu", precision="auto").precision == "float32"


def test_emulation_is_told_with_its_ratio(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, float32=90, bfloat16=9, int8=140)
    with pytest.warns(UserWarning, match=r"no units for bfloat16.* 0\.10 times.*Use .* float32"):
        assert resolve_precision("bfloat16", CPU) == "bfloat16"
    pretend(monkeypatch, float32=90, bfloat16=400, int8=140)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert resolve_precision("bfloat16", CPU) == "bfloat16"


def test_int8_needs_a_cpu_that_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="int8 on cuda"):
        resolve_precision("int8", torch.device("cuda"))
    monkeypatch.setattr(precision, "multiplies_int8", lambda: False)
    with pytest.raises(UsageError, match="int8 on cpu"):
        resolve_precision("int8", CPU)


@needs_int8
def test_weights_that_suffer_from_int8_are_found_out(
    small_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One channel a hundred times as large as the others takes all the steps."""
    pretend(monkeypatch, float32=100, int8=300)
    healthy, _ = load_model(small_checkpoint)
    assert prepare_model(healthy, CPU, "auto") == "int8"
    for asked, used in (("auto", "float32"), ("int8", "int8")):
        model, _ = load_model(small_checkpoint)
        for layer in model.hubert.encoder.blocks:
            layer.layer_norm.weight.data[3] = layer.final_layer_norm.weight.data[3] = 100
            layer.feed_forward.intermediate_dense.weight.data[:, 3] /= 100
            layer.attention.v_proj.weight.data[:, 3] /= 100
            layer.attention.q_proj.weight.data[:, 3] /= 100
            layer.attention.k_proj.weight.data[:, 3] /= 100
        with pytest.warns(UserWarning, match=rf"in int8 this model.* it runs in {used}"):
            encoder = Encoder(model, device="cpu", precision=asked)
        assert encoder.precision == used


@pytest.mark.filterwarnings("ignore:this machine has no units")
def test_a_store_goes_on_in_its_precision(
    small_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever auto would choose on this machine: the model is tiny, so float32."""
    audio, store = tmp_path / "audio", tmp_path / "store"
    audio.mkdir()
    command = ["extract", str(audio), "-o", str(store), f"--model={small_checkpoint}"]
    for number, options in enumerate((["--precision=bfloat16"], [])):
        soundfile.write(audio / f"{number}.wav", noise(8_000, number), 16_000)
        assert main([*command, "--device=cpu", *options]) == 0
        assert ", bfloat16 on cpu" in capsys.readouterr().out
    assert len(FeatureStore(store)) == 2
    assert FeatureStore(store).fingerprint.model.precision == "bfloat16"
    assert main([*command, "--device=cpu", "--precision=float32"]) == 1
    assert "bfloat16" in capsys.readouterr().err
    fresh = tmp_path / "fresh"
    assert main(["extract", str(audio), "-o", str(fresh), *command[4:], "--device=cpu"]) == 0
    assert FeatureStore(fresh).fingerprint.model.precision == "float32"


@needs_int8
@pytest.mark.filterwarnings("ignore:in int8 this model")
def test_a_frozen_lobe_in_int8(small_checkpoint: Path) -> None:
    from exhubert_features.speechbrain import ExHuBERT

    options = {"freeze": True, "output_all_hiddens": True}
    exact, lobe, same = (
        ExHuBERT(str(small_checkpoint), None, **options, precision=name).train()
        for name in ("float32", "int8", "int8")
    )
    wave = torch.from_numpy(noise(8_000)).unsqueeze(0)
    found = lobe(wave)
    assert not found.requires_grad
    assert torch.equal(found, same(wave))  # no dropout in what is frozen
    assert not torch.equal(found, exact(wave))
    similar = torch.cosine_similarity(found.mean(2), exact(wave).mean(2), dim=-1)
    assert float(similar.min()) > 0.99
    with pytest.raises(UsageError, match="precision='int8' in a lobe that trains"):
        ExHuBERT(str(small_checkpoint), None, freeze=False, precision="int8")
