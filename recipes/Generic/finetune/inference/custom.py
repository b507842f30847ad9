"""The class that speechbrain's foreign_class() takes by default."""

from exhubert_features.speechbrain import EmotionClassifier as CustomInterface

__all__ = ["CustomInterface"]
