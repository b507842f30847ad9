"""The corpora of EmoSet++: reading them, dividing them, recognising them."""

from __future__ import annotations

from .emoset import Facts, emoset
from .manifests import as_csv, as_speechbrain, manifest_rows
from .preparing import Choices, Prepared, prepare
from .recognition import find_corpus, recognise, seen_in_training
from .six_classes import SixClassMap, read_map, shipped_map

__all__ = [
    "Choices",
    "Facts",
    "Prepared",
    "SixClassMap",
    "as_csv",
    "as_speechbrain",
    "emoset",
    "find_corpus",
    "manifest_rows",
    "prepare",
    "read_map",
    "recognise",
    "seen_in_training",
    "shipped_map",
]
