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
from .options import FitOptions
from .probing import probe
from .testing import evaluate
from .training import Trained, train

__all__ = [
    "HEADS",
    "AttentionHead",
    "Batch",
    "FeatureReader",
    "FitOptions",
    "Head",
    "HeadConfig",
    "LinearHead",
    "MLPHead",
    "Predictions",
    "Trained",
    "WeightedHead",
    "build_head",
    "check_fingerprint",
    "evaluate",
    "load_head",
    "probe",
    "save_head",
    "train",
]
