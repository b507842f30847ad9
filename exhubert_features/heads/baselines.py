"""What other features know of the same clips, through the same folds: something to compare with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from ..errors import LabelError, UsageError
from ..evaluation import Evaluation, Labels
from ..evaluation.joining import count_and_name, match_rows
from ..evaluation.labels import store_rows
from ..report import HeadComparison
from ..store import FeatureStore
from ..tables import FILE_COLUMNS, ID_COLUMNS, POSITION_COLUMNS, read_table
from .layerwise import probe_matrix
from .six_classes import compare_with_six_classes

LOGITS = "logits"  # the baseline that every store of a model with a classifier has
SIX_CLASSES = "six-classes"  # the one that the released model has: its own answer


def compare_with_baselines(
    evaluation: Evaluation, store: FeatureStore, baselines: Sequence[str | Path]
) -> Evaluation:
    """Return the evaluation with a comparison for each baseline.

    Each baseline but ``six-classes`` is a linear probe (discriminant analysis or ridge
    regression) on other features of the same clips, fitted in the same folds.

    Parameters
    ----------
    baselines
        ``logits`` for the encoder's own class scores, ``six-classes`` for what the released model
        tells by itself; else a table of features with an id or file column, such as opensmile's
        functionals.
    """
    found: list[HeadComparison] = []
    for baseline in baselines:
        if baseline == SIX_CLASSES:
            found += compare_with_six_classes(evaluation, store)
            continue
        outcome = probe_matrix(
            _features(baseline, store, evaluation.labels), evaluation.labels, evaluation.protocol
        )
        comparison = evaluation.compare(outcome)
        what = "the encoder's own logits" if baseline == LOGITS else baseline
        found.append(
            HeadComparison(
                against=f"a linear probe on {what}",
                difference=comparison.difference,
                p_value=comparison.p_value,
                note=comparison.note,
                score=outcome.main,
            )
        )
    return replace(evaluation, comparisons=(*evaluation.comparisons, *found))


def _features(baseline: str | Path, store: FeatureStore, labels: Labels) -> np.ndarray:
    """(N, D) float32."""
    if baseline != LOGITS:
        return _table_features(Path(baseline), store, labels)
    if not store.has_logits:
        raise UsageError(f"{store.path} holds no logits", remedy="Leave that baseline out")
    return np.asarray(store.logits()[labels.rows], dtype=np.float32)


def _table_features(path: Path, store: FeatureStore, labels: Labels) -> np.ndarray:
    table = [dict(row.cells) for row in read_table(path).require_whole().rows]
    clips = store_rows(store)
    # What is known of the clips is no feature, also where it is written in numbers.
    known = {name for clip in clips for name in clip} | {labels.target, labels.group}
    known |= {*labels.targets, *labels.columns, *ID_COLUMNS, *FILE_COLUMNS, *POSITION_COLUMNS}
    columns = [
        name
        for name in (table[0] if table else ())
        if name not in known and all(_is_number(row[name]) for row in table)
    ]
    if not columns:
        raise LabelError(f"{path} has no column of numbers", expected="one feature per column")
    rows = match_rows([clips[row] for row in labels.rows.tolist()], table, columns).rows
    missing = [str(name) for name, row in zip(labels.ids, rows, strict=True) if row is None]
    if missing:
        raise LabelError(f"{path} has no features for {count_and_name(missing, 'clip')}")
    return np.array([_numbers(row, columns) for row in rows if row], dtype=np.float32)


def _numbers(row: Mapping[str, str], columns: Sequence[str]) -> list[float]:
    return [float(row[name]) for name in columns]


def _is_number(text: str) -> bool:
    try:
        return bool(np.isfinite(float(text)))
    except ValueError:
        return False
