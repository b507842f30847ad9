"""transformers: config, feature extractor and models for its Auto classes and pipelines.

Importing this module registers them; each of its files registers its own class, so that a fresh
process that unpickles one of them knows the others' names too.
"""

from .configuration import ExHuBERTHubConfig
from .feature_extraction import ExHuBERTFeatureExtractor
from .modeling import ExHuBERTForAudioClassification, ExHuBERTModel

__all__ = [
    "ExHuBERTFeatureExtractor",
    "ExHuBERTForAudioClassification",
    "ExHuBERTHubConfig",
    "ExHuBERTModel",
]
