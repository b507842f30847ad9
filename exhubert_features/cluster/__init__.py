"""Extraction by many machines: blocks of clips, dealt out, retried, committed; ``[ray]``."""

from .engine import extract_on_ray
from .places import Cluster
from .worker import Job, Tally

__all__ = ["Cluster", "Job", "Tally", "extract_on_ray"]
