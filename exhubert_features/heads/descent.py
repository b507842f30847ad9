"""Gradient descent for the heads that need it, seeded, with early stopping on held-out clips."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

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
        self.wanted = torch.from_numpy(labels.wanted)
        self.loss = options.loss
        self.class_weights: Tensor | None = None
        if labels.task == "classification":
            mass = self.wanted[rows].sum(dim=0)
            balanced = torch.where(mass > 0, 1 / mass.clamp(min=1e-6), 0.0)
            corpus = torch.ones_like(mass)
            self.class_weights = balanced if options.prior == "balanced" else corpus

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
        wanted = self.wanted[rows]
        if self.class_weights is not None:  # cross-entropy, with shares of classes as well
            weights = wanted * self.class_weights
            return -(weights * outputs.log_softmax(dim=1)).sum() / weights.sum()
        known = wanted.isfinite()
        errors = (outputs - wanted) / self.head.target_scale
        if self.loss == "mse":
            return errors[known].square().mean()
        return _concordance_loss(outputs, wanted, known)


def _concordance_loss(outputs: Tensor, wanted: Tensor, known: Tensor) -> Tensor:
    """1 - CCC of values and truth (n, T), on average over the targets; ``known`` as the rest."""
    count = known.sum(dim=0).clamp(min=1)
    guess, truth = (torch.where(known, values, 0.0) for values in (outputs, wanted))
    centred = [torch.where(known, v - v.sum(dim=0) / count, 0.0) for v in (guess, truth)]
    covariance = (centred[0] * centred[1]).sum(dim=0) / count
    spread = (centred[0].square() + centred[1].square()).sum(dim=0) / count
    bias = (guess.sum(dim=0) - truth.sum(dim=0)) / count
    return (1 - 2 * covariance / (spread + bias.square()).clamp(min=1e-12)).mean()
