"""What predictions are worth: labels, splits, figures of merit, intervals and tests."""
