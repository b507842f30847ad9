"""Parts of a report that follow from an outcome: folds, groups, calibration, mistakes."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..records import Interval
from ..report import CalibrationCurve, GroupScore, Mistake, PartScore
from ..store import CORPUS
from .across import beyond, mean_over
from .metrics import calibration_bins
from .origin import Origin
from .outcome import Outcome
from .outputs import main_score

LISTED = 60  # mistakes in a page: more than anybody listens to


def fold_facts(outcome: Outcome) -> list[dict[str, Any]]:
    """Return name, test groups, sizes, choices and score of each fold."""
    labels, folds = outcome.labels, outcome.protocol.folds
    chosen = outcome.chosen or ({},) * len(folds)
    return [
        {
            "name": fold.name,
            "test_groups": sorted(set(labels.groups[fold.test].tolist())),
            "train_clips": len(fold.train),
            "test_clips": len(fold.test),
            "chosen": dict(choice),
            outcome.metric: main_score(labels, fold.test, outcome.outputs[fold.test]),
        }
        for fold, choice in zip(folds, chosen, strict=True)
    ]


def group_scores(outcome: Outcome) -> list[GroupScore]:
    """Return the main score of each group by itself, in order of name."""
    tested, outputs = outcome.tested, outcome.outputs[outcome.scored]
    scores = []
    for name in np.unique(tested.groups):
        rows = np.flatnonzero(tested.groups == name)
        varied = tested.classes or _varied(tested.wanted[rows])
        score = main_score(tested, rows, outputs[rows]) if varied else float("nan")
        scores.append(GroupScore(name=str(name), clips=len(rows), score=score))
    return scores


def _varied(values: np.ndarray) -> bool:
    """Whether each column of values (n, T) has two different ones: a correlation needs them."""
    return all(len(np.unique(column[np.isfinite(column)])) > 1 for column in values.T)


def part_scores(outcome: Outcome, *, windows: bool) -> list[PartScore]:
    """Return the main figure of whole clips, of each test set, and by each further column."""
    parts: list[tuple[str, str, Outcome]] = []
    if windows:
        parts.append(("clips", "whole clips (mean over windows)", outcome.of_clips()))
    if outcome.protocol.test_sets:
        for fold in outcome.protocol.folds:
            parts.append(("test set", fold.name, outcome.subset(fold.test)))
    for column in outcome.labels.columns:
        parts += [(column, name, part) for name, part in outcome.by(column).items()]
    found = [
        PartScore(kind=kind, name=name, clips=len(part.scored), score=_main(part))
        for kind, name, part in parts
        if len(part.scored)
    ]
    corpora = [part for kind, _, part in parts if kind == CORPUS and len(part.scored)]
    return found + _means([part for part in corpora if np.isfinite(_main(part).value)])


def _main(part: Outcome) -> Interval:
    """Return the main figure, NaN for numbers that do not vary or are not known there."""
    tested = part.tested
    if tested.classes or _varied(tested.wanted):
        return part.main
    return Interval(value=np.nan, low=np.nan, high=np.nan)


def _means(corpora: list[Outcome]) -> list[PartScore]:
    """Return the mean over corpora, each counting alike, for these and for another one."""
    if len(corpora) < 2:
        return []
    means = {"other speakers of these": mean_over(corpora)}
    lowest = 0.0 if corpora[0].labels.classes else -1.0
    if another := beyond([part.main.value for part in corpora], lowest):
        means["another corpus like these"] = another
    clips = sum(len(part.scored) for part in corpora)
    return [
        PartScore(kind=f"mean of {len(corpora)} corpora, for", name=name, clips=clips, score=score)
        for name, score in means.items()
    ]


def calibration_curves(outcome: Outcome) -> dict[str, CalibrationCurve]:
    """Return how often each confidence is right, as trained and scaled; none for regression."""
    truth = outcome.tested.values
    series = {"as trained": outcome.probabilities, "scaled": outcome.scaled_probabilities}
    curves = {}
    for name, probabilities in series.items():
        if probabilities is not None:
            clips, confidence, hits = calibration_bins(truth, probabilities)
            curves[name] = CalibrationCurve(clips=clips, confidence=confidence, hits=hits)
    return curves


def mistakes(outcome: Outcome, origin: Origin | None) -> list[Mistake]:
    """Return the clips that were taken for something else, the surest mistakes first.

    For numbers: the largest errors, of several targets their mean in deviations of each. At
    most ``LISTED``, with where their audio lies.
    """
    tested, prediction = outcome.tested, outcome.prediction
    rows = outcome.scored
    probabilities = outcome.scaled_probabilities
    if probabilities is not None:
        size = np.where(prediction == tested.values, -1.0, probabilities.max(axis=1))
    else:
        size = np.abs(prediction - tested.values)
        if size.ndim == 2:
            spread = np.nanstd(tested.values, axis=0)
            size = np.nanmean(size / np.where(spread > 0, spread, 1.0), axis=1)
    order = [index for index in np.argsort(-size, kind="stable") if size[index] > 0][:LISTED]

    def word(value: Any) -> str:
        if tested.classes:
            return tested.classes[int(value)]
        return ", ".join(f"{number:.3g}" for number in np.atleast_1d(value))

    return [
        Mistake(
            id=str(tested.ids[index]),
            group=str(tested.groups[index]),
            truth=word(tested.values[index]),
            prediction=word(prediction[index]),
            size=float(size[index]),
            file=str(origin.files[rows[index]]) if origin else "",
            start=float(origin.starts[rows[index]]) if origin else 0.0,
            end=float(origin.ends[rows[index]]) if origin else 0.0,
        )
        for index in order
    ]


def principal_components(features: np.ndarray, seed: int) -> np.ndarray | None:
    """Return (N, 2) of features (N, D), or None for fewer than three clips."""
    from sklearn.decomposition import PCA

    if min(features.shape) < 2 or len(features) < 3:
        return None
    return PCA(n_components=2, random_state=seed).fit_transform(features.astype(np.float32))
