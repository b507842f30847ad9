"""The model in torch: sizes, building blocks, forward pass."""

from .model import ExHuBERT, Hubert, ModelOutput, Reduce, classify_frames, frame_lengths, span_mask

__all__ = [
    "ExHuBERT",
    "Hubert",
    "ModelOutput",
    "Reduce",
    "classify_frames",
    "frame_lengths",
    "span_mask",
]
