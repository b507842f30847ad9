"""One row of a store, and the error for a row that is not there."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import StoreError


class UnknownId(StoreError, KeyError):
    """An id that is not in the store."""

    def __str__(self) -> str:
        return Exception.__str__(self)  # KeyError would show the message quoted


@dataclass(frozen=True, kw_only=True)
class StoredFeatures:
    """One row of a store.

    ``pooled`` is (L, P, D), ``logits`` (C,) or None, ``frames`` (F, T, D) or None.
    """

    id: str
    clip_id: str
    file: str
    start: float
    end: float
    samples: int
    audio_sha256: str
    status: str  # "ok", or warnings joined by commas
    pooled: np.ndarray
    logits: np.ndarray | None
    frames: np.ndarray | None
    meta: dict[str, str]


def unknown_id(name: str, ids: list[str], store: Path) -> UnknownId:
    """The error for an id that is not in a store, naming ids that may have been meant."""
    stem = str(name).rsplit("/", 1)[-1].rsplit(".", 1)[0]
    near = [other for other in ids if stem and stem in other][:3]
    # Comparing letter by letter is slow: a sample is enough for a hint.
    near = near or difflib.get_close_matches(str(name), ids[:5000], n=3)
    return UnknownId(
        f"id {name!r} is not among the {len(ids)} rows of {store}",
        expected="an id such as " + ", ".join(map(repr, near)) if near else "",
    )
