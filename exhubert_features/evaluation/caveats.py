"""Sentences on what a sample of clips can and cannot show."""

from __future__ import annotations

from collections.abc import Sequence

from .intervals import group_warnings
from .labels import Labels
from .metrics import TEMPERATURES, absent_classes
from .splits import Protocol


def temperature_warnings(temperatures: Sequence[float]) -> list[str]:
    """Name temperatures that ended at a bound of the search: they fit nothing."""
    low, high = TEMPERATURES
    at_bound = [value for value in temperatures if value < 1.01 * low or value > high / 1.01]
    if not at_bound:
        return []
    return [
        f"In {len(at_bound)} of {len(temperatures)} folds the temperature is at a bound of its "
        f"search ({low:g} to {high:g}), as where every inner clip or none is told right: scaled "
        "probabilities mean little there"
    ]


def sample_warnings(labels: Labels, protocol: Protocol) -> list[str]:
    """Name what makes figures of the tested clips doubtful: few groups, absent classes."""
    rows = protocol.tested[labels.decided[protocol.tested]]
    notes = group_warnings(
        labels.groups[rows] if labels.group else None,
        labels.values[rows],
        classes=labels.classes,
        group=labels.group or "speaker",
    )
    if not labels.classes:
        return notes
    absent = absent_classes(labels.values[rows], labels.classes)
    if absent:
        notes.append(f"No tested clip is {' or '.join(absent)}: UAR and macro-F1 leave that out")
    for fold in protocol.folds:
        unseen = absent_classes(labels.values[fold.train], labels.classes)
        if len(fold.train) and unseen:
            notes.append(f"{fold.name}: no training clip is {' or '.join(unseen)}")
    return notes
