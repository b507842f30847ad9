"""Probe a store: which layer knows the target, on speakers it was not fitted to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..evaluation import Evaluation, LabelOptions, Labels, SplitOptions
from ..evaluation.origin import origin_of
from ..evaluation.outputs import CHOSEN_INSIDE
from ..evaluation.splits import Protocol, make_protocol, other_dealings
from ..evaluation.values import Task
from ..store import NamedStores, open_stores
from .baselines import compare_with_baselines
from .labelled import PER_GROUP
from .layerwise import Probe, layer_curve, probe_outcome, run_probe

if TYPE_CHECKING:
    from ..evaluation.labels import LabelSource


def probe(
    store: NamedStores,
    *,
    target: str | Sequence[str],
    group: str | None = "speaker",
    labels: LabelSource | None = None,
    layers: Sequence[int] | None = None,
    pool: str | None = None,
    per_group: bool = False,
    joining: LabelOptions | None = None,
    splitting: SplitOptions | None = None,
    baselines: Sequence[str | Path] = (),
    corpus: str | None = None,
    seed: int = 0,
    repeats: int = 1,
    on_progress: Callable[[str, int, int], None] | None = None,
) -> Evaluation:
    """Fit a linear probe to every layer and test it on speakers it was not fitted to.

    The result is of the layer that each fold's inner folds chose; its ``curve`` shows all.

    Parameters
    ----------
    store
        Features, or their path; or several, see :func:`exhubert_features.train`.
    target, group
        Columns: what to predict (several at once: arousal, valence, dominance), and who must
        not stand on both sides of a split.
    labels
        A table (file, rows, DataFrame) with these columns; None: those of the store's manifest.
    layers
        Hidden-state ids; None is all stored.
    pool
        One of the store's pools; None is its first.
    per_group
        Standardise the features of each speaker by itself: no labels, but several clips of
        whoever is tested are needed.
    joining, splitting
        How labels reach clips, and how clips are divided, where the defaults do not fit.
    baselines
        To be compared with on the same clips, in the same folds: ``logits``, ``six-classes`` (the
        released model's own answer), or tables of other features.
    corpus
        Its name, to warn when the encoder was fine-tuned on it; None: looked for in names.
    seed
        Of how folds are dealt.
    repeats
        Deal the folds so many times, with other seeds, to see how much that changes.
    on_progress
        Called with a word, steps done and steps in all.

    Returns
    -------
    Evaluation
        With ``main``, ``figures``, ``predictions``, ``report(folder)``.
    """
    store = open_stores(store)
    splitting = splitting or SplitOptions()
    joined = Labels.from_store(
        store, target=target, group=group, labels=labels, split=splitting.given, options=joining
    )
    protocol = make_protocol(joined, splitting, seed=seed)
    pool = pool or store.pools[0]
    tell = on_progress or (lambda word, done, total: None)

    def run(folds: Protocol) -> Probe:
        return run_probe(
            store, joined, folds, layers=layers, pool=pool, per_group=per_group,
            on_progress=lambda done, total: tell("probing layers", done, total),
        )  # fmt: skip

    found = run(protocol)
    outcome = probe_outcome(found, joined, protocol)
    others = other_dealings(joined, splitting, seed, repeats)
    curve = layer_curve(found, joined, protocol)
    evaluation = Evaluation(
        labels=joined,
        protocol=protocol,
        outputs=outcome.outputs,
        chosen=outcome.chosen,
        temperatures=outcome.temperatures,
        title=f"Layer probe: {joined.target}",
        method=_describe(joined.task) + (PER_GROUP if per_group else ""),
        curve=curve,
        features=store.matrix(layer=curve.best, pool=pool)[joined.rows],
        origin=origin_of(store, joined, corpus),
        seed=seed,
        repeats=tuple(probe_outcome(run(folds), joined, folds).main.value for folds in others),
    )
    return compare_with_baselines(evaluation, store, baselines)


def _describe(task: Task) -> str:
    """How layers were probed, for the report."""
    fits = {
        "classification": "a linear discriminant analysis with equal class priors",
        "regression": "a ridge regression",
    }
    return (
        f"Every layer was probed by {fits[task]}. The layer that counts and its shrinkage were "
        f"{CHOSEN_INSIDE}."
    )
