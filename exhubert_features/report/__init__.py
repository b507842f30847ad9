"""What an evaluation found, as a page, pictures and JSON."""

from .report import LayerCurve, Report, group_scores, metric_name, write_report

__all__ = [
    "LayerCurve",
    "Report",
    "group_scores",
    "metric_name",
    "write_report",
]
