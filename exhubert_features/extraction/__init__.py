"""Audio to features: sources, plan, decoding, windows, encoding, pooling."""

from .extraction import Extraction, extract

__all__ = [
    "Extraction",
    "extract",
]
