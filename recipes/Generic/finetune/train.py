#!/usr/bin/env python3
"""Fine-tune ExHuBERT itself on a manifest, as its authors do.

> python train.py hparams/train.yaml --manifest corpus.csv --classes "[anger, neutral, sadness]"

The convolutions and the original half of the layers stay frozen; the other half and a new
classifier learn, each at its own rate. Training, validation and test speakers are different
people. The best model ends up in <output_folder>/model, ready for `exhubert extract --model`,
load_encoder() and speechbrain.inference.interfaces.foreign_class().
"""

import shutil
import sys
from pathlib import Path
from string import Template

import torch
from exhubert_features.audio import read_audio
from exhubert_features.checkpoint import save_checkpoint
from exhubert_features.errors import AudioError
from exhubert_features.evaluation import join_labels
from exhubert_features.evaluation.metrics import (
    confusion_matrix,
    unweighted_average_recall,
)
from exhubert_features.evaluation.splits import make_protocol
from exhubert_features.extraction import measured, plan
from exhubert_features.files import temporary_folder
from exhubert_features.records import ClipFailure
from exhubert_features.spec import SAMPLE_RATE
from hyperpyyaml import load_hyperpyyaml

import speechbrain as sb
from speechbrain.dataio.dataset import DynamicItemDataset
from speechbrain.dataio.encoder import CategoricalEncoder
from speechbrain.utils.data_pipeline import provides, takes


class EmotionBrain(sb.Brain):
    """Waveforms to class logits."""

    def compute_forward(self, batch, stage):
        """Run the batch through the model."""
        wavs, lengths = batch.to(self.device).sig
        return self.modules.exhubert(wavs, lengths).logits

    def compute_objectives(self, logits, batch, stage):
        """Compute the loss, and keep what was answered."""
        truth = batch.label.data.squeeze(1)
        if stage is not sb.Stage.TRAIN:
            self.truth.append(truth.cpu())
            self.predictions.append(logits.argmax(dim=-1).cpu())
        return torch.nn.functional.cross_entropy(logits.float(), truth)

    def init_optimizers(self):
        """Make one optimizer for the encoder and one for the classifier."""
        head, encoder = [], []
        for name, weight in self.hparams.exhubert.named_parameters():
            if weight.requires_grad:
                (head if "classifier" in name else encoder).append(weight)
        self.optimizers_dict = {
            "head": self.hparams.head_optimizer(head),
            "encoder": self.hparams.encoder_optimizer(encoder),
        }
        for name, optimizer in self.optimizers_dict.items():
            self.checkpointer.add_recoverable(f"{name}_optimizer", optimizer)

    def on_stage_start(self, stage, epoch=None):
        """Forget the answers of the stage before."""
        self.truth, self.predictions = [], []

    def on_stage_end(self, stage, stage_loss, epoch=None):
        """Log the stage; after validation keep the best checkpoint."""
        if stage is sb.Stage.TRAIN:
            self.train_loss = stage_loss
            return
        truth, predictions = (
            torch.cat(self.truth).numpy(),
            torch.cat(self.predictions).numpy(),
        )
        counts = confusion_matrix(truth, predictions, len(self.hparams.classes))
        stats = {
            "loss": stage_loss,
            "UAR": float(unweighted_average_recall(counts)),
        }
        if stage is sb.Stage.VALID:
            self.hparams.train_logger.log_stats(
                {"epoch": epoch},
                train_stats={"loss": self.train_loss},
                valid_stats=stats,
            )
            self.checkpointer.save_and_keep_only(meta=stats, max_keys=["UAR"])
        else:
            best = {"epoch loaded": self.hparams.epoch_counter.current}
            self.hparams.train_logger.log_stats(best, test_stats=stats)


def make_datasets(hparams):
    """Train, valid and test sets out of one manifest, with no speaker in two of them."""
    clips = list(
        measured(plan(hparams["manifest"], data_root=hparams["data_root"]))
    )
    if failures := [clip for clip in clips if isinstance(clip, ClipFailure)]:
        raise AudioError(
            f"{len(failures)} clips cannot be used, first {failures[0].reason}",
            remedy="Repair them or take them out of the manifest",
        )
    labels = join_labels(
        [{"id": clip.id, "file": clip.file, **clip.meta} for clip in clips],
        target=hparams["target"],
        group=hparams["group"],
        split=hparams["split"],
        classes=hparams["classes"],
    )
    fold = make_protocol(labels, seed=hparams["seed"]).folds[hparams["fold"]]
    parts = {
        "train": fold.inner[0].train,
        "valid": fold.inner[0].held,
        "test": fold.test,
    }

    encoder = CategoricalEncoder()
    encoder.update_from_iterable(hparams["classes"])
    encoder.expect_len(len(hparams["classes"]))

    @takes("file", "start", "end")
    @provides("sig")
    def audio(file, start, end):
        """Read the audio of a clip."""
        wave = torch.from_numpy(read_audio(file, start=start, end=end))
        return wave[: int(hparams["seconds"] * SAMPLE_RATE)]

    @takes("class")
    @provides("label")
    def label(name):
        """Give the index of its class."""
        return encoder.encode_label_torch(name)

    def dataset(positions):
        """Make the dataset of some rows."""
        chosen = [
            (clips[labels.rows[i]], labels.classes[labels.values[i]])
            for i in positions
        ]
        items = {
            clip.id: {
                "file": clip.file,
                "start": clip.start,
                "end": clip.end,
                "class": name,
            }
            for clip, name in chosen
        }
        return DynamicItemDataset(items, [audio, label], ["id", "sig", "label"])

    return {name: dataset(positions) for name, positions in parts.items()}


def export(hparams):
    """Write the model and, beside it, what foreign_class() looks for."""
    final = Path(hparams["output_folder"]) / "model"
    inference = Path(__file__).parent / "inference"
    text = Template((inference / "hyperparams.template").read_text())
    # That of an earlier run with the same output folder goes when this one is on the disk.
    with temporary_folder(final, replace=True) as folder:
        save_checkpoint(hparams["exhubert"].model, folder)
        (folder / "hyperparams.yaml").write_text(
            text.substitute(preprocess=hparams["preprocess"])
        )
        shutil.copy(inference / "custom.py", folder)


if __name__ == "__main__":
    hparams_file, run_opts, overrides = sb.parse_arguments(sys.argv[1:])
    sb.utils.distributed.ddp_init_group(run_opts)
    with Path(hparams_file).open() as stream:
        hparams = load_hyperpyyaml(stream, overrides)
    sb.create_experiment_directory(
        experiment_directory=hparams["output_folder"],
        hyperparams_to_save=hparams_file,
        overrides=overrides,
    )
    datasets = make_datasets(hparams)
    brain = EmotionBrain(
        modules=hparams["modules"],
        hparams=hparams,
        run_opts=run_opts,
        checkpointer=hparams["checkpointer"],
    )
    brain.fit(
        hparams["epoch_counter"],
        datasets["train"],
        datasets["valid"],
        train_loader_kwargs={**hparams["dataloader_options"], "shuffle": True},
        valid_loader_kwargs=hparams["dataloader_options"],
    )
    brain.evaluate(
        datasets["test"],
        max_key="UAR",
        test_loader_kwargs=hparams["dataloader_options"],
    )
    sb.utils.distributed.run_on_main(export, args=[hparams])
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()  # else gloo may abort while Python shuts down
