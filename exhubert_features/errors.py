"""Errors a user can act on: what was found, what was expected, what to do."""

from __future__ import annotations


class ExHuBERTError(Exception):
    """Root of every error this package raises on purpose.

    Parameters
    ----------
    found
        What is wrong, naming the file, clip or key concerned.
    expected
        What would have been right.
    remedy
        What the user can do about it.
    """

    exit_code = 1  # what the command line ends with

    def __init__(self, found: str, *, expected: str = "", remedy: str = "") -> None:
        parts = [found.rstrip(".")]
        if expected:
            parts.append(f"expected {expected.rstrip('.')}")
        message = "; ".join(parts) + "."
        if remedy:
            message += f" {remedy.rstrip('.')}."
        super().__init__(message)


class UsageError(ExHuBERTError, ValueError):
    """An argument or option that cannot be used as given."""

    exit_code = 2


class AudioError(ExHuBERTError, ValueError):
    """A waveform or audio file that cannot become features.

    ``kind`` is one short word to count failures by: "unreadable", "too_short", "nan", ...
    """

    exit_code = 3

    def __init__(
        self, found: str, *, expected: str = "", remedy: str = "", kind: str = "audio"
    ) -> None:
        super().__init__(found, expected=expected, remedy=remedy)
        self.kind = kind


class CheckpointError(ExHuBERTError):
    """A checkpoint that cannot be found, trusted or used whole."""


class StoreError(ExHuBERTError):
    """A feature store that cannot be opened, read or written."""


class FingerprintMismatch(StoreError):
    """Features made with other weights or settings than the ones at hand."""


class DamagedStore(StoreError):
    """Stored bytes that no longer match their hash or their plan."""

    exit_code = 4


class LabelError(ExHuBERTError, ValueError):
    """Labels, groups or splits that do not fit the features or the protocol."""


class CorpusError(ExHuBERTError, ValueError):
    """A corpus' folder that is not as its release is known to be."""


class MissingDependency(ExHuBERTError, ImportError):
    """A host toolkit is needed for this one job and cannot be imported."""
