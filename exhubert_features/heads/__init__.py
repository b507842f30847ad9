"""Light heads on cached features: plain ``nn.Module``s, saved as safetensors and JSON."""

from .features import Batch, FeatureReader, HeadConfig, check_fingerprint
from .files import load_head, save_head
from .modules import (
    HEADS,
    AttentionHead,
    Head,
    LinearHead,
    MLPHead,
    Predictions,
    WeightedHead,
    build_head,
)

__all__ = [
    "HEADS",
    "AttentionHead",
    "Batch",
    "FeatureReader",
    "Head",
    "HeadConfig",
    "LinearHead",
    "MLPHead",
    "Predictions",
    "WeightedHead",
    "build_head",
    "check_fingerprint",
    "load_head",
    "save_head",
]
