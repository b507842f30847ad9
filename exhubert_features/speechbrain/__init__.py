"""ExHuBERT inside SpeechBrain: the lobe, learned layer weights, an inference interface."""

try:
    # The real one, for imports are absolute; this submodule needs all that ours need.
    import speechbrain.inference.interfaces as _  # noqa: F401
except ImportError as error:
    from ..errors import MissingDependency

    raise MissingDependency(
        f"SpeechBrain cannot be imported ({error})",
        expected="speechbrain 1.1 for exhubert_features.speechbrain",
        remedy="pip install 'speechbrain>=1.1,<1.2'; the rest of exhubert_features works without",
    ) from error

from .checkpointer import WholeCheckpointer
from .inference import EmotionClassifier
from .layer_weights import LayerWeights
from .lobe import ExHuBERT, LobeOutput

__all__ = [
    "EmotionClassifier",
    "ExHuBERT",
    "LayerWeights",
    "LobeOutput",
    "WholeCheckpointer",
]
