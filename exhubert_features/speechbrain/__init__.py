"""ExHuBERT inside SpeechBrain: the lobe, learned layer weights, an inference interface."""

try:
    # The real one, for imports are absolute; this submodule needs all that ours need.
    import speechbrain.inference.interfaces as _  # noqa: F401
except (ImportError, OSError, RuntimeError) as error:  # torchaudio of another torch or CUDA
    from ..errors import MissingDependency

    raise MissingDependency(
        f"SpeechBrain cannot be imported ({error})",
        expected="speechbrain 1.0.3 to 1.1 for exhubert_features.speechbrain",
        remedy="pip install 'exhubert-features[speechbrain]'; `exhubert doctor` says what is wrong "
        "where it is installed; the rest of exhubert_features works without",
    ) from error

from .batches import UsableClips
from .checkpointer import WholeCheckpointer
from .feature_cache import cache_stored_features, store_cached_features
from .inference import EmotionClassifier
from .layer_weights import LayerWeights
from .lobe import ExHuBERT, LobeOutput
from .weighted import WeightedExHuBERT

__all__ = [
    "EmotionClassifier",
    "ExHuBERT",
    "LayerWeights",
    "LobeOutput",
    "UsableClips",
    "WeightedExHuBERT",
    "WholeCheckpointer",
    "cache_stored_features",
    "store_cached_features",
]
