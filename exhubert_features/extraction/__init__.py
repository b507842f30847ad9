"""Audio to features: sources, plan, decoding, windows, encoding, pooling."""

from .pipeline import Extraction
from .planning import Plan, plan_clips
from .sources import Source

__all__ = ["Extraction", "Plan", "Source", "plan_clips"]
