"""Audio to features: sources, plan, decoding, windows, encoding, pooling."""

from .pipeline import Extraction
from .planning import Plan, plan_clips
from .sources import LazyClip, Source

__all__ = ["Extraction", "LazyClip", "Plan", "Source", "plan_clips"]
