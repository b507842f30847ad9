"""Default splits and folds: speakers stay on one side, and the same files give the same parts."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from .clips import Clip

TRAIN, DEV, TEST = "train", "dev", "test"

Assignment = Callable[[Sequence[Clip]], list[str]]


@dataclass(frozen=True, kw_only=True)
class Division:
    """How a corpus is divided. ``words`` says it to the user.

    ``split`` None: the last fold is the test part, the one before it the development part.
    ``shared`` names the columns whose published parts share speakers.
    """

    words: str
    folds: Assignment
    split: Assignment | None = None
    shared: tuple[str, ...] = ()

    def assign(self, clips: Sequence[Clip]) -> list[Clip]:
        """Give the clips their split and fold."""
        folds = self.folds(clips)
        splits = self.split(clips) if self.split else _split_by_folds(folds)
        return [
            replace(clip, split=split, fold=fold)
            for clip, split, fold in zip(clips, splits, folds, strict=True)
        ]


def one_out(key: Callable[[Clip], str] = lambda clip: clip.speaker) -> Assignment:
    """One fold for each speaker (or session), in their order."""

    def assign(clips: Sequence[Clip]) -> list[str]:
        order = {name: index for index, name in enumerate(sorted({key(clip) for clip in clips}))}
        return [str(order[key(clip)] + 1) for clip in clips]

    return assign


def listed(folds: Mapping[str, int]) -> Assignment:
    """Folds by a table of speakers."""
    return lambda clips: [str(folds[clip.speaker]) for clip in clips]


def dealt(count: int = 5) -> Assignment:
    """Folds of whole groups, each with about its share of every label.

    The largest groups are dealt first, each to the fold that has least of its labels; equal
    ones in an order that their names' hashes give.
    """

    def assign(clips: Sequence[Clip]) -> list[str]:
        owners = united(clips)
        members: dict[str, Counter[str]] = defaultdict(Counter)
        for clip, owner in zip(clips, owners, strict=True):
            members[owner][clip.label] += 1
        folds = _deal(members, Counter(clip.label for clip in clips), count)
        return [str(folds[owner] + 1) for owner in owners]

    return assign


def named(*, dev: Collection[str] = (), test: Collection[str]) -> Assignment:
    """Split by lists of speakers; all others are for training."""
    parts = {**dict.fromkeys(dev, DEV), **dict.fromkeys(test, TEST)}
    return lambda clips: [parts.get(clip.speaker, TRAIN) for clip in clips]


def given(clips: Sequence[Clip]) -> list[str]:
    """Take the split that the corpus itself gives."""
    return [clip.split for clip in clips]


def united(clips: Sequence[Clip]) -> list[str]:
    """Name what each clip belongs to: clips that share any owner have the same name."""
    parents: dict[str, str] = {}

    def find(name: str) -> str:
        while parents.setdefault(name, name) != name:
            parents[name] = parents[parents[name]]
            name = parents[name]
        return name

    for clip in clips:
        first, *others = sorted(clip.owners)
        for other in others:
            parents[find(other)] = find(first)
    return [find(min(clip.owners)) for clip in clips]


def _deal(members: Mapping[str, Counter[str]], totals: Counter[str], count: int) -> dict[str, int]:
    count = min(count, len(members))
    held: list[Counter[str]] = [Counter() for _ in range(count)]
    folds = {}
    for name in sorted(members, key=lambda name: (-members[name].total(), _hash(name))):
        own = members[name]

        def cost(fold: int, own: Counter[str] = own) -> tuple[float, int, int]:
            there = held[fold]
            common = sum(there[label] * own[label] / totals[label] ** 2 for label in own)
            return common, there.total(), fold

        folds[name] = min(range(count), key=cost)
        held[folds[name]] += own
    return folds


def _split_by_folds(folds: Sequence[str]) -> list[str]:
    order = sorted(set(folds), key=lambda name: (len(name), name))
    parts = dict.fromkeys(order, TRAIN)
    if len(order) > 2:
        parts[order[-2]] = DEV
    if len(order) > 1:
        parts[order[-1]] = TEST
    return [parts[fold] for fold in folds]


def _hash(name: str) -> str:
    return hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()
