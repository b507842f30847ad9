"""The released model's own six classes as a baseline: nothing trained, told in the same words.

The corpus' labels are brought to the six classes, to arousal and to valence by the table in
``corpora/six_classes.csv``; so are a head's probabilities, and both are scored on that.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..corpora import shipped_map
from ..errors import LabelError, UsageError
from ..evaluation import Evaluation, Labels
from ..evaluation.metrics import softmax
from ..evaluation.outcome import Outcome
from ..evaluation.splits import Fold, Protocol
from ..report import HeadComparison
from ..spec import AROUSAL, CLASSES, VALENCE
from ..store import FeatureStore

NEVER = -1e3  # log probability of what no label means


@dataclass(frozen=True, kw_only=True)
class _Axis:
    """What is told of a clip: ``levels``, and which of them each of the six classes has."""

    name: str
    levels: tuple[str, ...]
    of_class: dict[str, str]


AXES = (
    _Axis(name="six classes", levels=CLASSES, of_class={name: name for name in CLASSES}),
    _Axis(name="arousal", levels=tuple(dict.fromkeys(AROUSAL.values())), of_class=AROUSAL),
    _Axis(name="valence", levels=tuple(dict.fromkeys(VALENCE.values())), of_class=VALENCE),
)


def compare_with_six_classes(evaluation: Evaluation, store: FeatureStore) -> list[HeadComparison]:
    """Compare a head with the model's own class scores, on each of the axes that labels have.

    Parameters
    ----------
    evaluation
        Of classes that are emotions, the six classes themselves, or levels of one axis.
    store
        Holds the logits of the released six classes.

    Raises
    ------
    UsageError
        When there are no such logits, or the target is a number.
    LabelError
        When no axis has two levels among the labels.
    """
    if not store.has_logits or store.classes != CLASSES:
        raise UsageError(
            f"{store.path} holds no logits of the released six classes",
            expected=", ".join(CLASSES),
            remedy="Leave the baseline six-classes out, or extract with the released model",
        )
    classes = evaluation.labels.classes
    if not classes:
        raise UsageError("six-classes is a baseline for classes, and the target is a number")
    found = [
        _on_axis(axis, levels, evaluation, store)
        for axis in AXES
        if len(set(filter(None, levels := _levels_of(classes, axis)))) > 1
    ]
    if not found:
        raise LabelError(
            f"the labels ({', '.join(classes)}) stand for fewer than two of the six classes",
            expected="emotions that the table of the six classes knows",
            remedy="Rename labels with --map, or leave the baseline six-classes out",
        )
    return found


def _levels_of(classes: Sequence[str], axis: _Axis) -> list[str | None]:
    """Tell the level that each label stands for; None for those without."""
    plain = [name.strip().lower() for name in classes]
    # Labels may say the levels themselves; "neutral" alone is an emotion, too.
    if set(plain) <= {*axis.levels}:
        return list(plain)
    if any(set(plain) <= {*other.levels} for other in AXES[1:]):
        return [None] * len(classes)
    six = [_six_class(name) for name in plain]
    return [None if name is None else axis.of_class[name] for name in six]


def _six_class(label: str) -> str | None:
    if label in CLASSES:
        return label
    mapped = shipped_map().find(label)
    return None if mapped is None or mapped.number is None else CLASSES[mapped.number]


def _on_axis(
    axis: _Axis, levels: Sequence[str | None], evaluation: Evaluation, store: FeatureStore
) -> HeadComparison:
    tested, told = evaluation.tested, evaluation.scaled_probabilities
    if told is None:
        raise UsageError("six-classes is a baseline for classes")
    index = [axis.levels.index(level) if level else -1 for level in levels]
    truth = np.array(index)[tested.values]
    rows = np.flatnonzero(truth >= 0)
    labels = _labels_on(axis, tested.take(rows), truth[rows])
    six = [axis.levels.index(axis.of_class[name]) for name in CLASSES]
    logits = np.asarray(store.logits()[tested.rows[rows]], dtype=np.float64)
    possible = sorted({place for place in index if place >= 0})
    head = _outcome(labels, _summed(told[rows], index, axis), possible)
    model = _outcome(labels, _summed(softmax(logits), six, axis), possible)
    comparison = head.compare(model)
    own = f"Told so, this one scores {head.main.value:.3f}."
    notes = " ".join([own, comparison.note, *_caveats(axis, levels, evaluation.labels.classes)])
    return HeadComparison(
        against=f"the model's own classes, untrained, both told as {axis.name}",
        difference=comparison.difference,
        p_value=comparison.p_value,
        note=notes,
        score=model.main,
    )


def _labels_on(axis: _Axis, labels: Labels, truth: np.ndarray) -> Labels:
    return replace(
        labels, target=axis.name, classes=axis.levels, values=truth, shares=None, tied=None
    )


def _summed(probabilities: np.ndarray, places: Sequence[int], axis: _Axis) -> np.ndarray:
    """(n, A) out of (n, C): each column added to its level; those at -1 are left out."""
    summed = np.zeros((len(probabilities), len(axis.levels)))
    for column, place in zip(probabilities.T, places, strict=True):
        if place >= 0:
            summed[:, place] += column
    return summed


def _outcome(labels: Labels, summed: np.ndarray, possible: Sequence[int]) -> Outcome:
    """Answer with the likeliest, by (n, A), of the levels that some label stands for."""
    outputs = np.full(summed.shape, NEVER)
    outputs[:, possible] = np.log(np.maximum(summed[:, possible], 1e-12))
    everyone = np.arange(len(labels))
    whole = Fold(name="all", train=everyone[:0], test=everyone, inner=())
    return Outcome(labels=labels, protocol=Protocol(folds=(whole,), words=""), outputs=outputs)


def _caveats(axis: _Axis, levels: Sequence[str | None], classes: Sequence[str]) -> Iterator[str]:
    """Say what the table leaves out, is not sure of, or no label stands for."""
    without = [name for name, level in zip(classes, levels, strict=True) if level is None]
    if without:
        yield f"Left out, as the table has no class for them: {', '.join(without)}."
    doubtful = [] if {*levels} <= {*classes} else [_doubt(name, axis) for name in classes]
    if any(doubtful):
        yield f"Ambiguous: {', '.join(filter(None, doubtful))}."
    absent = [level for level in axis.levels if level not in levels]
    if absent:
        yield f"No label stands for {', '.join(absent)}: neither may answer that."


def _doubt(label: str, axis: _Axis) -> str:
    """``calm is taken for low-positive, not low-neutral``; nothing for what is clear."""
    mapped = shipped_map().find(label)
    if mapped is None or mapped.number is None or mapped.alternative is None:
        return ""
    taken, other = (axis.of_class[CLASSES[one]] for one in (mapped.number, mapped.alternative))
    return "" if taken == other else f"{label} is taken for {taken}, not {other}"
