"""What flows from stage to stage: a clip named, read, as features or as a failure; a figure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One clip as a source names it, before anything of its audio is read.

    A file or a part of it, of which ``in_samples`` tells the unit of start and end (seconds, or
    samples at the file's own rate); or what ``load`` gives, an array or a pair (array, rate).
    """

    id: str
    file: str = ""
    start: float = 0.0
    end: float | None = None
    in_samples: bool = False
    meta: Mapping[str, str] = field(default_factory=dict)
    load: Callable[[], Any] | None = field(default=None, repr=False)

    @property
    def whole(self) -> bool:
        """Whether it is all of its file."""
        return not self.start and self.end is None

    def clip(self) -> PlannedClip:
        """Give the clip as far as it is known without reading it."""
        place = {} if self.in_samples else {"start": self.start, "end": self.end}
        return PlannedClip(id=self.id, file=self.file, meta=self.meta, **place)  # type: ignore[arg-type]


@dataclass(frozen=True, kw_only=True)
class PlannedClip:
    """One clip that shall become features, as it was read.

    ``file`` is the path as the user knows it (empty for arrays in memory), ``start`` and
    ``end`` are seconds inside that file (``end`` is None: to the end of the file),
    ``samples`` counts at 16 kHz (0 where nobody had to know), and ``audio_sha256`` is the
    hash of the file's bytes (for a part of a file also of its bounds, for arrays of the float32
    samples; empty where they could not be read).
    """

    id: str
    file: str = ""
    start: float = 0.0
    end: float | None = None
    samples: int = 0
    audio_sha256: str = ""
    meta: Mapping[str, str] = field(default_factory=dict)

    def failure(self, kind: str, reason: str) -> ClipFailure:
        """Record that this clip did not become features."""
        return ClipFailure(
            id=self.id,
            file=self.file,
            start=self.start,
            end=self.end,
            kind=kind,
            reason=reason,
            audio_sha256=self.audio_sha256,
        )


@dataclass(frozen=True, kw_only=True)
class ClipFeatures:
    """One row of features: a whole clip or, with ``--segments``, one window of it.

    ``pooled`` is (L, P, D): stored layers, pools, width. ``logits`` is (C,) or None,
    ``frames`` is (F, T, D), the frame layers asked for, or None, and ``frame_times`` (T,) when
    they are: seconds inside the file, the middle of what each frame hears. ``id`` is the clip's
    id, or ``<clip>#0003`` for window 3 of it; ``clip_id`` is always the clip's.
    """

    id: str
    clip_id: str
    file: str
    start: float
    end: float
    samples: int
    audio_sha256: str
    pooled: np.ndarray
    logits: np.ndarray | None = None
    frames: np.ndarray | None = None
    frame_times: np.ndarray | None = None
    warnings: tuple[str, ...] = ()  # for example "silent"
    meta: Mapping[str, str] = field(default_factory=dict)

    @property
    def status(self) -> str:
        """The warnings in one word for tables: "ok" when there are none."""
        return ",".join(self.warnings) or "ok"


@dataclass(frozen=True, kw_only=True)
class ClipFailure:
    """One clip that did not become features, and why."""

    id: str
    file: str
    kind: str  # one short word to count by: "unreadable", "too_short", "nan", ...
    reason: str  # the whole sentence for the user
    start: float = 0.0  # seconds inside the file
    end: float | None = None  # None: to its end
    audio_sha256: str = ""  # empty when the clip could not even be planned


Item = Entry | ClipFailure  # of a plan: what to do, and what cannot be done


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A figure and its 95 % interval."""

    value: float
    low: float
    high: float
