"""Heads and probes fitted and judged on a store, with nested, grouped folds."""

from .training import Trained, describe, evaluate_head, train_head

__all__ = [
    "Trained",
    "describe",
    "evaluate_head",
    "train_head",
]
