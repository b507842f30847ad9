"""Whether rows can be stored as they are: their shapes, their numbers, their dtype."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from ..errors import StoreError
from ..fingerprint import Fingerprint
from ..records import ClipFeatures, PlannedClip
from .shard import shapes

FLOAT16_LARGEST = 65_504.0


def require_promised(clip: PlannedClip, row: ClipFeatures, promised: Fingerprint) -> None:
    """Raise for rows of another shape or clip than was promised: no fault of the audio."""
    if row.clip_id != clip.id:
        raise StoreError(f"row {row.id!r} came for clip {clip.id!r}, says {row.clip_id!r}")
    frames = 0 if row.frames is None else row.frames.shape[1]
    wanted = {
        name: shape if name == "frames" else shape[1:]
        for name, shape in shapes(promised, 1, frames).items()
        if name in ("pooled", "logits", "frames")
    }
    given = (("pooled", row.pooled), ("logits", row.logits), ("frames", row.frames))
    found = {name: array.shape for name, array in given if array is not None}
    if found != wanted:
        raise StoreError(f"row {row.id!r} has {_listed(found)}", expected=_listed(wanted))


def size_of(row: ClipFeatures) -> int:
    """Bytes of a row's arrays."""
    return row.pooled.nbytes + (0 if row.frames is None else row.frames.nbytes)


def cast(row: ClipFeatures, dtype: np.dtype) -> ClipFeatures:
    """Give the row in the store's dtype; logits are few and stay float32."""
    return replace(
        row,
        pooled=row.pooled.astype(dtype),
        logits=None if row.logits is None else row.logits.astype(np.float32),
        frames=None if row.frames is None else row.frames.astype(dtype),
    )


def unfit(row: ClipFeatures, dtype: str) -> tuple[str, str] | None:
    """Kind and reason of a row whose numbers cannot be stored."""
    for name in ("pooled", "logits", "frames"):
        array = getattr(row, name)
        largest = 0.0 if array is None else _magnitude(array)
        if np.isnan(largest):
            return "nan", f"{name} of {row.id} hold NaN"
        if name != "logits" and dtype == "float16" and largest > FLOAT16_LARGEST:
            reason = f"{name} of {row.id} reach {largest:.6g}, float16 ends at 65,504"
            return "overflow", f"{reason}. Use --dtype float32."
        if np.isinf(largest):
            return "infinite", f"{name} of {row.id} hold infinity"
    return None


def _magnitude(array: np.ndarray) -> float:
    """Give the largest absolute value; NaN when one is NaN, infinity when one is infinite."""
    if array.dtype == np.float16:
        # Without their sign, the bits of float16 rise from 0 over infinity to NaN, and comparing
        # integers is 40 times faster than numpy's comparison of halves.
        bits = (np.ascontiguousarray(array).view(np.uint16) & 0x7FFF).max(initial=0)
        return float(np.uint16(bits).view(np.float16))
    return float(np.abs(array).max(initial=0))


def _listed(arrays: Mapping[str, tuple[int, ...]]) -> str:
    return ", ".join(f"{name} {shape}" for name, shape in arrays.items())
