"""The numbers of an evaluation: what outputs are worth against labels under a protocol."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import LabelError
from ..records import Interval
from .comparison import Comparison, compare
from .intervals import (
    classification_figures,
    divergence_figures,
    regression_figures,
    retraining_share,
    several_figures,
)
from .labels import Labels
from .metrics import (
    brier_score,
    expected_calibration_error,
    fit_temperature,
    js_divergences,
    kl_divergences,
    softmax,
)
from .outputs import predicted
from .predictions import prediction_table
from .splits import Fold, Protocol

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What models said of clips they had not seen, and how good that is.

    ``outputs`` (N, C) are logits, or (N, T) values, of the labelled clips; NaN for clips that
    no fold tests. ``chosen`` and ``temperatures`` are one per fold. ``temperature`` is the one
    of the final head, None to learn it from these outputs.
    """

    labels: Labels
    protocol: Protocol
    outputs: np.ndarray
    chosen: tuple[Mapping[str, Any], ...] = ()
    temperatures: tuple[float, ...] = ()
    temperature: float | None = None

    @property
    def metric(self) -> str:
        """Name of the main figure: ``uar``, ``ccc``, or ``mean_ccc`` of several targets."""
        if self.labels.task == "classification":
            return "uar"
        return "ccc" if self.labels.values.ndim == 1 else "mean_ccc"

    @property
    def main(self) -> Interval:
        """The main figure over the tested clips."""
        return self.figures[self.metric]

    @cached_property
    def figures(self) -> dict[str, Interval]:
        """All figures over the tested clips; intervals take the trained models as given."""
        soft = {} if self.labels.shares is None else self._divergences(self.scaled_shares)
        return self._figures(0.0) | soft

    @cached_property
    def baselines(self) -> dict[str, float]:
        """What those who know only how frequent classes are score, where labels are soft.

        Each tested clip is told the mean shares of its fold's training clips, or, where nothing
        was trained, of the tested ones.
        """
        if self.labels.shares is None:
            return {}
        told = np.full(self.outputs.shape, np.nan)
        for fold in self.protocol.folds:
            known = fold.train if len(fold.train) else fold.test
            told[fold.test] = self.labels.wanted[known].mean(axis=0)
        found = self._divergences(told[self.protocol.tested])
        return {name: figure.value for name, figure in found.items()}

    @cached_property
    def retrained(self) -> Interval | None:
        """The main figure with the interval of training anew on other speakers.

        None where nothing was trained.
        """
        return self._figures(self.retraining)[self.metric] if self.retraining else None

    @property
    def retraining(self) -> float:
        """How much training anew adds to the variance; 0 where nothing was trained."""
        folds = [fold for fold in self.protocol.folds if len(fold.train)]
        if not folds:
            return 0.0
        return retraining_share([len(f.train) for f in folds], [len(f.test) for f in folds])

    @property
    def scored(self) -> np.ndarray:
        """Positions (n,) of the tested clips that have one true class, or number."""
        tested = self.protocol.tested
        return tested[self.labels.decided[tested]]

    @property
    def tested(self) -> Labels:
        """The labels (n) of the scored clips."""
        return self.labels.take(self.scored)

    @property
    def prediction(self) -> np.ndarray:
        """Class indices or values (n,), or values (n, T), for the scored clips."""
        return predicted(self.labels, self.outputs[self.scored])

    @property
    def probabilities(self) -> np.ndarray | None:
        """(n, C) as the models were trained; None for regression."""
        if self.labels.task == "regression":
            return None
        return softmax(self.outputs[self.scored])

    @property
    def scaled_probabilities(self) -> np.ndarray | None:
        """(n, C), each fold's logits divided by the temperature learned inside it."""
        if self.labels.task == "regression":
            return None
        return self.scaled_shares[self.labels.decided[self.protocol.tested]]

    @property
    def scaled_shares(self) -> np.ndarray:
        """(m, C), the same of all tested clips, also of those without one true class."""
        scaled = self.outputs.copy()
        for fold, temperature in zip(self.protocol.folds, self.temperatures, strict=False):
            scaled[fold.test] /= temperature
        return softmax(scaled[self.protocol.tested])

    @cached_property
    def calibration(self) -> dict[str, float]:
        """ECE and Brier score before and after temperature scaling; empty for regression.

        ``temperature`` is the one for new clips, of the final head.
        """
        before, after = self.probabilities, self.scaled_probabilities
        if before is None or after is None:
            return {}
        truth, rows = self.tested.values, self.protocol.tested
        found = self.temperature or fit_temperature(self.outputs[rows], self.labels.wanted[rows])
        return {
            "temperature": found,
            "ece": expected_calibration_error(truth, before),
            "brier": brier_score(truth, before),
            "ece_scaled": expected_calibration_error(truth, after),
            "brier_scaled": brier_score(truth, after),
        }

    @property
    def predictions(self) -> pd.DataFrame:
        """One row per tested clip: id, group, fold, truth, prediction, calibrated probabilities.

        Of several targets ``truth_arousal``, ``prediction_arousal`` and so on; of soft labels
        also ``share_angry`` and so on, and no truth where two classes are as likely.
        """
        rows = self.protocol.tested
        return prediction_table(
            self.labels.take(rows),
            predicted(self.labels, self.outputs[rows]),
            probabilities=self.scaled_shares if self.labels.classes else None,
            folds=self._fold_names(),
        )

    def compare(self, other: Outcome) -> Comparison:
        """Compare with another evaluation of the same clips: this one minus the other.

        Raises
        ------
        LabelError
            When the two were not tested on the same clips with the same labels.
        """
        mine, theirs = self.tested, other.tested
        order = _positions(theirs.ids, mine.ids)
        if order is None or not same_labels(mine.values, theirs.values[order]):
            raise LabelError(
                f"the two evaluations are of different clips or labels ({len(mine)} and "
                f"{len(theirs)} clips)",
                expected="the same clips, under the same labels",
                remedy="Evaluate both on one store with one label table",
            )
        return compare(
            mine.values,
            self.prediction,
            other.prediction[order],
            groups=mine.groups if mine.group else None,
            metric=self.metric,
            class_count=len(mine.classes),
            retraining=min(self.retraining, other.retraining),
        )

    def subset(self, positions: np.ndarray) -> Outcome:
        """Return the outcome for some of the labelled clips, by position (n,)."""
        place = np.full(len(self.labels), -1)
        place[positions] = np.arange(len(positions))
        folds = [
            replace(fold, test=place[fold.test][place[fold.test] >= 0]) for fold in self._folds()
        ]
        kept = [number for number, fold in enumerate(folds) if len(fold.test)]
        return Outcome(
            labels=self.labels.take(positions),
            protocol=replace(self.protocol, folds=tuple(folds[number] for number in kept)),
            outputs=self.outputs[positions],
            chosen=tuple(self.chosen[number] for number in kept if self.chosen),
            temperatures=tuple(self.temperatures[number] for number in kept if self.temperatures),
            temperature=self.temperature,
        )

    def by(self, column: str) -> dict[str, Outcome]:
        """Return the outcome for each value of a further column of the labels."""
        known = self.labels.columns
        if column not in known:
            raise LabelError(
                f"the labels were joined without column {column!r}",
                expected=f"one of {', '.join(known) or 'none'}",
                remedy="Name it in LabelOptions(columns=...), or with --by",
            )
        values = np.asarray(known[column])
        rows = self.protocol.tested
        return {
            str(name): self.subset(rows[values[rows] == name]) for name in np.unique(values[rows])
        }

    def of_clips(self) -> Outcome:
        """Return the outcome for whole clips: probabilities, or values, averaged over windows."""
        rows = self.protocol.tested
        scaled = self.scaled_shares if self.labels.classes else None
        scores = self.outputs[rows] if scaled is None else scaled
        _, first, index = np.unique(self.labels.clips[rows], return_index=True, return_inverse=True)
        sums = [np.bincount(index, weights=column) for column in scores.T]
        means = np.stack(sums, axis=1) / np.bincount(index)[:, None]
        outputs = means if scaled is None else np.log(np.maximum(means, 1e-12))
        return replace(self.subset(rows[first]), outputs=outputs, temperatures=())

    def _figures(self, retraining: float) -> dict[str, Interval]:
        tested, guess = self.tested, self.prediction
        groups = tested.groups if tested.group else None
        if tested.values.ndim == 2:
            return several_figures(
                tested.values, guess, groups=groups, targets=tested.targets, retraining=retraining
            )
        if tested.task == "regression":
            return regression_figures(tested.values, guess, groups=groups, retraining=retraining)
        return classification_figures(
            tested.values, guess, groups=groups, classes=tested.classes, retraining=retraining
        )

    def _divergences(self, told: np.ndarray) -> dict[str, Interval]:
        """Mean KL and JS divergence of shares from what was told (m, C) of the tested clips."""
        tested = self.labels.take(self.protocol.tested)
        shares = tested.wanted.astype(float)
        each = {"kl": kl_divergences(shares, told), "js": js_divergences(shares, told)}
        return divergence_figures(each, groups=tested.groups if tested.group else None)

    def _folds(self) -> list[Fold]:
        """Take the folds without what they were trained on, whose positions hold here only."""
        return [replace(fold, train=fold.train[:0], inner=()) for fold in self.protocol.folds]

    def _fold_names(self) -> np.ndarray:
        names = np.empty(len(self.labels), dtype=object)
        for fold in self.protocol.folds:
            names[fold.test] = fold.name
        return names[self.protocol.tested]


def same_labels(first: np.ndarray, second: np.ndarray) -> bool:
    """Tell whether two arrays of labels are the same, what is unknown included."""
    if first.dtype.kind == "f" and second.dtype.kind == "f":
        return np.array_equal(first, second, equal_nan=True)
    return np.array_equal(first, second)


def _positions(names: np.ndarray, wanted: np.ndarray) -> np.ndarray | None:
    """Where each of ``wanted`` stands among ``names``; None unless both are the same set."""
    place = {name: index for index, name in enumerate(names.tolist())}
    if len(place) != len(wanted) or any(name not in place for name in wanted.tolist()):
        return None
    return np.array([place[name] for name in wanted.tolist()])
