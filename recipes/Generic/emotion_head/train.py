#!/usr/bin/env python3
"""Train a head for an emotion task on cached ExHuBERT features.

> python train.py hparams/linear.yaml --store features/ --labels labels.csv

mlp.yaml, weighted.yaml and attention.yaml are overlays: they name linear.yaml as their base
and say what differs. Training, validation and test speakers are different people; the epoch
is chosen by the validation speakers. The head ends up in <output_folder>/head, ready for
`exhubert predict --head`.
"""

import sys
from pathlib import Path

import ruamel.yaml
import torch
from exhubert_features import FeatureStore, LabelOptions
from exhubert_features.evaluation import Labels
from exhubert_features.evaluation.metrics import (
    confusion_matrix,
    unweighted_average_recall,
)
from exhubert_features.evaluation.splits import make_protocol
from exhubert_features.heads import (
    FeatureReader,
    HeadConfig,
    build_head,
    save_head,
)
from exhubert_features.spec import parse_layers, resolve_layers
from hyperpyyaml import load_hyperpyyaml

import speechbrain as sb
from speechbrain.dataio.dataset import DynamicItemDataset
from speechbrain.dataio.encoder import CategoricalEncoder
from speechbrain.utils.data_pipeline import provides, takes


class HeadBrain(sb.Brain):
    """Cached features to class logits."""

    def compute_forward(self, batch, stage):
        """Run the batch through the model."""
        features, lengths = self.hparams.reader.batch(batch.row)
        return self.modules.head(features.to(self.device), lengths)

    def compute_objectives(self, logits, batch, stage):
        """Compute the loss, and keep what was answered."""
        truth = batch.label.data.squeeze(1)
        if stage is not sb.Stage.TRAIN:
            self.truth.append(truth)
            self.predictions.append(logits.argmax(dim=-1).cpu())
        return torch.nn.functional.cross_entropy(logits, truth.to(self.device))

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
        counts = confusion_matrix(
            truth, predictions, len(self.modules.head.config.classes)
        )
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


def read_hparams(path, overrides):
    """Load a YAML; one with a ``base`` is an overlay: its other lines replace the base's."""
    yaml = ruamel.yaml.YAML()
    replaced = yaml.load(overrides) or {}
    overlay = yaml.load(path.read_text())
    if "base" in overlay:
        path = path.parent / overlay["base"]
        del overlay["base"]
        replaced = {**overlay, **replaced}
    with path.open() as stream:
        return load_hyperpyyaml(stream, replaced), path, replaced


def read_labels(store, hparams):
    """Rows of the store with their labels and speakers."""
    options = LabelOptions(
        task="classification", drop_unlabelled=hparams["drop_unlabelled"]
    )
    return Labels.from_store(
        store,
        target=hparams["target"],
        group=hparams["group"],
        labels=hparams["labels"] or None,
        split=hparams["split"],
        options=options,
    )


def make_datasets(store, labels, hparams):
    """Train, valid and test sets out of one store, with no speaker in two of them."""
    fold = make_protocol(labels, seed=hparams["seed"]).folds[hparams["fold"]]
    parts = {
        "train": fold.inner[0].train,
        "valid": fold.inner[0].held,
        "test": fold.test,
    }
    encoder = CategoricalEncoder()
    encoder.load_or_create(
        Path(hparams["save_folder"]) / "label_encoder.txt",
        from_iterables=[labels.classes],
    )
    encoder.expect_len(len(labels.classes))

    @takes("id")
    @provides("row")
    def row(name):
        """Give the row of the store."""
        return store[name]

    @takes("class")
    @provides("label")
    def label(name):
        """Give the index of its class."""
        return encoder.encode_label_torch(name)

    def dataset(positions):
        """Make the dataset of some rows."""
        items = {
            labels.ids[i]: {"class": labels.classes[labels.values[i]]}
            for i in positions
        }
        return DynamicItemDataset(items, [row, label], ["id", "row", "label"])

    return {name: dataset(positions) for name, positions in parts.items()}


def make_head(store, labels, hparams):
    """The head of the YAML's kind for the features of this store."""
    stored = store.layers if hparams["pools"] else store.frame_layers
    choice = str(hparams["layers"])
    states = store.fingerprint.model.num_states
    config = HeadConfig(
        kind=hparams["kind"],
        target=hparams["target"],
        classes=labels.classes,
        layers=stored
        if choice == "all"
        else resolve_layers(parse_layers(choice), states),
        pools=tuple(hparams["pools"]),
        width=store.fingerprint.model.hidden_size,
        hidden=hparams["hidden"],
        dropout=hparams["dropout"],
    )
    head = build_head(config)
    head.fingerprint = store.fingerprint
    return head


def standardise(head, reader, rows):
    """Teach the head mean and deviation of the training clips, and of no others."""
    count, total, squares = 0, 0.0, 0.0
    for row in rows:
        features = (
            reader.batch([row]).features[0].double()
        )  # (L, P, D) or (F, T, D)
        if not head.config.pools:
            count += features.shape[1]
            total = total + features.sum(dim=1, keepdim=True)
            squares = squares + features.square().sum(dim=1, keepdim=True)
        else:
            count, total, squares = (
                count + 1,
                total + features,
                squares + features.square(),
            )
    mean = total / count
    head.set_standardisation(
        mean, (squares / count - mean.square()).clamp(min=0).sqrt()
    )


if __name__ == "__main__":
    hparams_file, run_opts, overrides = sb.parse_arguments(sys.argv[1:])
    hparams, hparams_file, overrides = read_hparams(
        Path(hparams_file), overrides
    )
    sb.create_experiment_directory(
        experiment_directory=hparams["output_folder"],
        hyperparams_to_save=hparams_file,
        overrides=overrides,
    )
    store = FeatureStore(hparams["store"])
    labels = read_labels(store, hparams)
    datasets = make_datasets(store, labels, hparams)
    head = make_head(store, labels, hparams)
    hparams["reader"] = FeatureReader(
        head.config, trained=head.fingerprint, found=store.fingerprint
    )
    standardise(
        head,
        hparams["reader"],
        (store[name] for name in datasets["train"].data_ids),
    )
    hparams["checkpointer"].add_recoverable("head", head)
    brain = HeadBrain(
        modules={"head": head},
        opt_class=hparams["opt_class"],
        hparams=hparams,
        run_opts=run_opts,
        checkpointer=hparams["checkpointer"],
    )
    options = {
        "batch_size": hparams["batch_size"],
        "num_workers": hparams["num_workers"],
    }
    brain.fit(
        hparams["epoch_counter"],
        datasets["train"],
        datasets["valid"],
        train_loader_kwargs={**options, "shuffle": True},
        valid_loader_kwargs=options,
    )
    brain.evaluate(datasets["test"], max_key="UAR", test_loader_kwargs=options)
    save_head(head, Path(hparams["output_folder"]) / "head")
