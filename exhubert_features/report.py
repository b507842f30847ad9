"""One evaluation as a person reads it: ``report.html``, ``report.json`` and the figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from .metrics import Interval


@dataclass(frozen=True, kw_only=True)
class LayerCurve:
    """The score of one linear probe per layer, and of a weighting over all layers.

    ``mean``, ``low`` and ``high`` are (L,), in the order of ``layers`` (hidden-state ids);
    ``best`` is the id that the inner folds chose most often.
    """

    layers: tuple[int, ...]
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray
    best: int
    weighted: Interval | None = None


@dataclass(frozen=True, kw_only=True)
class Report:
    """Everything that one evaluation found, each clip predicted once, out of its fold.

    ``truth`` and ``prediction`` are (N,) class indices, or (N,) floats for regression, where
    ``classes`` is empty. ``probabilities`` is (N, C), before temperature scaling.
    """

    title: str
    task: Literal["classification", "regression"]
    target: str
    ids: np.ndarray
    groups: np.ndarray
    truth: np.ndarray
    prediction: np.ndarray
    metrics: Mapping[str, Interval]  # "uar" first for classification, "ccc" for regression
    protocol: str  # in words
    classes: tuple[str, ...] = ()
    probabilities: np.ndarray | None = None
    # each: name, test_groups (list), train_clips, test_clips, chosen (dict), uar or ccc
    folds: Sequence[Mapping[str, Any]] = ()
    layer_curve: LayerCurve | None = None
    map_points: np.ndarray | None = None  # (N, 2), principal components of the features used
    # temperature, ece, brier, ece_scaled, brier_scaled (the last two: at that temperature)
    calibration: Mapping[str, float] = field(default_factory=dict)
    warnings: Sequence[str] = ()
    failures: Sequence[Mapping[str, Any]] = ()  # of the store, each: id, file, kind, reason
    # command, seed, versions (dict), fingerprint (dict)
    reproduce: Mapping[str, Any] = field(default_factory=dict)


def write_report(directory: str | Path, report: Report) -> Path:
    """Write ``report.html``, ``report.json`` and one PNG per figure into a folder.

    Returns
    -------
    Path
        The HTML file.
    """
    raise NotImplementedError
