"""What an evaluation found, as a page, pictures and JSON."""

from .content import (
    HeadComparison,
    LayerCurve,
    Report,
    comparison_words,
    group_scores,
    metric_name,
    plain,
)
from .writing import write_report

__all__ = [
    "HeadComparison",
    "LayerCurve",
    "Report",
    "comparison_words",
    "group_scores",
    "metric_name",
    "plain",
    "write_report",
]
