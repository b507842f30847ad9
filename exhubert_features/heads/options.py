"""How heads are fitted, and what was chosen on the way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median, mode
from typing import Any, Literal

import numpy as np


@dataclass(frozen=True, kw_only=True)
class FitOptions:
    """How heads are fitted."""

    epochs: int = 60  # at most; early stopping usually ends after 10 to 30
    patience: int = 6  # epochs without a better loss on the held-out clips
    batch_size: int = 64
    learning_rate: float = 1e-3
    weight_decay: float = 1e-2
    hidden: int = 128  # see HeadConfig
    dropout: float = 0.2
    # C of the linear head: from nearly the classes' means to nearly no penalty, since layers
    # and corpora differ by orders of magnitude in what suits them
    penalties: tuple[float, ...] = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0, 100.0)
    # balanced: every class counts alike, as it does in UAR; corpus: as often as in the training
    # clips, for accuracy and for probabilities that hold where classes are as frequent
    prior: Literal["balanced", "corpus"] = "balanced"
    # of numbers, where descent fits them; None: 1 - CCC of each batch, for the squared error makes
    # predictions timid (mlp, 10 speakers, .50 to be found: CCC .38 by the one, .23 by the other)
    loss: Literal["ccc", "mse"] | None = None
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What the inner folds of a fold chose, and the outputs (N, C) they chose it by."""

    setting: dict[str, Any]
    inner_outputs: np.ndarray  # NaN for clips that were not held out


def agree(settings: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return one setting for the final head: what most folds chose, the median of the epochs."""
    return {
        key: _middle(key, values)
        for key in settings[0]
        for values in [[setting[key] for setting in settings]]
    }


def _middle(key: str, values: Sequence[Any]) -> Any:
    if key == "epochs":
        return round(median(values))
    return median(values) if key.startswith("stretch") else mode(values)


def edge_warnings(settings: Sequence[Mapping[str, Any]], options: FitOptions) -> list[str]:
    """Name choices that fell on the end of what was tried: beyond it may be better ones."""
    notes = []
    for end in (min(options.penalties), max(options.penalties)):
        count = [setting.get("C") for setting in settings].count(end)
        if count:
            notes.append(
                f"In {count} of {len(settings)} folds the penalty chosen was an end of what was "
                f"tried, C = {end:g}: one beyond may do better"
            )
    stopped = [setting.get("epochs") for setting in settings].count(options.epochs)
    if stopped:
        notes.append(
            f"In {stopped} of {len(settings)} folds the last of {options.epochs} epochs was the "
            "best one: --epochs or --learning-rate may be too small"
        )
    return notes
