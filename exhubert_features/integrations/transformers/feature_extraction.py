"""The model card's preprocessing as transformers' ``AutoFeatureExtractor`` gives it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from transformers.feature_extraction_utils import BatchFeature
from transformers.models.auto.feature_extraction_auto import AutoFeatureExtractor
from transformers.models.wav2vec2.feature_extraction_wav2vec2 import Wav2Vec2FeatureExtractor

from ...spec import CARD_SAMPLES, SAMPLE_RATE
from .configuration import ExHuBERTHubConfig


class ExHuBERTFeatureExtractor(Wav2Vec2FeatureExtractor):
    """Each clip is zero-padded to 3 s and normalised with that padding, as the card does.

    The attention mask counts that padding as signal; it hides only what a batch adds to
    clips longer than 3 s, so that a clip gives the same in any batch.
    """

    def __init__(
        self,
        feature_size: int = 1,
        sampling_rate: int = SAMPLE_RATE,
        padding_value: float = 0.0,
        return_attention_mask: bool = True,
        do_normalize: bool = True,
        minimum_samples: int = CARD_SAMPLES,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            feature_size=feature_size,
            sampling_rate=sampling_rate,
            padding_value=padding_value,
            return_attention_mask=return_attention_mask,
            do_normalize=do_normalize,
            **kwargs,
        )
        self.minimum_samples = minimum_samples

    def __call__(
        self,
        raw_speech: np.ndarray | Sequence[float] | Sequence[np.ndarray] | Sequence[Sequence[float]],
        padding: bool | str = True,
        **kwargs: Any,
    ) -> BatchFeature:
        """One clip (N,) or several to ``input_values`` (B, N) and ``attention_mask`` (B, N).

        Keywords are those of ``Wav2Vec2FeatureExtractor``.
        """
        single = len(raw_speech) == 0 or np.ndim(raw_speech[0]) == 0
        clips = [np.asarray(clip, np.float32) for clip in ([raw_speech] if single else raw_speech)]
        clips = [np.pad(clip, (0, max(0, self.minimum_samples - len(clip)))) for clip in clips]
        return super().__call__(clips, padding=padding, **kwargs)


# Make ``AutoFeatureExtractor`` know it.
AutoFeatureExtractor.register(ExHuBERTHubConfig, ExHuBERTFeatureExtractor, exist_ok=True)
