"""Fit one head on some clips of a store; how hard or how long, the inner folds decide."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import median, mode
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from ..evaluation import Labels
from ..evaluation.outcome import main_score
from ..evaluation.splits import Fold
from ..store import FeatureStore
from . import descent
from .features import Batch, FeatureReader, HeadConfig
from .linear import NEVER
from .modules import Head, LinearHead, build_head

ROWS_AT_ONCE = 256  # 51 MB of all layers, so that a pass over a store stays small


@dataclass(frozen=True, kw_only=True)
class FitOptions:
    """How heads are fitted."""

    epochs: int = 60  # at most; early stopping usually ends after 10 to 30
    patience: int = 6  # epochs without a better loss on the held-out clips
    batch_size: int = 64
    learning_rate: float = 1e-3
    weight_decay: float = 1e-2
    hidden: int = 128  # see HeadConfig
    dropout: float = 0.2
    penalties: tuple[float, ...] = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1)  # C of the linear head
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What the inner folds of a fold chose, and the outputs (N, C) they chose it by."""

    setting: dict[str, Any]
    inner_outputs: np.ndarray  # NaN for clips that were not held out


class Features:
    """A store's features for a head, by position among the labelled clips."""

    def __init__(self, store: FeatureStore, labels: Labels, config: HeadConfig) -> None:
        self.config = config
        self._store = store
        self._ids = labels.ids.tolist()
        found = store.fingerprint
        self._reader = FeatureReader(config, trained=found, found=found)
        self._pooled: Tensor | None = None  # (N, L, P, D) as stored: half the memory of float32
        if config.pools:
            shape = (len(labels), len(config.layers), len(config.pools), config.width)
            self._pooled = torch.empty(shape, dtype=getattr(torch, found.spec.dtype))
            for i, layer in enumerate(config.layers):
                for j, pool in enumerate(config.pools):
                    matrix = store.matrix(layer=layer, pool=pool)[labels.rows]
                    self._pooled[:, i, j] = torch.from_numpy(matrix)

    def batch(self, rows: np.ndarray) -> Batch:
        """Features of the clips at some positions, in float32."""
        if self._pooled is not None:
            return Batch(self._pooled[torch.from_numpy(rows)].float(), None)
        return self._reader.batch([self._store[self._ids[row]] for row in rows])

    def batches(self, rows: np.ndarray) -> Iterator[Batch]:
        """All of ``rows`` in order, a few at a time."""
        for start in range(0, len(rows), ROWS_AT_ONCE):
            yield self.batch(rows[start : start + ROWS_AT_ONCE])

    def summary(self, rows: np.ndarray) -> np.ndarray:
        """(n, D) for a picture: means over layers and pools, or over layers and frames."""
        parts = []
        for batch in self.batches(rows):
            features = batch.features.mean(dim=1)
            count = features.shape[1] if batch.lengths is None else batch.lengths[:, None]
            parts.append((features.sum(dim=1) / count).numpy())
        return np.concatenate(parts)


def choose(features: Features, labels: Labels, fold: Fold, options: FitOptions) -> Choice:
    """Penalty (linear) or number of epochs (the others), by the inner folds of one fold."""
    if features.config.kind == "linear":
        return _choose_penalty(features, labels, fold, options)
    outputs = np.full((len(labels), features.config.outputs), np.nan, dtype=np.float32)
    epochs = []
    for inner in fold.inner:
        head = _prepared(features, labels, inner.train, options)
        count, outputs[inner.held] = descent.train_until_worse(
            head, features, labels, inner.train, inner.held, options
        )
        epochs.append(count)
    return Choice(setting={"epochs": round(median(epochs))}, inner_outputs=outputs)


def agree(settings: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """One setting for the final head: what most folds chose, and the median of the epochs."""
    return {
        key: round(median(values)) if key == "epochs" else mode(values)
        for key in settings[0]
        for values in [[setting[key] for setting in settings]]
    }


def fit(
    features: Features,
    labels: Labels,
    rows: np.ndarray,
    setting: dict[str, Any],
    options: FitOptions,
) -> Head:
    """A head fitted on the clips at ``rows``, all of them."""
    head = _prepared(features, labels, rows, options)
    if isinstance(head, LinearHead):
        _fit_linear(head, _standardised(head, features, rows), labels, rows, setting["C"])
    else:
        descent.train(head, features, labels, rows, setting["epochs"], options)
    return head.eval()


@torch.inference_mode()
def outputs_of(head: Head, features: Features, rows: np.ndarray) -> np.ndarray:
    """Logits or values (n, C) of a head for the clips at ``rows``."""
    head.eval()
    return np.concatenate([head(*batch).numpy() for batch in features.batches(rows)])


def _prepared(features: Features, labels: Labels, rows: np.ndarray, options: FitOptions) -> Head:
    """A fresh head, standardised on ``rows`` only."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(options.seed)
        head = build_head(features.config)
    head.set_standardisation(*_mean_and_deviation(features, rows, head.mean.shape))
    if labels.task == "regression":
        values = labels.values[rows]
        head.target_mean.fill_(float(values.mean()))
        head.target_scale.fill_(float(values.std()) or 1.0)
    return head


def _mean_and_deviation(
    features: Features, rows: np.ndarray, shape: torch.Size
) -> tuple[Tensor, Tensor]:
    """Both shaped (L, P, D), over clips; or (F, 1, D), over the clips' frames."""
    count = 0
    total = torch.zeros(shape, dtype=torch.float64)
    square = torch.zeros(shape, dtype=torch.float64)
    for batch in features.batches(rows):
        values = batch.features.double()
        if batch.lengths is not None:  # the frames of padding are zero and add nothing
            values = values.transpose(1, 2).flatten(0, 1)[:, :, None]
        count += len(values) if batch.lengths is None else int(batch.lengths.sum())
        total += values.sum(dim=0)
        square += values.square().sum(dim=0)
    mean = total / count
    return mean.float(), (square / count - mean.square()).clamp(min=0).sqrt().float()


def _choose_penalty(features: Features, labels: Labels, fold: Fold, options: FitOptions) -> Choice:
    shape = (len(options.penalties), len(labels), features.config.outputs)
    outputs = np.full(shape, np.nan, dtype=np.float32)
    for inner in fold.inner:
        head = cast(LinearHead, _prepared(features, labels, inner.train, options))
        standardised = _standardised(head, features, inner.train)
        for position, penalty in enumerate(options.penalties):
            _fit_linear(head, standardised, labels, inner.train, penalty)
            outputs[position, inner.held] = outputs_of(head, features, inner.held)
    held = np.concatenate([inner.held for inner in fold.inner])
    scores = [main_score(labels, held, tried[held]) for tried in outputs]
    best = int(np.argmax(scores))
    return Choice(setting={"C": options.penalties[best]}, inner_outputs=outputs[best])


def _standardised(head: Head, features: Features, rows: np.ndarray) -> np.ndarray:
    """(n, L·P·D) as scikit-learn takes them."""
    return ((features.batch(rows).features - head.mean) / head.deviation).flatten(1).numpy()


def _fit_linear(
    head: LinearHead, standardised: np.ndarray, labels: Labels, rows: np.ndarray, penalty: float
) -> None:
    """Logistic or ridge regression by scikit-learn, its coefficients put into the head."""
    from sklearn.linear_model import LogisticRegression, Ridge

    values = labels.values[rows]
    if labels.task == "regression":
        scaled = (values - head.target_mean.item()) / head.target_scale.item()
        ridge = Ridge(alpha=1 / penalty).fit(standardised, scaled)
        present, weight, bias = np.array([0]), ridge.coef_[None], np.array([ridge.intercept_])
    else:
        # Balanced weights: every class counts alike, as it does in UAR.
        logistic = LogisticRegression(C=penalty, class_weight="balanced", max_iter=300, tol=1e-3)
        logistic.fit(standardised, values)
        present, weight, bias = logistic.classes_, logistic.coef_, logistic.intercept_
        if len(weight) == 1:  # two classes: scikit-learn keeps the second one's difference
            weight, bias = np.concatenate([-weight, weight]) / 2, np.array([-bias, bias])[:, 0] / 2
    with torch.no_grad():
        head.linear.weight.zero_()
        head.linear.bias.fill_(NEVER)
        head.linear.weight[present] = torch.from_numpy(weight).float()
        head.linear.bias[present] = torch.from_numpy(bias).float()
