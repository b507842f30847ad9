"""Compare finished runs by what their reports say of the same clips."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import LabelError, UsageError
from ..files import read_regular
from ..records import Interval
from ..report import RunRow
from ..stamps import unstamped
from .comparison import compare, holm
from .intervals import retraining_share
from .outcome import same_labels


@dataclass(frozen=True, kw_only=True)
class Run:
    """What a ``report.json`` says of N clips: names of classes, or numbers, as they stand there."""

    name: str
    metric: str
    score: Interval
    classes: tuple[str, ...]
    ids: list[str]
    groups: np.ndarray
    truth: np.ndarray
    prediction: np.ndarray
    test_groups: tuple[tuple[str, ...], ...]  # of each fold
    retraining: float


def read_run(folder: str | Path) -> Run:
    """Read the folder that ``probe``, ``train`` or ``evaluate`` wrote its report to.

    Raises
    ------
    UsageError
        When there is no report, or one of another version.
    """
    path = Path(folder) / "report.json"
    try:
        return _run(str(folder), unstamped(read_regular(path)))
    except (OSError, ValueError, LookupError, TypeError, AttributeError, StopIteration) as error:
        raise UsageError(
            f"{path} cannot be read as a report: {error!r}",
            expected="a folder from `exhubert probe`, `train` or `evaluate`",
        ) from error


def compare_runs(runs: Sequence[Run]) -> list[RunRow]:
    """Compare runs with the first of them, clip by clip.

    P-values are corrected for their number (Holm). Where the runs trained models, it is the
    ways of training that are compared.

    Raises
    ------
    LabelError
        When runs were not tested on the same clips, under the same labels.
    """
    first, *others = runs
    found = [_against(first, run) for run in others]
    corrected = holm([comparison.p_value for comparison in found])
    rows = [RunRow(name=first.name, score=first.score)]
    for run, comparison, p_value in zip(others, found, corrected, strict=True):
        note = comparison.note
        if run.test_groups != first.test_groups:
            note += " The folds of the two are not the same, which adds to the difference."
        rows.append(
            RunRow(
                name=run.name,
                score=run.score,
                difference=comparison.difference,
                p_value=comparison.p_value,
                corrected=p_value,
                note=note.strip(),
            )
        )
    return rows


def _against(first: Run, run: Run) -> Any:
    place = {name: position for position, name in enumerate(run.ids)}
    same = run.metric == first.metric and set(place) == set(first.ids)
    order = [place[name] for name in first.ids] if same else []
    if not same or not same_labels(run.truth[order], first.truth):
        raise LabelError(
            f"{run.name} and {first.name} were not tested on the same clips and labels "
            f"({len(run.ids)} and {len(first.ids)} clips)",
            expected="runs on the same clips, under the same labels",
        )
    truth, mine, theirs = (
        _coded(values, first.classes)
        for values in (first.truth, run.prediction[order], first.prediction)
    )
    grouped = len(np.unique(first.groups)) < len(first.groups)
    return compare(
        truth,
        mine,
        theirs,
        groups=first.groups if grouped else None,
        metric=first.metric,
        class_count=len(first.classes),
        retraining=min(run.retraining, first.retraining),
    )


def _coded(values: np.ndarray, classes: Sequence[str]) -> np.ndarray:
    """Class indices of names; numbers as they are."""
    if not classes:
        return values.astype(float)
    index = {name: position for position, name in enumerate(classes)}
    return np.array([index[name] for name in values.tolist()])


def _run(name: str, data: dict[str, Any]) -> Run:
    metric = next(name for name in ("uar", "mean_ccc", "ccc") if name in data)
    low, high = data[f"{metric}_interval"]
    clips, folds = data["clips"], data["folds"]
    trained = [fold for fold in folds if fold["train_clips"]]
    columns = [clips[key] for key in ("id", "group", "truth", "prediction")]
    if {len(column) for column in columns} != {len(set(clips["id"]))}:
        raise ValueError("its clips are not one row each")
    kind = None if data["classes"] else float  # a number that is unknown stands there as null
    return Run(
        name=name,
        metric=metric,
        score=Interval(value=data[metric], low=low, high=high),
        classes=tuple(data["classes"]),
        ids=clips["id"],
        groups=np.array(clips["group"]),
        truth=np.array(clips["truth"], dtype=kind),
        prediction=np.array(clips["prediction"], dtype=kind),
        test_groups=tuple(sorted(tuple(fold["test_groups"]) for fold in folds)),
        retraining=retraining_share(
            [fold["train_clips"] for fold in trained], [fold["test_clips"] for fold in trained]
        ),
    )
