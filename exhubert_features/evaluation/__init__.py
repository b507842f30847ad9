"""Labels joined to features, and folds that keep speakers apart."""

from .labels import Labels, failed_rows, join_labels, read_table, store_rows

__all__ = [
    "Labels",
    "failed_rows",
    "join_labels",
    "read_table",
    "store_rows",
]
