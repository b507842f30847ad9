"""What one evaluation hands over to be reported; everything here is already computed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, is_dataclass
from typing import Any, Literal

import numpy as np

from ..records import Interval

_NAMES = {
    "uar": "UAR",
    "accuracy": "Accuracy",
    "macro_f1": "Macro F1",
    "ccc": "CCC",
    "mean_ccc": "Mean CCC",
    "pearson": "Pearson r",
    "mae": "Mean absolute error",
    "kl": "KL divergence (bits)",
    "js": "JS divergence (bits)",
}


@dataclass(frozen=True, kw_only=True)
class LayerCurve:
    """The score of one linear probe per layer, and of a weighting over all layers.

    ``mean``, ``low`` and ``high`` are (L,), in the order of ``layers`` (hidden-state ids);
    ``chosen`` counts the folds whose inner folds chose a layer, by its id.
    """

    layers: tuple[int, ...]
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray
    chosen: Mapping[int, int]
    weighted: Interval | None = None

    @property
    def best(self) -> int:
        """The layer that the inner folds chose most often."""
        return max(self.chosen, key=lambda layer: (self.chosen[layer], -layer))


@dataclass(frozen=True, kw_only=True)
class HeadComparison:
    """The main figure minus that of another head on the same clips."""

    against: str
    difference: Interval
    p_value: float | None  # None where nothing can be tested; the note says why
    note: str = ""
    score: Interval | None = None  # of the other one


@dataclass(frozen=True, kw_only=True)
class GroupScore:
    """The main score of one group (speaker) of clips; NaN where it is not defined."""

    name: str
    clips: int
    score: float


@dataclass(frozen=True, kw_only=True)
class PartScore:
    """The main figure of some of the clips: of a test set, or those of one gender."""

    kind: str
    name: str
    clips: int
    score: Interval


@dataclass(frozen=True, kw_only=True)
class CalibrationCurve:
    """Clips, mean confidence and share that is right in bins of equal width, each (B,)."""

    clips: np.ndarray
    confidence: np.ndarray
    hits: np.ndarray


@dataclass(frozen=True, kw_only=True)
class Mistake:
    """One clip that was taken for something else, and where to hear it.

    ``size`` is the confidence in the wrong class, or the error of a number; ``start`` and
    ``end`` are seconds inside ``file``.
    """

    id: str
    group: str
    truth: str
    prediction: str
    size: float
    file: str = ""
    start: float = 0.0
    end: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Report:
    """Everything that one evaluation found, each clip predicted once, out of its fold.

    ``truth`` and ``prediction`` are (N,) class indices, or floats for regression, where
    ``classes`` is empty: (N,), or (N, T) of several ``targets``. ``shares`` (N, C) are soft
    labels. ``probabilities`` (N, C) are scaled by the temperature of each clip's
    fold, ``raw_probabilities`` are not.
    """

    title: str
    task: Literal["classification", "regression"]
    target: str
    ids: np.ndarray
    groups: np.ndarray
    truth: np.ndarray
    prediction: np.ndarray
    metric: str  # the main one: "uar", "ccc", or "mean_ccc" of several targets
    metrics: Mapping[str, Interval]
    protocol: str  # in words
    interval_words: str = ""  # how the intervals came about
    retrained: Interval | None = None  # of the main metric, if models were trained anew
    group: str = ""  # the column that the groups are from; empty: each clip is its own
    classes: tuple[str, ...] = ()
    targets: tuple[str, ...] = ()  # names of numbers; empty for classes
    shares: np.ndarray | None = None
    baselines: Mapping[str, float] = field(default_factory=dict)  # chance of some metrics, by name
    probabilities: np.ndarray | None = None
    raw_probabilities: np.ndarray | None = None
    confusion: np.ndarray | None = None  # (C, C) clips, truth by prediction
    group_scores: Sequence[GroupScore] = ()
    parts: Sequence[PartScore] = ()
    # each: name, test_groups (list), train_clips, test_clips, chosen (dict), the main metric
    folds: Sequence[Mapping[str, Any]] = ()
    layer_curve: LayerCurve | None = None
    comparisons: Sequence[HeadComparison] = ()
    dealings: Sequence[float] = ()  # the main figure under each dealing of the folds
    map_points: np.ndarray | None = None  # (N, 2), principal components of the features used
    # temperature (of the final head), ece, brier, and scaled fold by fold: ece_scaled,
    # brier_scaled
    calibration: Mapping[str, float] = field(default_factory=dict)
    calibration_curves: Mapping[str, CalibrationCurve] = field(default_factory=dict)
    fitted: bool = True  # whether folds trained anything; else a finished head was tested
    windows: bool = False  # rows are windows of clips
    mistakes: Sequence[Mistake] = ()
    warnings: Sequence[str] = ()
    failures: Sequence[Mapping[str, Any]] = ()  # of the store, each: id, file, kind, reason
    model: str = ""  # where the encoder's weights came from
    made: str = ""  # date and time
    # command, store, seed, versions (dict), fingerprint (dict)
    reproduce: Mapping[str, Any] = field(default_factory=dict)

    @property
    def main(self) -> Interval:
        """The main figure."""
        return self.metrics[self.metric]

    @property
    def grouped(self) -> bool:
        """Whether groups hold clips together; without speakers each clip is its own."""
        return len(np.unique(self.groups)) < len(self.groups)

    @property
    def chance(self) -> float | None:
        """UAR of guessing; none for regression."""
        return 1 / len(np.unique(self.truth)) if self.classes else None

    @property
    def unit(self) -> str:
        """What a row is called."""
        return "windows" if self.windows else "clips"


def metric_name(key: str) -> str:
    """Write ``macro_f1`` as people do, and ``ccc valence`` with the name of what it is of."""
    first, blank, of = key.partition(" ")
    return _NAMES.get(first, first) + blank + of


def comparison_words(found: HeadComparison, metric: str) -> str:
    """Say how another head fares on the same clips."""
    gap = found.difference
    certain = "" if gap.low > 0 or gap.high < 0 else ", so it may be chance"
    p = found.p_value
    tested = "" if p is None else " and p < 0.001" if p < 0.001 else f" and p = {p:.3f}"
    score = f" ({found.score.value:.3f})" if found.score else ""
    return (
        f"On the same clips, {metric_name(metric)} is {abs(gap.value):.3f} "
        f"{'lower' if gap.value < 0 else 'higher'} than that of {found.against}{score}: the "
        f"difference has a 95 % interval from {gap.low:.3f} to {gap.high:.3f}{tested}{certain}. "
        f"{found.note}"
    ).strip()


def dealing_words(dealings: Sequence[float], metric: str) -> str:
    """Say how much the score depends on how the folds were dealt; nothing for one dealing."""
    if len(dealings) < 2:
        return ""
    return (
        f"Over {len(dealings)} dealings of the folds, {metric_name(metric)} is "
        f"{np.mean(dealings):.3f} on average, from {min(dealings):.3f} to {max(dealings):.3f} "
        f"(standard deviation {np.std(dealings, ddof=1):.3f}): the interval does not hold this."
    )


def setting_words(chosen: Mapping[str, Any]) -> str:
    """Say what was chosen: ``layer 12, penalty C = 0.01``."""
    words = {
        "layer": "layer {}",
        "C": "penalty C = {:g}",
        "epochs": "{} epochs",
        "shrinkage": "shrinkage {:g}",
        "stretch": "stretched by {:.2f}",
    }
    for key in chosen:
        if key.startswith("stretch "):
            words[key] = key.removeprefix("stretch ") + " stretched by {:.2f}"
    return ", ".join(words.get(key, key + " {}").format(value) for key, value in chosen.items())


def as_json(value: Any) -> Any:
    """Return the same as strict JSON data: no numpy, no NaN."""
    if is_dataclass(value):
        value = vars(value)
    if isinstance(value, Mapping):
        return {str(key): as_json(item) for key, item in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return as_json(value.tolist())
    if isinstance(value, list | tuple):
        return [as_json(item) for item in value]
    if isinstance(value, float):
        return value if np.isfinite(value) else None
    return value if isinstance(value, str | int | None) else str(value)
