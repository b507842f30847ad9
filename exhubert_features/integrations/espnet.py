"""ESPnet: a frontend, with lengths in frames.

ESPnet's own ``frontend: huggingface`` also takes a converted checkpoint, once
``exhubert_features.integrations.transformers`` is imported; it returns samples as lengths.
"""

from __future__ import annotations

from espnet2.asr.frontend.abs_frontend import AbsFrontend
from torch import Tensor

from ..errors import UsageError
from ..spec import DEFAULT_PREPROCESS, DEFAULT_REVISION, DEFAULT_SOURCE, SAMPLE_RATE, Preprocess
from ..trainable import TrainableEncoder


class ExHuBERTFrontend(AbsFrontend):
    """One hidden state as features; it trains with the rest unless it is frozen.

    Parameters
    ----------
    source
        Hub id or folder.
    fs
        Must be 16000, the rate of the model.
    revision
        Commit, tag or branch on the Hub; the default pins the released model.
    layer
        Id of the hidden state; negative counts from the end.
    preprocess
        See :class:`exhubert_features.TrainableEncoder`.
    freeze
        Freeze the model; no graph is built.
    """

    def __init__(
        self,
        source: str = DEFAULT_SOURCE,
        fs: int = SAMPLE_RATE,
        revision: str | None = DEFAULT_REVISION,
        layer: int = -1,
        preprocess: Preprocess = DEFAULT_PREPROCESS,
        freeze: bool = False,
    ) -> None:
        super().__init__()
        if fs != SAMPLE_RATE:
            raise UsageError(f"fs is {fs}", expected=f"{SAMPLE_RATE}")
        self.encoder = TrainableEncoder(
            source, revision=revision, layers=layer, preprocess=preprocess, freeze=freeze
        )

    def output_size(self) -> int:
        """Width of the features."""
        return self.encoder.hidden_size

    def forward(self, input: Tensor, input_lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Turn waveforms (B, N) and their samples (B,) into features (B, T, D) and frames (B,)."""
        states, frames = self.encoder(input, input_lengths)
        return states[0], frames
