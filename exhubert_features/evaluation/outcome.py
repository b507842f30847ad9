"""From out-of-fold outputs to figures and a report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, is_dataclass
from importlib import metadata
from typing import Any

import numpy as np

from ..bootstrap import FEW_GROUPS, classification_metrics, regression_metrics
from ..corpora import find_corpus, seen_in_training
from ..report import LayerCurve, Report
from ..store import FeatureStore
from ..version import __version__
from .labels import Labels
from .metrics import (
    Interval,
    absent_classes,
    brier_score,
    concordance,
    confusion_matrix,
    expected_calibration_error,
    fit_temperature,
    softmax,
    unweighted_average_recall,
)
from .splits import Fold, Protocol

CHOSEN_INSIDE = "chosen inside the training part of each fold, never by a tested clip"
VERSIONS = ("numpy", "torch", "scikit-learn", "h5py")


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What the folds' models said of the clips they had not seen.

    ``outputs`` (N, C) are logits, or (N, 1) values; NaN for clips that no fold tests.
    ``temperatures`` and ``chosen`` are one per fold; ``temperature`` is the one for new clips,
    None to learn it from these.
    """

    outputs: np.ndarray
    temperatures: tuple[float, ...] = ()
    chosen: tuple[dict[str, Any], ...] = ()
    temperature: float | None = None

    def figures(self, labels: Labels, protocol: Protocol) -> dict[str, Interval]:
        """All figures over the tested clips, the main one first."""
        rows = evaluated_rows(protocol)
        truth, guess = labels.values[rows], predicted(labels, self.outputs[rows])
        groups = labels.groups[rows]
        if labels.task == "regression":
            return regression_metrics(truth, guess, groups=groups)
        return classification_metrics(truth, guess, classes=labels.classes, groups=groups)

    def main(self, labels: Labels, protocol: Protocol) -> Interval:
        """UAR or CCC over the tested clips."""
        return next(iter(self.figures(labels, protocol).values()))

    def calibration(self, labels: Labels, protocol: Protocol) -> dict[str, float]:
        """ECE and Brier before and after temperature scaling; empty for regression.

        Each fold is scaled by its own temperature, learned on its inner folds;
        ``temperature`` is the one for new clips.
        """
        if labels.task == "regression":
            return {}
        rows = evaluated_rows(protocol)
        scaled = self.outputs.copy()
        for fold, temperature in zip(protocol.folds, self.temperatures, strict=True):
            scaled[fold.test] /= temperature
        before, after = softmax(self.outputs[rows]), softmax(scaled[rows])
        truth = labels.values[rows]
        return {
            "temperature": self.temperature or fit_temperature(self.outputs[rows], truth),
            "ece": expected_calibration_error(truth, before),
            "brier": brier_score(truth, before),
            "ece_scaled": expected_calibration_error(truth, after),
            "brier_scaled": brier_score(truth, after),
        }


def evaluated_rows(protocol: Protocol) -> np.ndarray:
    """Positions of the clips that some fold tests, in order."""
    return np.sort(np.concatenate([fold.test for fold in protocol.folds]))


def predicted(labels: Labels, outputs: np.ndarray) -> np.ndarray:
    """Class indices or values (N,) of outputs (N, C)."""
    if labels.task == "regression":
        return outputs[:, 0].astype(np.float64)
    return outputs.argmax(axis=1)


def main_score(labels: Labels, rows: np.ndarray, outputs: np.ndarray) -> float:
    """UAR or CCC of outputs (n, C) for the clips at ``rows`` (n,)."""
    truth, guess = labels.values[rows], predicted(labels, outputs)
    if labels.task == "regression":
        return concordance(truth, guess)
    return float(unweighted_average_recall(confusion_matrix(truth, guess, len(labels.classes))))


def fold_temperature(labels: Labels, fold: Fold, inner_outputs: np.ndarray) -> float:
    """The temperature for a fold, from outputs (N, C) of its inner folds' held clips."""
    if labels.task == "regression":
        return 1.0
    held = np.concatenate([inner.held for inner in fold.inner])
    return fit_temperature(inner_outputs[held], labels.values[held])


def make_report(
    store: FeatureStore,
    labels: Labels,
    protocol: Protocol,
    outcome: Outcome,
    *,
    title: str,
    method: str,
    features: np.ndarray,
    curve: LayerCurve | None = None,
    corpus: str | None = None,
    warnings: Sequence[str] = (),
    command: str = "",
    seed: int = 0,
) -> Report:
    """The report of an outcome.

    Parameters
    ----------
    method
        What was fitted and how it was chosen, in sentences that follow those of the protocol.
    features
        (N, D) of the labelled clips, for the map.
    corpus
        Its name, to warn when the released weights were fine-tuned on it.
    """
    rows = evaluated_rows(protocol)
    outputs = outcome.outputs[rows]
    return Report(
        title=title,
        task=labels.task,
        target=labels.target,
        classes=labels.classes,
        ids=labels.ids[rows],
        groups=labels.groups[rows],
        truth=labels.values[rows],
        prediction=predicted(labels, outputs),
        probabilities=softmax(outputs) if labels.classes else None,
        metrics=outcome.figures(labels, protocol),
        folds=_folds(labels, protocol, outcome),
        protocol=f"{protocol.words} {method}",
        layer_curve=curve,
        map_points=_principal_components(features[rows], seed),
        calibration=outcome.calibration(labels, protocol),
        warnings=[
            *_corpus_warnings(store, corpus),
            *_sample_warnings(labels, protocol),
            *protocol.warnings,
            *labels.warnings,
            *warnings,
        ],
        failures=[
            asdict(failure) if is_dataclass(failure) else dict(failure)
            for failure in store.failures
        ],
        reproduce={
            "command": command,
            "seed": seed,
            "versions": {
                "exhubert-features": __version__,
                **{name: metadata.version(name) for name in VERSIONS},
            },
            "fingerprint": store.fingerprint.to_dict(),
        },
    )


def _folds(labels: Labels, protocol: Protocol, outcome: Outcome) -> list[dict[str, Any]]:
    name = "ccc" if labels.task == "regression" else "uar"
    return [
        {
            "name": fold.name,
            "test_groups": sorted(set(labels.groups[fold.test].tolist())),
            "train_clips": len(fold.train),
            "test_clips": len(fold.test),
            "chosen": dict(chosen),
            name: main_score(labels, fold.test, outcome.outputs[fold.test]),
        }
        for fold, chosen in zip(protocol.folds, outcome.chosen, strict=True)
    ]


def _corpus_warnings(store: FeatureStore, corpus: str | None) -> list[str]:
    """Was the encoder fine-tuned on this corpus? Asked of its name, else of names and paths."""
    if corpus:
        hints = [corpus]
    else:
        hints = [str(store.path.resolve()), *store.column("file")[:1], *_meta_hints(store)]
    note = seen_in_training(
        hints,
        architecture=store.fingerprint.model.architecture,
        source=store.provenance.get("source"),
    )
    if note and not corpus:
        found = next(filter(None, map(find_corpus, hints)))
        note += f" ({found} was recognised by name; --corpus NAME says otherwise)"
    return [note] if note else []


def _meta_hints(store: FeatureStore) -> list[str]:
    meta = store.column("meta")
    rows = [store[name].meta for name in store.ids[:1]] if meta else []
    return [row[key] for row in rows for key in ("corpus", "dataset", "database") if row.get(key)]


def _sample_warnings(labels: Labels, protocol: Protocol) -> list[str]:
    rows = evaluated_rows(protocol)
    notes = []
    count = len(np.unique(labels.groups[rows]))
    if labels.group is None:
        notes.append("No speakers were given: intervals treat clips as independent")
    elif count == 1:
        notes.append(
            f"Only one {labels.group} was tested: intervals are over clips and say nothing about "
            "others"
        )
    elif count < FEW_GROUPS:
        notes.append(f"Only {count} {labels.group} groups were tested: intervals are rough")
    if labels.classes:
        absent = absent_classes(labels.values[rows], labels.classes)
        if absent:
            notes.append(
                f"No tested clip is {' or '.join(absent)}: UAR and macro-F1 leave that out"
            )
        for fold in protocol.folds:
            unseen = (
                absent_classes(labels.values[fold.train], labels.classes) if len(fold.train) else ()
            )
            if unseen:
                notes.append(f"{fold.name}: no training clip is {' or '.join(unseen)}")
    return notes


def _principal_components(features: np.ndarray, seed: int) -> np.ndarray | None:
    """(N, 2), or None for fewer than three clips."""
    from sklearn.decomposition import PCA

    if min(features.shape) < 2 or len(features) < 3:
        return None
    return PCA(n_components=2, random_state=seed).fit_transform(features.astype(np.float32))
