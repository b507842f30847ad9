"""Audio to features: sources, plan, decoding, windows, encoding, pooling."""

from .manifest import Entry
from .parts import Part, parse_part
from .pipeline import Extraction
from .planning import Plan, plan_clips, plan_entries, plan_ids
from .sources import LazyClip, Source, read_source

__all__ = [
    "Entry",
    "Extraction",
    "LazyClip",
    "Part",
    "Plan",
    "Source",
    "parse_part",
    "plan_clips",
    "plan_entries",
    "plan_ids",
    "read_source",
]
