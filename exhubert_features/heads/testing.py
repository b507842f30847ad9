"""Test a trained head on a store, where nothing is fitted or chosen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..errors import LabelError
from ..evaluation import Evaluation, LabelOptions, Labels
from ..evaluation.labels import store_rows, table_rows
from ..evaluation.origin import origin_of
from ..evaluation.splits import Fold, Protocol
from ..report import HeadComparison
from ..store import FeatureStore, NamedStores, open_stores
from .features import check_fingerprint
from .files import load_head
from .fitting import outputs_of
from .labelled import PER_GROUP, LabelledFeatures
from .memory import overlap_warnings
from .modules import Head

if TYPE_CHECKING:
    from ..evaluation.labels import LabelSource


def evaluate(
    head: Head | str | Path,
    store: NamedStores,
    *,
    target: str | Sequence[str] | None = None,
    group: str | None = "speaker",
    labels: LabelSource | None = None,
    against: Head | str | Path | None = None,
    joining: LabelOptions | None = None,
    corpus: str | None = None,
    seed: int = 0,
) -> Evaluation:
    """Test a head on the labelled clips of a store.

    Parameters
    ----------
    head, store
        A head and features, or their paths; or several stores, see
        :func:`exhubert_features.train`.
    target, group
        Columns; the target's default is what the head was trained on, of several numbers some
        will do. A group column that is nowhere is no error: intervals are then over clips,
        which the result says.
    labels
        A table (file, rows, DataFrame) with these columns; None: those of the store's manifest.
    against
        Another head, to be compared with on the same clips.
    joining
        How labels reach clips, where the defaults do not fit.
    corpus
        Its name, to warn when the encoder was fine-tuned on it; None: looked for in names.
    seed
        Of chance in the map of the features that a report shows.

    Returns
    -------
    Evaluation
        With ``main``, ``figures``, ``predictions``, ``report(folder)``.

    Raises
    ------
    FingerprintMismatch
        When the features are not of the kind that the head was trained on.
    """
    head = head if isinstance(head, Head) else load_head(head)
    store = open_stores(store)
    rows = None if labels is None else table_rows(labels)
    known = any(group in row for row in [*(rows or []), *store_rows(store)])
    joined = Labels.from_store(
        store,
        target=target or head.config.target,
        group=group if known else None,
        labels=rows,
        classes=head.config.classes,
        options=replace(joining or LabelOptions(), task=head.config.task),
    )
    evaluation = evaluate_on(head, store, joined, corpus=corpus, seed=seed)
    if against is None:
        return evaluation
    name = "the other head" if isinstance(against, Head) else str(against)
    other = evaluate_on(
        against if isinstance(against, Head) else load_head(against), store, joined, seed=seed
    )
    found = evaluation.compare(other)
    comparison = HeadComparison(
        against=name, difference=found.difference, p_value=found.p_value, note=found.note
    )
    notes = tuple(f"{name}: {note}" for note in other.notes)
    return replace(evaluation, comparisons=(comparison,), notes=evaluation.notes + notes)


def evaluate_on(
    head: Head, store: FeatureStore, labels: Labels, *, corpus: str | None = None, seed: int = 0
) -> Evaluation:
    """Test a head on labels that were joined with its own classes; see :func:`evaluate`."""
    if labels.classes != head.config.classes:
        raise LabelError(
            f"the labels' classes are {', '.join(labels.classes) or 'numbers'}",
            expected=", ".join(head.config.classes) or "numbers",
        )
    told = _told(head, labels)
    check_fingerprint(head.fingerprint, store.fingerprint)
    features = LabelledFeatures(store, labels, head.config)
    everyone = np.arange(len(labels))
    whole = Fold(name="all clips", train=everyone[:0], test=everyone, inner=())
    temperature = float(head.temperature)
    return Evaluation(
        labels=labels,
        protocol=Protocol(folds=(whole,), words="All labelled clips were tested, each once."),
        outputs=outputs_of(head, features, everyone)[:, told],
        chosen=({},),
        temperatures=(temperature,),
        temperature=temperature,
        title=f"{head.config.kind} head on other data: {labels.target}",
        method="The head was trained before; nothing was fitted or chosen on these clips."
        + (PER_GROUP if head.config.per_group else ""),
        features=features.summary(everyone),
        notes=tuple(overlap_warnings(head, labels)),
        origin=origin_of(store, labels, corpus),
        seed=seed,
    )


def _told(head: Head, labels: Labels) -> list[int]:
    """Which outputs of a head the labels are for: those of their names, or all in their order."""
    targets = head.config.targets
    if set(labels.targets) <= set(targets) and targets:
        return [targets.index(name) for name in labels.targets]
    if len(labels.targets) != len(targets):
        raise LabelError(
            f"the labels are of {', '.join(labels.targets)}",
            expected=f"columns for {', '.join(targets)}, in this order, or some of these names",
        )
    return list(range(head.config.outputs))
