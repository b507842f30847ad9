"""A SpeechBrain run as its IEMOCAP recipe has it, on tones: helpers of the lobe's tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import speechbrain
import torch
from hyperpyyaml import load_hyperpyyaml
from speechbrain.dataio.dataset import DynamicItemDataset
from torch import Tensor

DATA = Path(__file__).parent / "data"


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


def build(
    source: str, folder: Path, lobe: str = "", **run_opts: Any
) -> tuple[EmotionBrain, dict[str, Any]]:
    """The recipe; ``lobe`` is YAML that takes the place of its lobe."""
    paths = {"output_folder": str(folder), "data_folder": "", "wav2vec2_hub": source}
    text = (DATA / "iemocap_with_exhubert.yaml").read_text()
    if lobe:
        start, stop = text.index("wav2vec2: !new:"), text.index("avg_pool: !new:")
        text = f"{text[:start]}{lobe}\n\n{text[stop:]}"
    hparams = load_hyperpyyaml(text, overrides=paths)
    hparams["wav2vec2"] = hparams["wav2vec2"].to(device="cpu")
    if not lobe and hparams["freeze_wav2vec2_conv"]:
        hparams["wav2vec2"].model.feature_extractor._freeze_parameters()
    brain = EmotionBrain(
        modules=hparams["modules"],
        hparams=hparams,
        run_opts={"device": "cpu", "noprogressbar": True, **run_opts},
        checkpointer=hparams["checkpointer"],
    )
    brain.epochs_run = []
    return brain, hparams


def tones(count: int, short: int | None = None) -> DynamicItemDataset:
    """Low tones and high ones, one second more or less; number ``short`` has 300 samples."""
    items = {f"clip{index}": {"number": index} for index in range(count)}
    dataset = DynamicItemDataset(items)

    def make(number: int) -> Any:
        time = torch.arange(300 if number == short else 12_000 + 500 * number) / 16_000
        yield 0.3 * torch.sin(2 * torch.pi * (120.0, 900.0)[number % 2] * time)
        yield torch.tensor([number % 2])

    dataset.add_dynamic_item(make, takes=["number"], provides=["sig", "emotion"])
    dataset.set_output_keys(["id", "sig", "emotion"])
    return dataset
