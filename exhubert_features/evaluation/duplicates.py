"""Who is the same: speakers of several corpora, and audio filed twice, found by its hash."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from .values import unite_lookalikes

NAMED = 5


def qualify_groups(
    names: Sequence[str], corpora: Sequence[str], what: str
) -> tuple[list[str], list[str]]:
    """Write groups of several corpora as ``corpus/name``: the same name there is another person.

    Parameters
    ----------
    names, corpora
        Speaker (N,), or other group, and corpus (N,) of each clip.
    what
        What a group is, for the note: "speaker".

    Returns
    -------
    tuple
        The names (N,); and a note on those that stand in several corpora.
    """
    corpora, notes = unite_lookalikes(corpora, "corpus")
    qualified, holders = list(names), defaultdict(set)
    for corpus in dict.fromkeys(corpora):
        rows = [row for row, own in enumerate(corpora) if own == corpus]
        united, alike = unite_lookalikes([names[row] for row in rows], what)
        notes += [f"{corpus}: {note}" for note in alike]
        for row, name in zip(rows, united, strict=True):
            qualified[row] = f"{corpus}/{name}"
            holders[name].add(corpus)
    shared = sorted(name for name, where in holders.items() if len(where) > 1)
    if shared:
        shown = ", ".join(shared[:NAMED]) + (", ..." if len(shared) > NAMED else "")
        notes.append(
            f"{len(shared)} names of a {what} stand in several corpora ({shown}): taken for "
            "different people. Stores of one corpus are given one name: NAME=STORE"
        )
    return qualified, notes


def unite_same_audio(
    owners: Sequence[str], audio: Sequence[str], ids: Sequence[str], what: str
) -> tuple[np.ndarray, list[str]]:
    """Give owners that share audio one name, and say which clips made it so.

    Parameters
    ----------
    owners
        Speaker (N,), or other group, of each clip.
    audio
        Hash (N,) of each clip's audio; an empty one is unknown and equals no other.
    ids
        Name (N,) of each clip.
    what
        What an owner is, for the note: "speaker".

    Returns
    -------
    tuple
        Owners (N,), united ones as ``s1 + s2``; and notes for the report.
    """
    root = {owner: owner for owner in owners}

    def find(owner: str) -> str:
        while root[owner] != owner:
            root[owner] = owner = root[root[owner]]
        return owner

    shared = _clips_by_audio(owners, audio)
    for clips in shared:
        first, *others = sorted({find(owners[clip]) for clip in clips})
        for other in others:
            root[other] = first
    members: dict[str, list[str]] = defaultdict(list)
    for owner in sorted(root):
        members[find(owner)].append(owner)
    united = np.array([" + ".join(members[find(owner)]) for owner in owners])
    if not shared:
        return united, []
    named = "; ".join(" = ".join(ids[clip] for clip in clips) for clips in shared[:NAMED])
    more = "; ..." if len(shared) > NAMED else ""
    return united, [
        f"{len(shared)} recordings are filed under more than one {what} (the same audio: "
        f"{named}{more}): these {what}s count as one group, for a split between them would leak"
    ]


def _clips_by_audio(owners: Sequence[str], audio: Sequence[str]) -> list[list[int]]:
    """Positions of clips with the same audio under different owners."""
    same: dict[str, list[int]] = defaultdict(list)
    for position, digest in enumerate(audio):
        if digest:
            same[digest].append(position)
    return [clips for clips in same.values() if len({owners[clip] for clip in clips}) > 1]
