"""A linear probe on every layer, each choice made on inner folds, in closed form.

What a layer knows is what a linear map can read from it on speakers it was not fitted to.
See ``linear`` for the fits and why they are cheap enough to nest.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from statistics import mode

import numpy as np
import torch
from torch import Tensor

from ..evaluation import Labels
from ..evaluation.outcome import Outcome
from ..evaluation.outputs import best_of, fold_temperature, loss, main_score
from ..evaluation.splits import Protocol
from ..report import LayerCurve
from ..store import FeatureStore
from .labelled import standardise_groups
from .linear import SHRINKAGES, BlockSums, alike_columns

LAYERS_AT_ONCE = 8  # about 150 MB each for 5,000 clips
WEIGHT_DECAY = 1e-2  # pulls layer weights towards equal ones where nothing speaks for a layer

# Outer outputs (N, C), inner outputs (K, N, C), inner scores, losses and shrinkages (K,).
_LayerFit = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]


@dataclass(frozen=True, kw_only=True)
class Probe:
    """N labelled clips, L layers, K folds, C outputs (one a value for regression).

    ``outputs`` (L, N, C) are of the outer fits, each clip's from the fold it is tested in;
    ``inner_outputs`` (L, K, N, C), ``inner_scores`` and ``inner_losses`` (L, K) of the inner
    folds, NaN for clips outside; ``shrinkages`` (L, K) were chosen by them. ``weighted`` (N, C)
    combines all layers' probes with ``weights`` (K, L), learned on the inner folds too.
    """

    layers: tuple[int, ...]
    outputs: np.ndarray
    inner_outputs: np.ndarray
    inner_scores: np.ndarray
    inner_losses: np.ndarray
    shrinkages: np.ndarray
    weighted: np.ndarray
    weights: np.ndarray

    @property
    def chosen(self) -> np.ndarray:
        """Position of the best layer by the inner folds, for each outer fold (K,)."""
        pairs = zip(self.inner_scores.T, self.inner_losses.T, strict=True)
        return np.array([best_of(scores, losses) for scores, losses in pairs])

    @property
    def best(self) -> int:
        """The layer that the inner folds chose most often."""
        return self.layers[mode(self.chosen.tolist())]


def run_probe(
    store: FeatureStore,
    labels: Labels,
    protocol: Protocol,
    *,
    layers: Sequence[int] | None = None,
    pool: str | None = None,
    per_group: bool = False,
    on_progress: Callable[[int, int], None] | None = None,
) -> Probe:
    """Probe layers of a store.

    Parameters
    ----------
    layers
        Hidden-state ids; None is all stored.
    pool
        One of the store's pools; None is its first.
    per_group
        Standardise the features of each group by itself.
    on_progress
        Called with layers done and layers in all.
    """
    layers = store.layers if layers is None else tuple(layers)
    plan = _Plan(labels, protocol)

    def probe_one(layer: int) -> _LayerFit:
        matrix = store.matrix(layer=layer, pool=pool or store.pools[0])[labels.rows]
        if per_group:
            matrix = standardise_groups(matrix, labels)
        return _probe_layer(torch.from_numpy(matrix.astype(np.float32)), labels, plan)

    fitted = []
    for result in _in_parallel(probe_one, layers):
        fitted.append(result)
        if on_progress is not None:
            on_progress(len(fitted), len(layers))
    outputs, inner_outputs, inner_scores, inner_losses, shrinkages = (
        np.stack(parts) for parts in zip(*fitted, strict=True)
    )
    weighted, weights = _weight_layers(labels, protocol, outputs, inner_outputs)
    return Probe(
        layers=tuple(layers),
        outputs=outputs,
        inner_outputs=inner_outputs,
        inner_scores=inner_scores,
        inner_losses=inner_losses,
        shrinkages=shrinkages,
        weighted=weighted,
        weights=weights,
    )


def probe_outcome(probe: Probe, labels: Labels, protocol: Protocol) -> Outcome:
    """Return what the probe scores when each fold uses the layer its inner folds chose."""
    outputs = np.full(probe.outputs.shape[1:], np.nan, dtype=np.float32)
    temperatures, chosen = [], []
    for number, (fold, position) in enumerate(zip(protocol.folds, probe.chosen, strict=True)):
        outputs[fold.test] = probe.outputs[position, fold.test]
        inner = probe.inner_outputs[position, number]
        temperatures.append(fold_temperature(labels, fold, inner))
        shrinkage = float(probe.shrinkages[position, number])
        chosen.append({"layer": probe.layers[position], "shrinkage": shrinkage})
    return Outcome(
        labels=labels,
        protocol=protocol,
        outputs=outputs,
        temperatures=tuple(temperatures),
        chosen=tuple(chosen),
    )


def probe_matrix(features: np.ndarray, labels: Labels, protocol: Protocol) -> Outcome:
    """Return what a probe on any features (N, D) of the labelled clips scores."""
    outputs, inner_outputs, _, _, shrinkages = _probe_layer(
        torch.from_numpy(features), labels, _Plan(labels, protocol)
    )
    return Outcome(
        labels=labels,
        protocol=protocol,
        outputs=outputs,
        temperatures=tuple(
            fold_temperature(labels, fold, inner)
            for fold, inner in zip(protocol.folds, inner_outputs, strict=True)
        ),
        chosen=tuple({"shrinkage": float(shrinkage)} for shrinkage in shrinkages),
    )


def layer_curve(probe: Probe, labels: Labels, protocol: Protocol) -> LayerCurve:
    """Return the score of every layer with its interval over speakers."""
    *figures, weighted = (
        Outcome(labels=labels, protocol=protocol, outputs=outputs).main
        for outputs in [*probe.outputs, probe.weighted]
    )
    chosen = Counter(probe.layers[position] for position in probe.chosen.tolist())
    return LayerCurve(
        layers=probe.layers,
        mean=np.array([figure.value for figure in figures]),
        low=np.array([figure.low for figure in figures]),
        high=np.array([figure.high for figure in figures]),
        chosen=dict(chosen),
        weighted=weighted,
    )


class _Plan:
    """Clips sorted into blocks such that every training set is a union of blocks.

    Training sets that are the same set (all but folds j and k serves outer j with inner k,
    and outer k with inner j) are fitted once.
    """

    def __init__(self, labels: Labels, protocol: Protocol) -> None:
        sets = [part for fold in protocol.folds for part in (fold.train, fold.test)]
        sets += [held.train for fold in protocol.folds for held in fold.inner]
        sets += [held.held for fold in protocol.folds for held in fold.inner]
        member = np.zeros((len(labels), len(sets)), dtype=bool)
        for column, rows in enumerate(sets):
            member[rows, column] = True
        self.block = np.unique(member, axis=0, return_inverse=True)[1].reshape(-1)
        self.order = np.argsort(self.block, kind="stable")
        self.sizes = np.bincount(self.block).tolist()
        edges = np.cumsum([0, *self.sizes])
        self.slices = [slice(start, stop) for start, stop in pairwise(edges.tolist())]
        self.outer = [(self.blocks(fold.train), self.blocks(fold.test)) for fold in protocol.folds]
        self.held = [
            np.concatenate([inner.held for inner in fold.inner]) for fold in protocol.folds
        ]
        self.inner: dict[tuple[int, ...], list[tuple[int, tuple[int, ...]]]] = {}
        for number, fold in enumerate(protocol.folds):
            for part in fold.inner:
                uses = self.inner.setdefault(self.blocks(part.train), [])
                uses.append((number, self.blocks(part.held)))

    def blocks(self, rows: np.ndarray) -> tuple[int, ...]:
        return tuple(np.unique(self.block[rows]).tolist())


def _in_parallel(
    probe_one: Callable[[int], _LayerFit], layers: Sequence[int]
) -> Iterator[_LayerFit]:
    """One layer a thread, in order: half the time of one layer at a time on all threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(min(threads, LAYERS_AT_ONCE)) as pool:
            yield from pool.map(probe_one, layers)
    finally:
        torch.set_num_threads(threads)


def _probe_layer(features: Tensor, labels: Labels, plan: _Plan) -> _LayerFit:
    wanted = torch.from_numpy(labels.wanted)[plan.order]
    classification = labels.task == "classification"
    together = [list(range(wanted.shape[1]))] if classification else alike_columns(wanted)
    fits = [
        (columns, BlockSums(features[plan.order], wanted[:, columns], plan.sizes,
                            classification=classification))
        for columns in together
    ]  # fmt: skip
    folds, shape = len(plan.outer), (len(labels), wanted.shape[1])
    inner = torch.full((len(SHRINKAGES), folds, *shape), torch.nan)
    for columns, sums in fits:
        for training, uses in plan.inner.items():
            for position, fitted in enumerate(sums.fit(training, SHRINKAGES)):
                for fold, held in uses:
                    for rows in (plan.slices[block] for block in held):
                        inner[position, fold][rows][:, columns] = fitted(sums.features[rows])
    inner_outputs = _unsorted(inner, plan)
    scores, losses = (
        np.array(
            [
                [judge(labels, held, outputs[fold, held]) for fold, held in enumerate(plan.held)]
                for outputs in inner_outputs
            ]
        )
        for judge in (main_score, loss)
    )
    every = np.arange(folds)
    best = np.array([best_of(scores[:, fold], losses[:, fold]) for fold in every])
    outer = torch.full(shape, torch.nan)
    for columns, sums in fits:
        for position, (training, test) in zip(best, plan.outer, strict=True):
            (fitted,) = sums.fit(training, [SHRINKAGES[position]])
            for rows in (plan.slices[block] for block in test):
                outer[rows][:, columns] = fitted(sums.features[rows])
    chosen = (values[best, every] for values in (inner_outputs, scores, losses))
    return _unsorted(outer, plan), *chosen, np.array(SHRINKAGES)[best]


def _unsorted(values: Tensor, plan: _Plan) -> np.ndarray:
    """Values (..., N, C) in sorted order, back in the labels' order."""
    out = np.empty(tuple(values.shape), dtype=np.float32)
    out[..., plan.order, :] = values.numpy()
    return out


def _weight_layers(
    labels: Labels, protocol: Protocol, outputs: np.ndarray, inner_outputs: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """All layers' probes averaged with learned weights: outputs (N, C), weights (K, L).

    A linear map of all layers at once. The weights of a fold are learned on the outputs of its
    inner folds, whose clips none of those probes had seen.
    """
    combined = np.full(outputs.shape[1:], np.nan, dtype=np.float32)
    weights = []
    for number, fold in enumerate(protocol.folds):
        held = np.concatenate([inner.held for inner in fold.inner])
        learned = _learn_weights(
            torch.from_numpy(inner_outputs[:, number, held]),
            torch.from_numpy(labels.wanted[held]),
            classification=labels.task == "classification",
        )
        combined[fold.test] = np.einsum("l,lnc->nc", learned, outputs[:, fold.test])
        weights.append(learned)
    return combined, np.stack(weights)


def _learn_weights(outputs: Tensor, targets: Tensor, *, classification: bool) -> np.ndarray:
    """Softmax weights (L,) that make the average of outputs (L, n, C) fit targets (n, C)."""
    from scipy.optimize import minimize  # torch.optim takes three seconds to import

    balanced = targets / targets.sum(dim=0).clamp(min=1e-6)  # every class counts alike
    known = targets.isfinite()
    variances = torch.stack(
        [column[there].var(correction=0) for column, there in zip(targets.T, known.T, strict=True)]
    ).clamp(min=1e-12)

    def loss(values: np.ndarray) -> tuple[float, np.ndarray]:
        point = torch.from_numpy(values).float().requires_grad_()  # the last one: sharpness
        average = torch.einsum("l,lnc->nc", point[:-1].softmax(dim=0), outputs)
        if classification:
            fit = balanced * (average * point[-1].exp()).log_softmax(dim=1)
            value = -fit.sum() / balanced.sum()
        else:
            value = ((average - targets).square() / variances)[known].mean()
        value = value + WEIGHT_DECAY * point.square().sum()
        (slope,) = torch.autograd.grad(value, point)
        return float(value.detach()), slope.double().numpy()

    start = np.zeros(len(outputs) + 1)
    found = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": 40})
    return torch.from_numpy(found.x[:-1]).float().softmax(dim=0).numpy()
