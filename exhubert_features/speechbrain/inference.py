"""A fine-tuned ExHuBERT behind SpeechBrain's inference interface."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import torch
from speechbrain.inference.interfaces import Pretrained
from torch import Tensor

from ..errors import UsageError
from .lobe import LobeOutput


class EmotionClassifier(Pretrained):
    """Inference with a fine-tuned ExHuBERT, for ``from_hparams`` and ``foreign_class``.

    The YAML's ``modules`` holds the lobe as ``exhubert``, built with ``output_logits=True``.
    """

    MODULES_NEEDED = ["exhubert"]  # noqa: RUF012  (SpeechBrain's own way to say it)

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in the order of the probabilities."""
        return self.mods.exhubert.model.config.classes

    def _run(self, wavs: Tensor, wav_lens: Tensor | None) -> LobeOutput:
        if not self.mods.exhubert.output_logits:
            raise UsageError(
                "the lobe `exhubert` gives embeddings only",
                expected="output_logits: True in its YAML",
            )
        wavs = wavs.unsqueeze(0) if wavs.ndim == 1 else wavs
        lengths = None if wav_lens is None else wav_lens.to(self.device)
        # SpeechBrain 1.0 has no autocasting of its own.
        with getattr(self, "inference_ctx", nullcontext()), torch.no_grad():
            return self.mods.exhubert(wavs.to(self.device), lengths)

    def encode_batch(self, wavs: Tensor, wav_lens: Tensor | None = None) -> Tensor:
        """Mean embedding of each clip's own frames, (B, C), from waveforms (B, N) or (N,)."""
        embeddings, _, lengths = self._run(wavs, wav_lens)
        frames = (lengths * embeddings.shape[-2]).round().unsqueeze(-1)
        return embeddings.sum(dim=-2) / frames  # padded frames are zero

    def classify_batch(
        self, wavs: Tensor, wav_lens: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor, list[str]]:
        """Classify waveforms (B, N) or (N,).

        Returns
        -------
        Probabilities (B, classes), the best one (B,), its index (B,) and its name.
        """
        probabilities = self._run(wavs, wav_lens).logits.float().softmax(dim=-1)
        score, index = probabilities.max(dim=-1)
        return probabilities, score, index, [self.classes[i] for i in index.tolist()]

    def classify_file(self, path: str, **options: Any) -> tuple[Tensor, Tensor, Tensor, list[str]]:
        """Classify one audio file of any rate; ``options`` go to ``Pretrained.load_audio``."""
        return self.classify_batch(self.load_audio(str(path), **options))

    def forward(
        self, wavs: Tensor, wav_lens: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor, list[str]]:
        """Do what :meth:`classify_batch` does."""
        return self.classify_batch(wavs, wav_lens)
