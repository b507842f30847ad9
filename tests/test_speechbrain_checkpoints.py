"""The lobe under SpeechBrain's Checkpointer, Pretrainer and Brain: saved, refused, resumed."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import speechbrain
import torch
from hyperpyyaml import load_hyperpyyaml
from speechbrain.dataio.dataset import DynamicItemDataset
from speechbrain.utils.checkpoints import Checkpointer
from speechbrain.utils.parameter_transfer import Pretrainer
from torch import Tensor, nn

from exhubert_features.checkpoint import write_random_checkpoint
from exhubert_features.checkpoint.expand import expand
from exhubert_features.errors import CheckpointError
from exhubert_features.speechbrain import ExHuBERT, WholeCheckpointer

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
    for foreign in (nn.Linear(2, 2).state_dict(), {"format": "exhubert-lobe-1"}, [1]):
        torch.save(foreign, path)
        with pytest.raises(CheckpointError, match="not written by this lobe"):
            lobe.load(path)


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


class EmotionBrain(speechbrain.Brain):
    """What SpeechBrain's IEMOCAP recipe does, on tensors."""

    stop_after: int | None = None
    epochs_run: list[int]

    def compute_forward(self, batch: Any, stage: speechbrain.Stage) -> Tensor:
        wavs, lengths = batch.to(self.device).sig
        pooled = self.hparams.avg_pool(self.modules.wav2vec2(wavs, lengths), lengths)
        logits = self.modules.output_mlp(pooled.view(pooled.shape[0], -1))
        return self.hparams.log_softmax(logits)

    def compute_objectives(self, predictions: Tensor, batch: Any, stage: Any) -> Tensor:
        return self.hparams.compute_cost(predictions, batch.emotion.data.squeeze(1))

    def init_optimizers(self) -> None:
        self.optimizers_dict = {
            "wav2vec2": self.hparams.wav2vec2_opt_class(self.modules.wav2vec2.parameters()),
            "model": self.hparams.opt_class(self.hparams.model.parameters()),
        }
        for name, optimizer in self.optimizers_dict.items():
            self.checkpointer.add_recoverable(f"{name}_optimizer", optimizer)

    def on_stage_start(self, stage: speechbrain.Stage, epoch: int | None = None) -> None:
        if stage is speechbrain.Stage.TRAIN:
            if epoch == self.stop_after:
                raise KeyboardInterrupt
            self.epochs_run.append(epoch or 0)

    def on_stage_end(self, stage: Any, stage_loss: float, epoch: int | None = None) -> None:
        if stage is speechbrain.Stage.VALID:
            self.checkpointer.save_and_keep_only(meta={"loss": stage_loss}, min_keys=["loss"])


def build(source: str, folder: Path) -> tuple[EmotionBrain, dict[str, Any]]:
    paths = {"output_folder": str(folder), "data_folder": "", "wav2vec2_hub": source}
    with (DATA / "iemocap_with_exhubert.yaml").open() as stream:
        hparams = load_hyperpyyaml(stream, overrides=paths)
    hparams["wav2vec2"] = hparams["wav2vec2"].to(device="cpu")
    if not hparams["freeze_wav2vec2"] and hparams["freeze_wav2vec2_conv"]:
        hparams["wav2vec2"].model.feature_extractor._freeze_parameters()
    brain = EmotionBrain(
        modules=hparams["modules"],
        hparams=hparams,
        run_opts={"device": "cpu", "noprogressbar": True},
        checkpointer=hparams["checkpointer"],
    )
    brain.epochs_run = []
    return brain, hparams


def tones(count: int) -> DynamicItemDataset:
    """Low tones and high ones, one second more or less."""
    items = {f"clip{index}": {"number": index} for index in range(count)}
    dataset = DynamicItemDataset(items)

    def make(number: int) -> Any:
        time = torch.arange(12_000 + 500 * number) / 16_000
        yield 0.3 * torch.sin(2 * torch.pi * (120.0, 900.0)[number % 2] * time)
        yield torch.tensor([number % 2])

    dataset.add_dynamic_item(make, takes=["number"], provides=["sig", "emotion"])
    dataset.set_output_keys(["id", "sig", "emotion"])
    return dataset


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
