"""What one corpus is: how its files are named, labelled and divided."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from .clips import Clip
from .division import Division
from .walking import Tree

Side = Any  # what a corpus' own label files say; each corpus has its own kind


class NoClip(Exception):
    """A file that the rule knows and that is no clip, with the reason.

    ``known`` tells a documented flaw of the release from something to be looked at.
    """

    def __init__(self, reason: str, *, known: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.known = known


def _nothing(tree: Tree) -> Side:
    """For corpora whose file names say everything."""
    return None


def _nobody(side: Side) -> Iterable[str]:
    """For corpora without a list of their clips."""
    return ()


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """One corpus. All rules are matched against the whole path below ROOT, by :func:`fits`.

    Parameters
    ----------
    name
        The word for ``exhubert prepare``.
    layout
        What ROOT should hold, for messages.
    rule
        Which files are clips; its groups are what ``describe`` reads.
    describe
        The clips of a file (mostly one) out of the match and what ``load`` found; may raise
        :class:`NoClip`.
    load
        Reads the corpus' own label files, once.
    expected
        Ids that the label files speak of: each should have a file.
    exceptions
        Rule for ids -> why they are left out by default.
    beside
        Audio of the release that is no clip of its own, such as whole dialogs.
    spare
        Files that count only where an id has no other.
    videos
        Whether videos are clips too, for corpora that come as such.
    distinctive
        Whether several files that fit the rule give the corpus away.
    """

    name: str
    layout: str
    rule: re.Pattern[str]
    describe: Callable[[re.Match[str], Side], Iterable[Clip]]
    division: Division
    load: Callable[[Tree], Side] = _nothing
    expected: Callable[[Side], Iterable[str]] = _nobody
    exceptions: Mapping[str, str] = field(default_factory=dict)
    beside: re.Pattern[str] | None = None
    spare: re.Pattern[str] | None = None
    videos: bool = False
    distinctive: bool = True


def rule(pattern: str) -> re.Pattern[str]:
    """Make a rule for paths: the pattern, below any folders and before any suffix."""
    return re.compile(rf"(?:.*/)?{pattern}\.[^./]+")


def fits(pattern: re.Pattern[str] | None, name: str) -> re.Match[str] | None:
    """Match a whole path, its accents in one form; None also without a pattern."""
    return pattern.fullmatch(unicodedata.normalize("NFC", name)) if pattern else None


def gender(letter: str) -> str:
    """``female`` or ``male`` of a letter in any case; empty for others."""
    return {"f": "female", "m": "male"}.get(letter.lower(), "")
