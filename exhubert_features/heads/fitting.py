"""Fit one head on some clips of a store; how hard or how long, the inner folds decide."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from ..evaluation import Labels
from ..evaluation.outputs import best_of, loss, main_score
from ..evaluation.splits import Fold
from . import descent
from .labelled import LabelledFeatures
from .linear import NEVER, SHRINKAGES, BlockSums, LinearMap
from .modules import Head, LinearHead, build_head
from .options import Choice, FitOptions


def choose(features: LabelledFeatures, labels: Labels, fold: Fold, options: FitOptions) -> Choice:
    """Choose the strength of a linear map, or the epochs of others, by one fold's inner folds."""
    if features.config.kind == "linear":
        return _choose_strength(features, labels, fold, options, "C", options.penalties)
    if features.config.kind == "discriminant":
        return _choose_strength(features, labels, fold, options, "shrinkage", SHRINKAGES)
    outputs = np.full((len(labels), features.config.outputs), np.nan, dtype=np.float32)
    epochs = []
    for inner in fold.inner:
        head = _prepared(features, labels, inner.train, options)
        count, outputs[inner.held] = descent.descend_until_worse(
            head, features, labels, inner.train, inner.held, options
        )
        epochs.append(count)
    return Choice(setting={"epochs": round(median(epochs))}, inner_outputs=outputs)


def fit(
    features: LabelledFeatures,
    labels: Labels,
    rows: np.ndarray,
    setting: dict[str, Any],
    options: FitOptions,
) -> Head:
    """Fit a head on the clips at ``rows``, all of them."""
    head = _prepared(features, labels, rows, options)
    if isinstance(head, LinearHead):
        strength = setting["shrinkage" if features.config.kind == "discriminant" else "C"]
        (fitted,) = _linear_fits(head, features, labels, rows, [strength], options)
        _put(head, fitted, setting.get("stretch", 1.0))
    else:
        descent.descend(head, features, labels, rows, setting["epochs"], options)
    return head.eval()


@torch.inference_mode()
def outputs_of(head: Head, features: LabelledFeatures, rows: np.ndarray) -> np.ndarray:
    """Return logits or values (n, C) of a head for the clips at ``rows``."""
    head.eval()
    return np.concatenate([head(*batch).numpy() for batch in features.batches(rows)])


def _prepared(
    features: LabelledFeatures, labels: Labels, rows: np.ndarray, options: FitOptions
) -> Head:
    """Build a fresh head, standardised on ``rows`` only."""
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
    features: LabelledFeatures, rows: np.ndarray, shape: torch.Size
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


def _choose_strength(
    features: LabelledFeatures,
    labels: Labels,
    fold: Fold,
    options: FitOptions,
    name: str,
    grid: Sequence[float],
) -> Choice:
    """Find the strength of a linear map that scores best on the inner folds."""
    shape = (len(grid), len(labels), features.config.outputs)
    outputs = np.full(shape, np.nan, dtype=np.float32)
    stretches = np.ones(len(grid))
    for inner in fold.inner:
        head = cast(LinearHead, _prepared(features, labels, inner.train, options))
        fits = _linear_fits(head, features, labels, inner.train, grid, options)
        for position, fitted in enumerate(fits):
            _put(head, fitted)
            outputs[position, inner.held] = outputs_of(head, features, inner.held)
    held = np.concatenate([inner.held for inner in fold.inner])
    if labels.task == "regression":
        for position, tried in enumerate(outputs):
            stretches[position], tried[held] = _stretched(tried[held], labels.values[held])
    scores = [main_score(labels, held, tried[held]) for tried in outputs]
    best = best_of(scores, [loss(labels, held, tried[held]) for tried in outputs])
    setting = {name: grid[best]}
    if labels.task == "regression":
        setting["stretch"] = float(stretches[best])
    return Choice(setting=setting, inner_outputs=outputs[best])


def _stretched(outputs: np.ndarray, truth: np.ndarray) -> tuple[float, np.ndarray]:
    """How far held-out values (n, 1) must spread to spread as the truth does, and they so.

    The least squares error makes predictions timid: where they correlate by r with the truth
    they spread r times as far, which costs CCC (.40 instead of .50 at r = .5) and is no better
    knowledge. Never more than threefold: beyond, there is little but noise to stretch.
    """
    middle = outputs.mean()
    stretch = float(np.clip(truth.std() / max(float(outputs.std()), 1e-12), 1 / 3, 3))
    return stretch, middle + stretch * (outputs - middle)


def _linear_fits(
    head: LinearHead,
    features: LabelledFeatures,
    labels: Labels,
    rows: np.ndarray,
    grid: Sequence[float],
    options: FitOptions,
) -> list[LinearMap]:
    """One map of the head's standardised features per strength."""
    standardised = ((features.batch(rows).features - head.mean) / head.deviation).flatten(1)
    targets: np.ndarray = labels.values[rows]
    if labels.task == "regression":
        targets = (targets - head.target_mean.item()) / head.target_scale.item()
    if head.config.kind == "discriminant":
        return _discriminants(standardised, targets, len(labels.classes), grid, options)
    if labels.task == "regression":
        return _ridges(standardised.numpy(), targets, grid)
    return _logistics(standardised.numpy(), targets, len(labels.classes), grid, options)


def _discriminants(
    standardised: Tensor,
    targets: np.ndarray,
    classes: int,
    grid: Sequence[float],
    options: FitOptions,
) -> list[LinearMap]:
    """Fit as the probe does: linear discriminant analysis, or ridge in closed form."""
    values = torch.from_numpy(targets)
    wanted = torch.eye(classes)[values] if classes else values.float()[:, None]
    sums = BlockSums(standardised, wanted, [len(targets)], classification=classes > 0)
    maps = [sums.for_raw_features(fitted) for fitted in sums.fit([0], grid)]
    if classes and options.prior == "corpus":  # logits are comparable up to the log priors
        shares = wanted.mean(dim=0).clamp(min=1e-12).log()
        maps = [LinearMap(weight=m.weight, bias=m.bias + shares.clamp(min=NEVER)) for m in maps]
    return maps


def _ridges(
    standardised: np.ndarray, targets: np.ndarray, grid: Sequence[float]
) -> list[LinearMap]:
    from sklearn.linear_model import Ridge

    maps = []
    for penalty in grid:
        ridge = Ridge(alpha=1 / penalty).fit(standardised, targets)
        weight, bias = torch.from_numpy(ridge.coef_[None]), torch.tensor([ridge.intercept_])
        maps.append(LinearMap(weight=weight, bias=bias))
    return maps


def _logistics(
    standardised: np.ndarray,
    targets: np.ndarray,
    classes: int,
    grid: Sequence[float],
    options: FitOptions,
) -> list[LinearMap]:
    """Logistic regressions by scikit-learn, each begun where the one before ended."""
    from sklearn.linear_model import LogisticRegression

    weights = "balanced" if options.prior == "balanced" else None
    logistic = LogisticRegression(class_weight=weights, max_iter=300, tol=1e-3, warm_start=True)
    maps = []
    for penalty in grid:
        logistic.set_params(C=penalty).fit(standardised, targets)
        weight, bias = logistic.coef_, logistic.intercept_
        if len(weight) == 1:  # two classes: scikit-learn keeps the second one's difference
            weight, bias = np.concatenate([-weight, weight]) / 2, np.array([-bias, bias])[:, 0] / 2
        whole = torch.zeros(classes, weight.shape[1])
        whole[logistic.classes_] = torch.from_numpy(weight).float()
        offsets = torch.full((classes,), NEVER)
        offsets[logistic.classes_] = torch.from_numpy(bias).float()
        maps.append(LinearMap(weight=whole, bias=offsets))
    return maps


def _put(head: LinearHead, fitted: LinearMap, stretch: float = 1.0) -> None:
    """Give a head its map; standardised values have mean 0, about which they are stretched."""
    with torch.no_grad():
        head.linear.weight.copy_(fitted.weight * stretch)
        head.linear.bias.copy_(fitted.bias * stretch)
