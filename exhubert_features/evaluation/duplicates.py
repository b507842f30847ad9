"""The same audio filed twice: found by its hash, so that no split puts it on both sides."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

NAMED = 5


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
