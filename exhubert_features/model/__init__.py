"""The model in torch: sizes, building blocks, forward pass."""

from .network import (
    ExHuBERTNetwork,
    Hubert,
    ModelOutput,
    OnState,
    classify_frames,
    frame_lengths,
    span_mask,
)

__all__ = [
    "ExHuBERTNetwork",
    "Hubert",
    "ModelOutput",
    "OnState",
    "classify_frames",
    "frame_lengths",
    "span_mask",
]
