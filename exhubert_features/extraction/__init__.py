"""Audio to features: sources, plan, decoding, windows, encoding, pooling."""

from .pipeline import Extraction, extract

__all__ = [
    "Extraction",
    "extract",
]
