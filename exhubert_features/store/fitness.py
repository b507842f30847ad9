"""Which rows may be stored: the right shape, numbers that fit, the audio that was planned."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ..errors import StoreError
from ..fingerprint import Fingerprint
from ..records import ClipFailure, ClipFeatures, PlannedClip

FLOAT16_LARGEST = 65_504.0


class Fitness:
    """Checks rows against a store's fingerprint and casts them to its dtype."""

    def __init__(self, fingerprint: Fingerprint) -> None:
        spec = fingerprint.spec
        self._dtype = np.dtype(spec.dtype)
        self._pooled = (len(fingerprint.layers), len(spec.pools), fingerprint.model.hidden_size)
        self._logits = fingerprint.has_logits
        self._frames = bool(spec.frame_layers)

    def refusal(self, clip: PlannedClip, rows: Sequence[ClipFeatures]) -> ClipFailure | None:
        """Why a clip's rows must not be stored, or None when they may.

        Raises
        ------
        StoreError
            When the rows are of another shape or clip than was promised: no fault of the audio.
        """
        if not rows:
            return refuse(clip, "empty", "the extraction returned no rows for it")
        for row in rows:
            self._require_promised(clip, row)
            if row.audio_sha256 != clip.audio_sha256:
                return refuse(clip, "changed", "the audio changed between planning and reading")
            for name in ("pooled", "logits", "frames"):
                array = getattr(row, name)
                if array is not None and (failure := self._unfit(clip, row.id, name, array)):
                    return failure
        return None

    def cast(self, row: ClipFeatures) -> ClipFeatures:
        """The row in the store's dtype; logits are few and stay float32."""
        return replace(
            row,
            pooled=row.pooled.astype(self._dtype),
            logits=None if row.logits is None else row.logits.astype(np.float32),
            frames=None if row.frames is None else row.frames.astype(self._dtype),
        )

    def _require_promised(self, clip: PlannedClip, row: ClipFeatures) -> None:
        if row.clip_id != clip.id:
            raise StoreError(f"row {row.id!r} came for clip {clip.id!r}, says {row.clip_id!r}")
        arrays = (row.logits is not None, row.frames is not None)
        if row.pooled.shape != self._pooled or arrays != (self._logits, self._frames):
            raise StoreError(
                f"row {row.id!r} has pooled {row.pooled.shape}, logits and frames {arrays}",
                expected=f"pooled {self._pooled}, logits and frames {self._logits, self._frames}",
            )

    def _unfit(
        self, clip: PlannedClip, row_id: str, name: str, array: np.ndarray
    ) -> ClipFailure | None:
        largest = magnitude(array)
        if np.isnan(largest):
            return refuse(clip, "nan", f"{name} of {row_id} hold NaN")
        if name != "logits" and self._dtype == np.float16 and largest > FLOAT16_LARGEST:
            reason = f"{name} of {row_id} reach {largest:.6g}, float16 ends at 65,504"
            return refuse(clip, "overflow", f"{reason}. Use --dtype float32.")
        if np.isinf(largest):
            return refuse(clip, "infinite", f"{name} of {row_id} hold infinity")
        return None


def magnitude(array: np.ndarray) -> float:
    """The largest absolute value; NaN when one is NaN, infinity when one is infinite."""
    if array.dtype == np.float16:
        # Without their sign, the bits of float16 rise from 0 over infinity to NaN, and comparing
        # integers is 40 times faster than numpy's comparison of halves.
        bits = (np.ascontiguousarray(array).view(np.uint16) & 0x7FFF).max(initial=0)
        return float(np.uint16(bits).view(np.float16))
    return float(np.abs(array).max(initial=0))


def refuse(clip: PlannedClip, kind: str, reason: str) -> ClipFailure:
    """A failure record of a clip whose features cannot be stored."""
    return ClipFailure(id=clip.id, file=clip.file, kind=kind, reason=reason)
