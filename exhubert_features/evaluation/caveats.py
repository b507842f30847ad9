"""Sentences on what a sample of clips can and cannot show."""

from __future__ import annotations

from .intervals import group_warnings
from .labels import Labels
from .metrics import absent_classes
from .splits import Protocol


def sample_warnings(labels: Labels, protocol: Protocol) -> list[str]:
    """Name what makes figures of the tested clips doubtful: few groups, absent classes."""
    rows = protocol.tested
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
