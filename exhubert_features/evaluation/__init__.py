"""What predictions are worth: labels, splits, figures of merit, intervals and the result."""

from .labels import LabelOptions, Labels, join_labels
from .result import Evaluation
from .splits import SplitOptions

__all__ = ["Evaluation", "LabelOptions", "Labels", "SplitOptions", "join_labels"]
