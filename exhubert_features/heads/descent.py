"""Gradient descent for the heads that need it, seeded, with early stopping on held-out clips."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import LabelError
from ..evaluation import Labels
from .labelled import LabelledFeatures
from .modules import Head
from .options import FitOptions

LAYER_WEIGHT_RATE = 10


def descend(
    head: Head,
    features: LabelledFeatures,
    labels: Labels,
    rows: np.ndarray,
    epochs: int,
    options: FitOptions,
) -> None:
    """Fit a head on the clips at ``rows`` for a number of epochs."""
    with torch.random.fork_rng(devices=[]):
        descent = _Descent(head, features, labels, rows, options)
        for _ in range(epochs):
            descent.epoch()


def descend_until_worse(
    head: Head,
    features: LabelledFeatures,
    labels: Labels,
    rows: np.ndarray,
    held: np.ndarray,
    options: FitOptions,
) -> tuple[int, np.ndarray]:
    """Epochs with the least loss on the clips at ``held``, and their outputs (n, C) then."""
    best_loss, best_epoch, best_outputs = np.inf, 0, np.empty(0)
    with torch.random.fork_rng(devices=[]):
        descent = _Descent(head, features, labels, rows, options)
        for epoch in range(1, options.epochs + 1):
            descent.epoch()
            loss, outputs = descent.held_loss(held)
            if loss < best_loss:
                best_loss, best_epoch, best_outputs = loss, epoch, outputs
            if epoch - best_epoch >= options.patience:
                break
    if not best_epoch:
        raise LabelError(
            "training did not converge: the loss is not a number",
            remedy="Lower --learning-rate, and look for extreme values with `exhubert verify`",
        )
    return best_epoch, best_outputs


class _Descent:
    """A head on its way; call inside ``fork_rng``, for dropout draws from the global state."""

    def __init__(
        self,
        head: Head,
        features: LabelledFeatures,
        labels: Labels,
        rows: np.ndarray,
        options: FitOptions,
    ) -> None:
        torch.manual_seed(options.seed)
        self.head, self.features, self.rows = head, features, rows
        self.batch_size = options.batch_size
        layer_weights = [p for name, p in head.named_parameters() if name == "layer_logits"]
        others = [p for name, p in head.named_parameters() if name != "layer_logits"]
        rate = options.learning_rate
        groups = [{"params": others, "lr": rate, "weight_decay": options.weight_decay}]
        if layer_weights:
            # Softmax weights of 49 layers must travel far from equal ones to single one out.
            fast = LAYER_WEIGHT_RATE * rate
            groups.append({"params": layer_weights, "lr": fast, "weight_decay": 0.0})
        self.optimiser = torch.optim.AdamW(groups)
        self.values = torch.from_numpy(labels.values)
        self.class_weights: Tensor | None = None
        if labels.task == "classification" and options.prior == "balanced":
            counts = np.bincount(labels.values[rows], minlength=len(labels.classes))
            balanced = counts.sum() / np.maximum(counts, 1) / np.count_nonzero(counts)
            self.class_weights = torch.from_numpy(balanced).float()

    def epoch(self) -> None:
        """One pass over the training clips in a new order."""
        self.head.train()
        order = self.rows[torch.randperm(len(self.rows)).numpy()]
        for start in range(0, len(order), self.batch_size):
            part = order[start : start + self.batch_size]
            loss = self._loss(self.head(*self.features.batch(part)), part)
            self.optimiser.zero_grad()
            loss.backward()
            self.optimiser.step()

    @torch.inference_mode()
    def held_loss(self, rows: np.ndarray) -> tuple[float, np.ndarray]:
        """Loss on other clips, and the outputs (n, C)."""
        self.head.eval()
        outputs = torch.cat([self.head(*batch) for batch in self.features.batches(rows)])
        return float(self._loss(outputs, rows)), outputs.numpy()

    def _loss(self, outputs: Tensor, rows: np.ndarray) -> Tensor:
        truth = self.values[rows]
        if not truth.is_floating_point():
            return nn.functional.cross_entropy(outputs, truth, self.class_weights)
        error = (outputs[:, 0] - truth.float()) / self.head.target_scale
        return error.square().mean()
