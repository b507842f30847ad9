"""Extraction by several processes or machines: blocks of clips, dealt out, retried, committed."""

from __future__ import annotations

from .schedule import Block, Schedule
from .worker import Job, Outcome, Worker

__all__ = ["Block", "Job", "Outcome", "Schedule", "Worker"]
