#!/usr/bin/env python3
"""Fine-tune to the six classes of arousal and valence on many corpora, as ExHuBERT was made.

> python train.py hparams/train.yaml --source expanded --corpora "[emodb:/data/EMO-DB, ...]"

The convolutions and the original half of the layers stay frozen. Clips of 3 s; corpora and
classes are drawn in balance; the checkpoint is chosen on development speakers by the mean over
corpora of the UAR over the classes that each has. With --held_out one corpus is left out of all
that and tested whole. results.json has each corpus' UAR with its interval.
"""

import json
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import torch
from emosetpp_prepare import (
    parse_corpora,
    prepare_emosetpp,
    read_items,
    write_parts,
)
from exhubert_features.audio import read_audio
from exhubert_features.checkpoint import save_checkpoint
from exhubert_features.errors import UsageError
from exhubert_features.evaluation.intervals import classification_figures
from exhubert_features.evaluation.metrics import (
    absent_classes,
    confusion_matrix,
    unweighted_average_recall,
)
from exhubert_features.files import publish, temporary_folder
from exhubert_features.spec import CLASSES, SAMPLE_RATE
from hyperpyyaml import load_hyperpyyaml

import speechbrain as sb
from speechbrain.dataio.dataset import DynamicItemDataset
from speechbrain.dataio.sampler import ReproducibleWeightedRandomSampler
from speechbrain.utils.data_pipeline import provides, takes
from speechbrain.utils.distributed import run_on_main

CROPS = ("first", "centre", "random")


class SixClassBrain(sb.Brain):
    """Waveforms to logits of the six classes."""

    def compute_forward(self, batch, stage):
        """Run the batch through the model."""
        wavs, lengths = batch.to(self.device).sig
        return self.modules.exhubert(wavs, lengths).logits

    def compute_objectives(self, logits, batch, stage):
        """Compute the loss, and keep what was answered."""
        if stage is not sb.Stage.TRAIN:
            self.guesses += zip(
                batch.id, logits.argmax(dim=-1).tolist(), strict=True
            )
        return torch.nn.functional.cross_entropy(
            logits.float(), batch.target.data.squeeze(1)
        )

    def init_optimizers(self):
        """Make one optimizer for the encoder and one for the classifier."""
        head, encoder = [], []
        for name, weight in self.hparams.exhubert.named_parameters():
            if weight.requires_grad:
                new = "classifier" in name or "projector" in name
                (head if new else encoder).append(weight)
        self.optimizers_dict = {
            "head": self.hparams.head_optimizer(head),
            "encoder": self.hparams.encoder_optimizer(encoder),
        }
        for name, optimizer in self.optimizers_dict.items():
            self.checkpointer.add_recoverable(f"{name}_optimizer", optimizer)

    def on_stage_start(self, stage, epoch=None):
        """Forget the answers of the stage before."""
        self.guesses = []
        if stage is sb.Stage.TRAIN:
            self.sampler.set_epoch(
                epoch
            )  # Brain does so for samplers of its own only

    def on_stage_end(self, stage, stage_loss, epoch=None):
        """Log the stage; after validation keep the best checkpoint."""
        if stage is sb.Stage.TRAIN:
            self.train_loss = stage_loss
            return
        items = self.parts["valid" if stage is sb.Stage.VALID else "test"]
        recalls = {
            name: uar(*answers)
            for name, answers in by_corpus(items, self.guesses).items()
        }
        stats = {
            "loss": stage_loss,
            "UAR": float(np.mean(list(recalls.values()))),
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
            run_on_main(write_results, args=[self.hparams, items, self.guesses])


def by_corpus(items, guesses):
    """Truth and guess (N,) of each corpus' clips, and who spoke them."""
    rows = {}
    for key, guess in guesses:
        row = (int(items[key]["label6"]), guess, items[key]["speaker"] or key)
        rows.setdefault(items[key]["corpus"], []).append(row)
    return {
        name: [np.array(column) for column in zip(*found, strict=True)]
        for name, found in sorted(rows.items())
    }


def uar(truth, guess, speakers):
    """Mean recall of the classes that are there."""
    return float(
        unweighted_average_recall(confusion_matrix(truth, guess, len(CLASSES)))
    )


def write_results(hparams, items, guesses):
    """results.json: each corpus' UAR with its interval over speakers, and the mean."""
    corpora = {}
    for name, (truth, guess, speakers) in by_corpus(items, guesses).items():
        figures = classification_figures(
            truth, guess, groups=speakers, classes=CLASSES
        )
        corpora[name] = {
            "uar": figures["uar"].value,
            "interval": [figures["uar"].low, figures["uar"].high],
            "clips": len(truth),
            "speakers": len(set(speakers)),
            "absent_classes": list(absent_classes(truth, CLASSES)),
        }
    results = {
        "mean_uar": float(
            np.mean([found["uar"] for found in corpora.values()])
        ),
        "corpora": corpora,
        "held_out": hparams.held_out,
        "epoch": hparams.epoch_counter.current,
        "source": str(hparams.source),
    }
    content = (json.dumps(results, indent=1) + "\n").encode()
    publish(content, Path(hparams.output_folder) / "results.json", replace=True)


def export(hparams):
    """Write the model; that of an earlier run goes when this one is on the disk."""
    with temporary_folder(
        Path(hparams["output_folder"]) / "model", replace=True
    ) as folder:
        save_checkpoint(hparams["exhubert"].model, folder)


def balanced_weights(items, balance):
    """How often each clip is drawn: each corpus alike, and in it each of its classes.

    ``balance`` 1 is that, 0 draws every clip alike, and between them lies what is between.
    """
    there = Counter((item["corpus"], item["label6"]) for item in items.values())
    classes = Counter(corpus for corpus, _ in there)
    return [
        (classes[item["corpus"]] * there[item["corpus"], item["label6"]])
        ** -balance
        for item in items.values()
    ]


def cut(wave, samples, crop):
    """At most ``samples`` of a waveform (N,): its first, its centre, or any part of it."""
    spare = max(0, len(wave) - samples)
    if crop == "random":
        start = int(torch.randint(spare + 1, ()))
    else:
        start = spare // 2 if crop == "centre" else 0
    return wave[start : start + samples]


def make_dataset(items, crop, seconds):
    """Items to waveforms of ``seconds`` at most; shorter ones are padded by the preprocessing."""
    if crop not in CROPS:
        raise UsageError(
            f"the crop is {crop!r}", expected=f"one of {', '.join(CROPS)}"
        )

    @takes("wav", "start", "end")
    @provides("sig")
    def audio(wav, start, end):
        """Read the audio of a clip."""
        wave = read_audio(wav, start=start, end=end)
        return torch.from_numpy(cut(wave, int(seconds * SAMPLE_RATE), crop))

    @takes("label6")
    @provides("target")
    def target(number):
        """Give the index of its class."""
        return torch.tensor([int(number)])

    whole = {"start": 0.0, "end": None}
    items = {key: {**whole, **item} for key, item in items.items()}
    return DynamicItemDataset(items, [audio, target], ["id", "sig", "target"])


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
    corpora = parse_corpora(hparams["corpora"])
    manifests = Path(hparams["output_folder"]) / "manifests"
    run_on_main(
        prepare_emosetpp,
        kwargs={
            "corpora": corpora,
            "save_folder": manifests,
            "six_classes": hparams["six_classes"],
            "lenient": hparams["lenient"],
        },
    )
    parts = read_items(corpora, manifests, hparams["held_out"])
    run_on_main(
        write_parts, args=[parts, Path(hparams["output_folder"]) / "parts.json"]
    )
    crops = {
        "train": hparams["crop"],
        "valid": hparams["test_crop"],
        "test": hparams["test_crop"],
    }
    datasets = {
        part: make_dataset(items, crops[part], hparams["seconds"])
        for part, items in parts.items()
    }
    brain = SixClassBrain(
        modules=hparams["modules"],
        hparams=hparams,
        run_opts=run_opts,
        checkpointer=hparams["checkpointer"],
    )
    brain.parts = parts
    brain.sampler = ReproducibleWeightedRandomSampler(
        balanced_weights(parts["train"], hparams["balance"]),
        num_samples=hparams["clips_per_epoch"] or len(parts["train"]),
        replacement=True,
        seed=hparams["seed"],
    )
    options = hparams["dataloader_options"]
    brain.fit(
        hparams["epoch_counter"],
        datasets["train"],
        datasets["valid"],
        train_loader_kwargs={**options, "sampler": brain.sampler},
        valid_loader_kwargs=options,
    )
    brain.evaluate(datasets["test"], max_key="UAR", test_loader_kwargs=options)
    run_on_main(export, args=[hparams])
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()  # else gloo may abort while Python shuts down
