"""What a head remembers of whom it was trained on: hashes, never names."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

from ..evaluation import Labels
from .modules import Head

DIGITS = 16  # hex digits of a hash: enough to know a clip or a name again
NAMED = 5


def remember(labels: Labels) -> dict[str, Any]:
    """Return hashes of the clips' audio and of the groups' names, for a head's notes."""
    return {
        "audio": sorted({digest[:DIGITS] for digest in _audio(labels) if digest}),
        "group_names": sorted(
            {
                _hash(spelling)
                for name in np.unique(labels.groups)
                for part in _parts(str(name))
                for spelling in _spellings(part)
            }
        )
        if labels.group
        else [],
    }


def overlap_warnings(head: Head, labels: Labels) -> list[str]:
    """Say which clips and speakers of a test the head was trained on."""
    notes = []
    seen = np.isin([digest[:DIGITS] for digest in _audio(labels)], head.notes.get("audio", []))
    if seen.any():
        notes.append(
            f"{seen.sum()} of {len(seen)} clips were among the head's training clips: this is "
            "not a test on unseen data"
        )
    known = set(head.notes.get("group_names", []))
    names = [str(name) for name in np.unique(labels.groups)] if labels.group else []
    met = [name for name in names if known & {*map(_hash, _sought(name))}]
    if met:
        shown = ", ".join(met[:NAMED]) + (", ..." if len(met) > NAMED else "")
        notes.append(
            f"{len(met)} of {len(names)} groups ({labels.group}) have the names of groups that "
            f"the head was trained on ({shown}): if they are the same people, this is not a test "
            "on unseen speakers"
        )
    return notes


def _audio(labels: Labels) -> list[str]:
    return [] if labels.audio is None else labels.audio.tolist()


def _parts(name: str) -> list[str]:
    """Take apart the name of groups that share audio, united as ``a + b``."""
    return name.split(" + ")


def _spellings(name: str) -> list[str]:
    """Spell a group as it is called, and without its corpus, for tests that name none."""
    _, slash, own = name.partition("/")
    return [name, f"*/{own}"] if slash else [name]


def _sought(name: str) -> list[str]:
    """Spell a tested group as it may have been called; in another corpus the name is not its."""
    return [
        spelling
        for part in _parts(name)
        for _, slash, own in [part.partition("/")]
        for spelling in (part, own if slash else f"*/{part}")
    ]


def _hash(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()[:DIGITS]
