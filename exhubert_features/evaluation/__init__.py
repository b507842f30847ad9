"""What predictions are worth: labels, splits, figures of merit, intervals and the result."""

from .labels import Labels, failed_rows, join_labels, read_table, store_rows

__all__ = [
    "Labels",
    "failed_rows",
    "join_labels",
    "read_table",
    "store_rows",
]
