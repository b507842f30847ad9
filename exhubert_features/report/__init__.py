"""What an evaluation found, as a page, pictures and JSON."""

from .content import (
    CalibrationCurve,
    GroupScore,
    HeadComparison,
    LayerCurve,
    Mistake,
    PartScore,
    Report,
    as_json,
    comparison_words,
    dealing_words,
    metric_name,
    setting_words,
)
from .table import RunRow, write_table
from .writing import write_report

__all__ = [
    "CalibrationCurve",
    "GroupScore",
    "HeadComparison",
    "LayerCurve",
    "Mistake",
    "PartScore",
    "Report",
    "RunRow",
    "as_json",
    "comparison_words",
    "dealing_words",
    "metric_name",
    "setting_words",
    "write_report",
    "write_table",
]
