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
from .linear import NEVER, SHRINKAGES, BlockSums, LinearMap, alike_columns
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
        _put(head, fitted, [setting.get(name, 1.0) for name in _stretch_names(labels)])
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
        mean, scale = np.nanmean(values, axis=0), np.nanstd(values, axis=0)
        head.target_mean.copy_(torch.as_tensor(mean))
        head.target_scale.copy_(torch.as_tensor(np.where(scale > 0, scale, 1.0)))
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
    names = _stretch_names(labels)
    stretches = np.ones((len(grid), len(names)))
    for inner in fold.inner:
        head = cast(LinearHead, _prepared(features, labels, inner.train, options))
        fits = _linear_fits(head, features, labels, inner.train, grid, options)
        for position, fitted in enumerate(fits):
            _put(head, fitted)
            outputs[position, inner.held] = outputs_of(head, features, inner.held)
    held = np.concatenate([inner.held for inner in fold.inner])
    if labels.task == "regression":
        for position, tried in enumerate(outputs):
            stretches[position], tried[held] = stretched(tried[held], labels.wanted[held])
    scores = [main_score(labels, held, tried[held]) for tried in outputs]
    best = best_of(scores, [loss(labels, held, tried[held]) for tried in outputs])
    setting = {name: grid[best]} | dict(zip(names, stretches[best].tolist(), strict=True))
    return Choice(setting=setting, inner_outputs=outputs[best])


def _stretch_names(labels: Labels) -> list[str]:
    """Names in a setting of how far the value of each target is stretched."""
    several = len(labels.targets) > 1
    return [f"stretch {name}" if several else "stretch" for name in labels.targets]


def stretched(outputs: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How far (T,) held-out values (n, T) must spread to spread as the truth does, and they so.

    A truth that is NaN is not known. The least squares error makes predictions timid: where they
    correlate by r with the truth they spread r times as far, which costs CCC (.40 instead of .50
    at r = .5) and is no better knowledge. Never more than threefold: beyond, there is little but
    noise to stretch.
    """
    known = np.where(np.isfinite(truth), outputs, np.nan)
    middle, spread = np.nanmean(known, axis=0), np.nanstd(known, axis=0)
    stretch = np.clip(np.nanstd(truth, axis=0) / np.maximum(spread, 1e-12), 1 / 3, 3)
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
    wanted = torch.from_numpy(labels.wanted[rows])
    if labels.task == "classification":
        fit_maps = _discriminants if head.config.kind == "discriminant" else _logistics
        return fit_maps(standardised, wanted, grid, options)
    wanted = (wanted - head.target_mean) / head.target_scale
    fit_columns = _closed_ridges if head.config.kind == "discriminant" else _ridges
    maps = [LinearMap(weight=torch.empty(wanted.shape[1], standardised.shape[1]),
                      bias=torch.empty(wanted.shape[1])) for _ in grid]  # fmt: skip
    for columns in alike_columns(wanted):
        known = wanted[:, columns[0]].isfinite()
        found = fit_columns(standardised[known], wanted[known][:, columns], grid)
        for whole, part in zip(maps, found, strict=True):
            whole.weight[columns], whole.bias[columns] = part.weight, part.bias
    return maps


def _discriminants(
    standardised: Tensor, wanted: Tensor, grid: Sequence[float], options: FitOptions
) -> list[LinearMap]:
    """Fit as the probe does, by linear discriminant analysis."""
    sums = BlockSums(standardised, wanted, [len(wanted)], classification=True)
    maps = [sums.for_raw_features(fitted) for fitted in sums.fit([0], grid)]
    if options.prior == "corpus":  # logits are comparable up to the log priors
        shares = wanted.mean(dim=0).clamp(min=1e-12).log()
        maps = [LinearMap(weight=m.weight, bias=m.bias + shares.clamp(min=NEVER)) for m in maps]
    return maps


def _closed_ridges(standardised: Tensor, wanted: Tensor, grid: Sequence[float]) -> list[LinearMap]:
    """Fit as the probe does, by ridge regression in closed form."""
    sums = BlockSums(standardised, wanted, [len(wanted)], classification=False)
    return [sums.for_raw_features(fitted) for fitted in sums.fit([0], grid)]


def _ridges(standardised: Tensor, wanted: Tensor, grid: Sequence[float]) -> list[LinearMap]:
    from sklearn.linear_model import Ridge

    maps = []
    for penalty in grid:
        ridge = Ridge(alpha=1 / penalty).fit(standardised.numpy(), wanted.numpy())
        weight, bias = torch.from_numpy(ridge.coef_), torch.as_tensor(ridge.intercept_)
        maps.append(LinearMap(weight=weight.reshape(len(bias), -1), bias=bias))
    return maps


def _logistics(
    standardised: Tensor, wanted: Tensor, grid: Sequence[float], options: FitOptions
) -> list[LinearMap]:
    """Logistic regressions by scikit-learn, each begun where the one before ended.

    A clip with shares of several classes is there once for each of them, weighing its share.
    """
    from sklearn.linear_model import LogisticRegression

    clips, truth = wanted.nonzero(as_tuple=True)
    weights = wanted[clips, truth]
    if options.prior == "balanced":
        mass = wanted.sum(dim=0)
        weights = weights * (mass.sum() / mass / (mass > 0).sum())[truth]
    features = standardised[clips].numpy()
    logistic = LogisticRegression(max_iter=300, tol=1e-3, warm_start=True)
    maps = []
    for penalty in grid:
        logistic.set_params(C=penalty)
        logistic.fit(features, truth.numpy(), sample_weight=weights.numpy())
        weight, bias = logistic.coef_, logistic.intercept_
        if len(weight) == 1:  # two classes: scikit-learn keeps the second one's difference
            weight, bias = np.concatenate([-weight, weight]) / 2, np.array([-bias, bias])[:, 0] / 2
        whole = torch.zeros(wanted.shape[1], weight.shape[1])
        whole[logistic.classes_] = torch.from_numpy(weight).float()
        offsets = torch.full((wanted.shape[1],), NEVER)
        offsets[logistic.classes_] = torch.from_numpy(bias).float()
        maps.append(LinearMap(weight=whole, bias=offsets))
    return maps


def _put(head: LinearHead, fitted: LinearMap, stretches: Sequence[float] = ()) -> None:
    """Give a head its map; standardised values have mean 0, about which they are stretched."""
    factors = torch.tensor(stretches or [1.0])
    with torch.no_grad():
        head.linear.weight.copy_(fitted.weight * factors[:, None])
        head.linear.bias.copy_(fitted.bias * factors)
