"""Audio to features: sources, plan, decoding, windows, encoding, pooling."""

from .parts import Part, parse_part
from .pipeline import Extraction
from .planning import Plan, plan_clips
from .sources import LazyClip, Source

__all__ = ["Extraction", "LazyClip", "Part", "Plan", "Source", "parse_part", "plan_clips"]
