"""Ray Data: features of a dataset of one's own, by ``map_batches``."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import soundfile

from ..extraction import LazyClip
from ..records import ClipFailure
from ..spec import SAMPLE_RATE
from .picklable import PicklableEncoder, as_source


@dataclass
class ExHuBERTActor(PicklableEncoder):
    """A class for ``dataset.map_batches``: adds ``features`` (D,), float32, and ``error`` to rows.

    ``error`` is empty where all is well; else it says why the features are NaN. Fields are
    those of :class:`PicklableEncoder`, given as ``fn_constructor_kwargs``, and these:

    Parameters
    ----------
    column
        The audio: bytes of files, such as ``ray.data.read_binary_files`` gives, or samples
        (N,) or (N, channels).
    rate
        Of samples, per second; a column's name where rows differ.
    """

    strict: bool = False
    column: str = "bytes"
    rate: int | str = SAMPLE_RATE

    def __call__(self, batch: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Extract one vector for each row of a batch: (rows, D)."""
        cells = batch[self.column]
        rates = batch[self.rate] if isinstance(self.rate, str) else [self.rate] * len(cells)
        clips = [
            LazyClip(id=str(number), load=partial(_load, cell, rate))
            for number, (cell, rate) in enumerate(zip(cells, rates, strict=True))
        ]
        extraction = self.encoder.extract(
            clips,
            layers=self.layer,
            pools=self.pool,
            logits=False,
            preprocess=self.preprocess,
            strict=self.strict,
        )
        missing = np.full(self.encoder.hidden_size, np.nan, np.float32)
        rows = list(extraction)
        vectors = [missing if isinstance(row, ClipFailure) else row.pooled[0, 0] for row in rows]
        errors = [row.reason if isinstance(row, ClipFailure) else "" for row in rows]
        features = np.array(vectors, np.float32).reshape(len(rows), len(missing))
        return {**batch, "features": features, "error": np.array(errors)}


def _load(cell: Any, rate: Any) -> tuple[np.ndarray, int]:
    if isinstance(cell, bytes):
        wave, rate = soundfile.read(io.BytesIO(cell), dtype="float32")
        return wave, rate
    return as_source(cell, rate)
