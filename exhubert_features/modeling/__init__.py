"""The model in torch: sizes, building blocks, forward pass."""

from .model import ExHuBERT, Hubert, Reduce, classify_frames, frame_lengths, span_mask

__all__ = [
    "ExHuBERT",
    "Hubert",
    "Reduce",
    "classify_frames",
    "frame_lengths",
    "span_mask",
]
