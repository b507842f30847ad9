"""Audio to features: sources, plan, reading, windows, encoding, pooling."""

from .outlook import Outlook, measured
from .parts import Part, parse_part
from .pipeline import Extraction
from .planning import Plan, plan
from .sources import LazyClip, Source

__all__ = [
    "Extraction",
    "LazyClip",
    "Outlook",
    "Part",
    "Plan",
    "Source",
    "measured",
    "parse_part",
    "plan",
]
