"""The lobe under SpeechBrain's Checkpointer, Pretrainer and Brain: saved, refused, resumed."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from speechbrain.utils.checkpoints import Checkpointer, average_checkpoints
from speechbrain.utils.parameter_transfer import Pretrainer
from speechbrain_runs import build, tones
from torch import Tensor, nn

from exhubert_features.checkpoint import write_random_checkpoint
from exhubert_features.checkpoint.expand import expand
from exhubert_features.errors import CheckpointError
from exhubert_features.speechbrain import ExHuBERT, WeightedExHuBERT, WholeCheckpointer

DATA = Path(__file__).parent / "data"


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Four layers, for tests that train."""
    return str(write_random_checkpoint(tmp_path_factory.mktemp("small") / "model", layers=4))


def perturb(module: nn.Module) -> dict[str, Tensor]:
    """Change what trains, as training would; return the state afterwards."""
    with torch.no_grad():
        for weight in module.parameters():
            if weight.requires_grad:
                weight.add_(0.5)
    return {name: value.clone() for name, value in module.state_dict().items()}


def assert_same(module: nn.Module, state: dict[str, Tensor]) -> None:
    for name, value in module.state_dict().items():
        torch.testing.assert_close(value, state[name], rtol=0, atol=0, msg=name)


PARTLY = {"freeze_feature_extractor": True, "freeze_original": True, "output_logits": True}


@pytest.mark.parametrize("options", [{"freeze": True}, PARTLY, {}, {"layers": [2]}])
def test_checkpoint_holds_only_what_trains(
    small: str, tmp_path: Path, options: dict[str, Any]
) -> None:
    lobe, head = ExHuBERT(small, None, **options), nn.Linear(32, 4)
    checkpointer = Checkpointer(tmp_path, {"lobe": lobe, "head": head})
    saved = perturb(lobe)
    folder = checkpointer.save_checkpoint().path
    trainable = sum(weight.nbytes for weight in lobe.parameters() if weight.requires_grad)
    names = sum(weight.requires_grad for weight in lobe.parameters())
    assert (folder / "lobe.ckpt").stat().st_size < trainable + 700 * names + 2_000
    fresh = ExHuBERT(small, None, **options)
    assert Checkpointer(tmp_path, {"lobe": fresh, "head": head}).recover_if_possible()
    assert_same(fresh, saved)


def test_recovered_gates_are_computed_again(tmp_path: Path) -> None:
    """Identity gates are skipped; a checkpoint in which one learned must end that for this one."""
    plain = write_random_checkpoint(tmp_path / "plain", layers=2, gated=False)
    expand(plain, tmp_path / "extended")
    source = str(tmp_path / "extended")
    lobe = ExHuBERT(source, None, output_logits=True)
    with torch.no_grad():
        lobe.model.hubert.encoder.layers[0].gate_bb_linear.weight.mul_(3.0)
    lobe.save(tmp_path / "lobe.ckpt")
    frozen = ExHuBERT(source, None, freeze=True, output_logits=True)

    def skipped() -> list[bool]:
        return [layer.identity_gate for layer in frozen.model.hubert.encoder.layers]

    assert skipped() == [True, False, True, False]
    wav = torch.randn(1, 16_000, generator=torch.Generator().manual_seed(0))
    before = frozen(wav).logits
    frozen.load(tmp_path / "lobe.ckpt")
    assert skipped() == [False, False, True, False]
    after = frozen(wav).logits
    assert not torch.allclose(before, after, atol=1e-3)
    torch.testing.assert_close(lobe.eval()(wav).logits, after, rtol=0, atol=1e-5)


def test_other_frozen_weights_are_refused(small: str, tmp_path: Path) -> None:
    ExHuBERT(small, None, **PARTLY).save(tmp_path / "lobe.ckpt")
    other = str(write_random_checkpoint(tmp_path / "other", layers=4, seed=1))
    lobe = ExHuBERT(other, None, **PARTLY)
    before = {name: value.clone() for name, value in lobe.state_dict().items()}
    with pytest.raises(CheckpointError, match="other frozen weights") as caught:
        lobe.load(tmp_path / "lobe.ckpt")
    assert small in str(caught.value) and other in str(caught.value)
    assert_same(lobe, before)  # nothing was taken over


def test_unfit_checkpoints_are_refused(small: str, tmp_path: Path) -> None:
    path = tmp_path / "lobe.ckpt"
    ExHuBERT(small, None, classes=["calm", "tense"], output_logits=True).save(path)
    lobe = ExHuBERT(small, None, **PARTLY)
    with pytest.raises(CheckpointError, match=r"do not fit, first .*classifier"):
        lobe.load(path)
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(CheckpointError, match=r"lobe\.ckpt cannot be read.*Or delete its CKPT"):
        lobe.load(path)
    shutil.copy(DATA / "hostile" / "zip.bin", path)
    with pytest.raises(CheckpointError, match=r"pickle that would run .*nothing of it was run"):
        lobe.load(path)
    for foreign in (nn.Linear(2, 2).state_dict(), {"format": "exhubert-lobe-1"}, [1], {}):
        torch.save(foreign, path)
        with pytest.raises(CheckpointError, match="not written by this lobe"):
            lobe.load(path)


def test_what_a_subclass_has_of_its_own_is_saved(small: str, tmp_path: Path) -> None:
    class Scaled(ExHuBERT):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            self.scale = nn.Parameter(torch.ones(5))
            self.shift = nn.Parameter(torch.zeros(5), requires_grad=False)
            self.register_buffer("seen", torch.zeros(()))

    lobe = Scaled(small, None, freeze=True)
    saved = perturb(lobe)
    lobe.shift.data += 2.0
    lobe.seen += 3
    checkpointer = Checkpointer(tmp_path, {"lobe": lobe})
    path = checkpointer.save_checkpoint().path / "lobe.ckpt"
    fresh = Scaled(small, None, freeze=True)
    assert Checkpointer(tmp_path, {"lobe": fresh}).recover_if_possible()
    assert torch.equal(fresh.scale, saved["scale"]) and fresh.scale[0] == 1.5
    assert fresh.shift[0] == 2.0 and fresh.seen == 3
    # A file without them, as of the lobe itself, is no checkpoint of the subclass.
    ExHuBERT(small, None, freeze=True).save(path)
    with pytest.raises(CheckpointError, match="lacks 3 weights, first scale, seen, shift"):
        fresh.load(path)


@pytest.mark.parametrize("lobe_class", [ExHuBERT, WeightedExHuBERT])
def test_checkpoints_are_averaged(small: str, tmp_path: Path, lobe_class: type[ExHuBERT]) -> None:
    lobe = lobe_class(small, None, freeze_original=True)
    checkpointer = Checkpointer(tmp_path, {"lobe": lobe})
    before = {name: value.clone() for name, value in lobe.state_dict().items()}
    for _ in range(3):
        perturb(lobe)
        checkpointer.save_checkpoint()
    mean = average_checkpoints(checkpointer.find_checkpoints(max_num_checkpoints=3), "lobe")
    torch.save(mean, tmp_path / "lobe.ckpt")
    by_recipe, by_pretrainer = (lobe_class(small, None, freeze_original=True) for _ in range(2))
    by_recipe.load_state_dict(mean, strict=True)  # as SpeechBrain's recipes do before they test
    by_pretrainer.load(tmp_path / "lobe.ckpt")
    trains = {name for name, weight in lobe.named_parameters() if weight.requires_grad}
    for fresh in (by_recipe, by_pretrainer):
        for name, value in fresh.state_dict().items():
            expected = before[name] + (1.0 if name in trains else 0.0)
            torch.testing.assert_close(value, expected, msg=name)
    other = str(write_random_checkpoint(tmp_path / "other", layers=4, seed=1))
    with pytest.raises(CheckpointError, match="other frozen weights"):
        lobe_class(other, None, freeze_original=True).load_state_dict(mean)


@pytest.mark.parametrize("of_model", [False, True])
def test_plain_states_go_through_the_pretrainer(small: str, tmp_path: Path, of_model: bool) -> None:
    lobe = ExHuBERT(small, None)
    saved = perturb(lobe)
    state = lobe.model.state_dict() if of_model else lobe.state_dict()
    torch.save(state, tmp_path / "lobe.ckpt")
    fresh = ExHuBERT(small, None, freeze=True)
    pretrainer = Pretrainer(loadables={"lobe": fresh})
    pretrainer.collect_files(default_source=str(tmp_path))
    pretrainer.load_collected()
    assert_same(fresh, saved)
    torch.save(dict(list(state.items())[3:]), tmp_path / "lobe.ckpt")
    with pytest.raises(CheckpointError, match="lacks 3 weights"):
        pretrainer.load_collected()


def test_pretrainer_is_strict(small: str, tmp_path: Path) -> None:
    lobe = ExHuBERT(small, None, **PARTLY)
    saved = perturb(lobe)
    lobe.save(tmp_path / "lobe.ckpt")
    fresh = ExHuBERT(small, None, **PARTLY)
    pretrainer = Pretrainer(loadables={"lobe": fresh})
    pretrainer.collect_files(default_source=str(tmp_path))
    pretrainer.load_collected()
    assert_same(fresh, saved)
    torch.save({"weight": torch.zeros(2)}, tmp_path / "lobe.ckpt")
    with pytest.raises(CheckpointError):
        pretrainer.load_collected()


def test_iemocap_recipe_trains_resumes_and_evaluates(tiny_checkpoint: Path, tmp_path: Path) -> None:
    source = str(tiny_checkpoint)
    brain, hparams = build(source, tmp_path)
    brain.stop_after = 2
    options = {"train_loader_kwargs": hparams["dataloader_options"]}
    with pytest.raises(KeyboardInterrupt):
        brain.fit(hparams["epoch_counter"], tones(8), tones(4), **options)
    saved = {name: value.clone() for name, value in brain.modules.state_dict().items()}

    resumed, hparams = build(source, tmp_path)
    untrained = hparams["wav2vec2"].model.hubert.encoder.layers[1].attention.q_proj.weight.clone()
    resumed.init_optimizers()
    resumed.checkpointer.recover_if_possible()
    assert_same(resumed.modules, saved)
    resumed.fit(hparams["epoch_counter"], tones(8), tones(4), **options)
    assert (brain.epochs_run, resumed.epochs_run) == ([1], [2])
    trained = hparams["wav2vec2"].model.hubert.encoder.layers[1].attention.q_proj.weight
    assert not torch.equal(trained, untrained)
    assert np.isfinite(resumed.evaluate(tones(4), min_key="loss"))
    folder = resumed.checkpointer.find_checkpoint().path
    assert {"wav2vec2.ckpt", "model.ckpt", "counter.ckpt"} <= {p.name for p in folder.iterdir()}


def test_run_killed_while_saving_resumes_from_the_whole_checkpoint(tmp_path: Path) -> None:
    def dies(module: nn.Module, path: Path) -> None:
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    head = nn.Linear(2, 2)
    checkpointer = WholeCheckpointer(tmp_path, {"head": head})
    first = checkpointer.save_checkpoint(meta={"uar": 0.5})
    saved = {name: value.clone() for name, value in head.state_dict().items()}
    perturb(head)
    checkpointer.custom_save_hooks["head"] = dies
    with pytest.raises(KeyboardInterrupt):
        checkpointer.save_checkpoint(meta={"uar": 0.9})
    resumed = WholeCheckpointer(tmp_path, {"head": head})
    found = resumed.recover_if_possible(max_key="uar")
    assert found.path == first.path and found.paramfiles == first.paramfiles
    assert_same(head, saved)
    resumed.save_and_keep_only(name="last")
    assert [path.name for path in tmp_path.iterdir()] == ["CKPT+last"]
