"""A corpus' folder to the rows of a manifest."""

from __future__ import annotations

import unicodedata
from collections import Counter, defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import CorpusError
from ..spec import CLASSES
from .clips import Clip
from .corpus import Corpus
from .reading import Flaw, Reading, read_corpus
from .six_classes import Mapped, SixClassMap, shipped_map

SHOWN = 3  # examples of each kind of flaw
Row = dict[str, str]


@dataclass(frozen=True, kw_only=True)
class Choices:
    """What goes into a manifest."""

    lenient: bool = False  # a file left out without a word would be a hole in every result
    labels: tuple[str, ...] = ()  # none named: all that the corpus has
    six_only: bool = False  # most tasks want the corpus' own labels, whatever their class
    keep_exceptions: bool = False  # documented flaws of a release help nobody
    six_classes: SixClassMap = field(default_factory=shipped_map)


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """Clips with their parts and classes, and what a reader of the manifest should know.

    ``classes`` gives the six-class row of each label, None where the map has none;
    ``chosen_away`` counts clips by labels that were not asked for.
    """

    corpus: Corpus
    reading: Reading
    clips: tuple[Clip, ...]
    classes: dict[str, Mapped | None]
    chosen_away: Counter[str]
    lenient: bool

    @property
    def flaws(self) -> tuple[Flaw, ...]:
        """What was left out for being in no order; the strict way raises instead."""
        return self.reading.flaws

    @property
    def absent(self) -> tuple[str, ...]:
        """Those of the six classes that no clip has."""
        there = {mapped.number for mapped in self.classes.values() if mapped}
        return tuple(name for number, name in enumerate(CLASSES) if number not in there)

    def shared(self, column: str) -> list[str]:
        """Speakers that stand in more than one ``split`` or ``fold``."""
        parts: dict[str, set[str]] = defaultdict(set)
        for clip in self.clips:
            if clip.speaker:
                parts[clip.speaker].add(getattr(clip, column))
        return sorted(speaker for speaker, names in parts.items() if len(names) > 1)


def prepare(corpus: Corpus, root: Path, choices: Choices | None = None) -> Prepared:
    """Read a corpus, divide it, give each clip its class.

    The division is of all labelled clips, before any choice among labels: the same clip stands
    in the same part whatever else was asked for.

    Raises
    ------
    CorpusError
        Where anything below ``root`` is not as it should be, unless lenient.
    """
    choices = choices or Choices()
    reading = read_corpus(corpus, root, keep_exceptions=choices.keep_exceptions)
    _name_flaws(corpus, reading, lenient=choices.lenient)
    clips = corpus.division.assign(reading.clips)
    table = choices.six_classes
    classes = {clip.label: table.find(clip.label, corpus.name) for clip in clips}
    unknown = [label for label in choices.labels if label not in classes]
    if unknown:
        raise CorpusError(
            f"no clip of {corpus.name} is labelled {', '.join(unknown)}",
            expected=f"labels out of {', '.join(sorted(classes))}",
        )
    kept = [clip for clip in clips if _is_asked_for(clip, choices, classes[clip.label])]
    if not kept:
        raise CorpusError(f"no clip of {corpus.name} is left by what was asked for")
    away = Counter(clip.label for clip in clips)
    away.subtract(clip.label for clip in kept)
    there = {clip.label for clip in kept}
    return Prepared(
        corpus=corpus,
        reading=reading,
        clips=tuple(kept),
        classes={label: mapped for label, mapped in sorted(classes.items()) if label in there},
        chosen_away=+away,
        lenient=choices.lenient,
    )


def _is_asked_for(clip: Clip, choices: Choices, mapped: Mapped | None) -> bool:
    if choices.labels and clip.label not in choices.labels:
        return False
    return not choices.six_only or (mapped is not None and mapped.number is not None)


def _name_flaws(corpus: Corpus, reading: Reading, *, lenient: bool) -> None:
    if not reading.flaws or (lenient and reading.clips):
        return
    if lenient:
        raise CorpusError(f"no clip below {reading.tree.root} is left", expected=corpus.layout)
    raise CorpusError(
        f"{reading.tree.root} is no whole and clean copy of {corpus.name}: "
        f"{'; '.join(_flaw_words(reading))}",
        expected=corpus.layout,
        remedy=_remedy(reading),
    )


def _flaw_words(reading: Reading) -> list[str]:
    """One line for each kind of flaw: how many, and the first few."""
    kinds: dict[str, list[Flaw]] = defaultdict(list)
    for flaw in reading.flaws:
        kinds[flaw.kind].append(flaw)
    return [f"{kind}: {len(flaws):,} ({_examples(flaws)})" for kind, flaws in kinds.items()]


def _examples(flaws: Sequence[Flaw]) -> str:
    words = [f"{flaw.name}: {flaw.reason}" if flaw.reason else flaw.name for flaw in flaws[:SHOWN]]
    return ", ".join([*words, *(["..."] if len(flaws) > SHOWN else [])])


def _remedy(reading: Reading) -> str:
    """Where all clips lie in one folder and the strangers elsewhere, that folder is meant."""
    go_on = "--lenient goes on without these"
    strangers = [flaw.name for flaw in reading.flaws if flaw.kind == "fits no rule"]
    folders = {clip.file.partition("/")[0] for clip in reading.clips if "/" in clip.file}
    if len(strangers) == len(reading.flaws) and len(folders) == 1:
        folder = folders.pop()
        if not any(name.startswith(f"{folder}/") for name in strangers):
            return f"All of its clips are in {reading.tree.root / folder}: give that; or {go_on}"
    return go_on[0].upper() + go_on[1:]


def require_plain_names(names: Collection[str]) -> None:
    """Raise for names that no text file can hold."""
    for name in names:
        try:
            name.encode("utf-8")
        except UnicodeEncodeError as error:
            shown = name.encode("utf-8", "backslashreplace").decode()
            raise CorpusError(
                f"the name {shown} is no valid text", expected="names in UTF-8"
            ) from error
        if any(unicodedata.category(letter) == "Cc" for letter in name):
            raise CorpusError(f"the name {name!r} holds control characters")
