"""An encoder that can be sent to another process: hosts pickle what extracts for them."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import soundfile

from ..encoder import Encoder, load_encoder
from ..extraction import Source
from ..records import ClipFailure, ClipFeatures
from ..spec import (
    DEFAULT_PREPROCESS,
    DEFAULT_REVISION,
    DEFAULT_SOURCE,
    FRAME_STRIDE,
    SAMPLE_RATE,
    Precision,
    Preprocess,
)


@dataclass
class PicklableEncoder:
    """One layer and pool of clips, or its frames; the model is loaded where it is first used."""

    source: str = DEFAULT_SOURCE  # Hub id or folder
    revision: str | None = DEFAULT_REVISION
    layer: int = -1  # a hidden-state id; negative counts from the end
    pool: str = "mean"
    preprocess: Preprocess = DEFAULT_PREPROCESS
    device: str = "auto"
    precision: Precision = "float32"
    strict: bool = True  # raise when a clip fails; else its numbers are NaN, and a warning says why

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "encoder"}

    @cached_property
    def encoder(self) -> Encoder:
        """The model, loaded when first asked for."""
        return load_encoder(
            self.source, revision=self.revision, device=self.device, precision=self.precision
        )

    def vectors(self, source: Source) -> np.ndarray:
        """Pool each clip of a source: (clips, D) float32, in its order."""
        extraction = self.encoder.extract(
            source,
            layers=self.layer,
            pools=self.pool,
            logits=False,
            preprocess=self.preprocess,
            strict=self.strict,
        )
        return np.stack([self._vector(row) for row in extraction])

    def frames(self, source: Source) -> list[np.ndarray]:
        """Give the frames (T, D) of each clip of a source, float32, in its order."""
        extraction = self.encoder.extract(
            source,
            layers=0,
            frame_layers=self.layer,
            logits=False,
            preprocess=self.preprocess,
            strict=True,  # how many frames NaN has, nobody knows
        )
        return [row.frames[0] for row in _features(extraction) if row.frames is not None]

    def _vector(self, row: ClipFeatures | ClipFailure) -> np.ndarray:
        if isinstance(row, ClipFeatures):
            return row.pooled[0, 0]
        warnings.warn(f"no features: {row.reason}", stacklevel=2)
        return np.full(self.encoder.hidden_size, np.nan, np.float32)


def _features(rows: Iterable[ClipFeatures | ClipFailure]) -> list[ClipFeatures]:
    return [row for row in rows if isinstance(row, ClipFeatures)]


def as_source(signal: Any, rate: int) -> tuple[np.ndarray, int]:
    """Hosts' signals (N,) or (channels, N), arrays or tensors, as a pair that sources take."""
    array = np.asarray(signal)
    return (array[0] if array.ndim == 2 and len(array) == 1 else array), int(rate)


def cell_source(cell: Any) -> tuple[np.ndarray, int]:
    """Take samples and rate out of a cell of a table, in any form Hugging Face datasets has."""
    if hasattr(cell, "get_all_samples"):  # what torchcodec decodes
        samples = cell.get_all_samples()
        return as_source(samples.data, samples.sample_rate)
    if isinstance(cell, Mapping) and cell.get("array") is not None:
        return as_source(cell["array"], cell["sampling_rate"])
    if isinstance(cell, Mapping):
        cell = io.BytesIO(cell["bytes"]) if cell.get("bytes") else cell["path"]
    wave, rate = soundfile.read(cell, dtype="float32")
    return wave, int(rate)


def stride_at(rate: int) -> int:
    """Count the samples between frames at a rate."""
    return round(FRAME_STRIDE * rate / SAMPLE_RATE)
