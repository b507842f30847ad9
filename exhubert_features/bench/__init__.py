"""Figures a user can measure: the store, and extraction from end to end."""
