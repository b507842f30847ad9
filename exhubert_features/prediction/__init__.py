"""From recordings to class probabilities, and their course over time."""

from .prediction import Prediction, marginals, predict, prediction_spec

__all__ = [
    "Prediction",
    "marginals",
    "predict",
    "prediction_spec",
]
