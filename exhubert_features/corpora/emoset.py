"""EmoSet++: the 37 corpora on which the released ExHuBERT was fine-tuned, as far as known."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What public sources say of one corpus.

    ``name`` is as the model's authors list it, ``aliases`` are ours. ``parser`` is the word for
    ``exhubert prepare``, empty where the layout is not public. ``clips`` are the sizes of its
    known releases.
    """

    name: str
    aliases: tuple[str, ...]
    languages: str  # codes, separated by blanks; empty: unknown
    size: str
    access: str
    licence: str
    parser: str = ""
    clips: tuple[int, ...] = ()


@cache
def emoset() -> dict[str, Facts]:
    """All 37 by name, in alphabetical order."""
    text = Path(__file__).with_name("emoset.json").read_text(encoding="utf-8")
    found = [
        Facts(
            **{**entry, "aliases": tuple(entry["aliases"]), "clips": tuple(entry.get("clips", ()))}
        )
        for entry in json.loads(text)
    ]
    return {facts.name: facts for facts in found}


@cache
def names_in_use() -> dict[str, str]:
    """Each name and alias in plain letters -> the corpus' name."""
    return {
        plain(alias): facts.name
        for facts in emoset().values()
        for alias in (facts.name, facts.parser, *facts.aliases)
        if alias
    }


def facts_of(parser: str) -> Facts | None:
    """Look up the facts of the corpus that a parser reads; None for the generic one."""
    return next((facts for facts in emoset().values() if facts.parser == parser), None)


def plain(text: str) -> str:
    """Letters and digits only, in lower case: ``EMO-DB`` and ``emodb`` are one name."""
    return re.sub(r"[^a-z0-9]", "", text.lower())
