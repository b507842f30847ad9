"""SpeechBrain's batches: relative lengths to samples, and what no model can take, by its id."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from speechbrain.dataio.batch import PaddedBatch
from speechbrain.utils.logger import get_logger
from torch import Tensor
from torch.nn import functional

from ..errors import AudioError, UsageError
from ..model.layers import frame_mask
from ..spec import CARD_SAMPLES, MINIMUM_SAMPLES, Preprocess
from ..waveforms import split_waveforms

logger = get_logger(__name__)


class UsableClips:
    """A ``collate_fn`` that leaves clips too short for a frame out of their batch.

    In a recipe's YAML, among the options of the data loader::

        dataloader_options:
            batch_size: 8
            collate_fn: !new:exhubert_features.speechbrain.UsableClips

    Each clip that is left out is named in the log. A batch of nothing else is an error.

    Parameters
    ----------
    signal
        Key of the waveform (samples,) in each example.
    minimum
        The fewest samples a clip must have.
    collate
        What makes a batch of the others.
    """

    def __init__(
        self,
        signal: str = "sig",
        minimum: int = MINIMUM_SAMPLES,
        collate: Callable[[list[Any]], Any] = PaddedBatch,
    ) -> None:
        self.signal = signal
        self.minimum = minimum
        self.collate = collate

    def __call__(self, examples: Sequence[Mapping[str, Any]]) -> Any:
        """Put the examples that are long enough into one batch."""
        usable = [example for example in examples if len(example[self.signal]) >= self.minimum]
        for example in examples:
            if (samples := len(example[self.signal])) < self.minimum:
                logger.warning(
                    f"{example.get('id', 'a clip')} is left out: {samples} samples are no frame"
                )
        if not usable:
            names = ", ".join(str(example.get("id", "?")) for example in examples)
            raise AudioError(
                f"all clips of a batch have under {self.minimum} samples: {names}",
                remedy="Take them out of the manifest, or use larger batches",
            )
        return self.collate(usable)


def absolute_lengths(wav: Tensor, wav_lens: Tensor | None) -> Tensor | None:
    """Count samples (B,) out of SpeechBrain's relative lengths; None when nothing is padding."""
    if wav.ndim != 2:
        raise UsageError(f"wav has shape {tuple(wav.shape)}", expected="(batch, samples)")
    if wav_lens is None:
        return None
    # Rounded before they are judged: 1.0000001 comes of a division, not of a mistake.
    samples = (wav_lens.double() * wav.shape[1]).round()
    inside = (wav_lens > 0) & (samples <= wav.shape[1])
    if wav_lens.shape != wav.shape[:1] or not bool(inside.all()):
        raise UsageError(
            f"wav_lens is {wav_lens.tolist()} for wav {tuple(wav.shape)}",
            expected="one relative length in (0, 1] for each clip",
        )
    samples = samples.long()
    return None if bool((samples == wav.shape[1]).all()) else samples


def check_clips(wav: Tensor, samples: Tensor | None) -> None:
    """Refuse clips without a frame or with values that are no numbers, naming the first."""
    fewest = wav.shape[1] if samples is None else int(samples.min())
    if wav.is_floating_point() and fewest >= MINIMUM_SAMPLES and bool(torch.isfinite(wav).all()):
        return
    try:
        split_waveforms(wav, samples, names=_ids_of_the_batch(len(wav)))
    except AudioError as error:
        if fewest >= MINIMUM_SAMPLES:
            raise
        raise AudioError(
            str(error),
            remedy="`collate_fn: !new:exhubert_features.speechbrain.UsableClips` among the options "
            "of the data loader leaves such clips out of training",
            kind="too_short",
        ) from None


def _ids_of_the_batch(count: int) -> list[str] | None:
    """Find the ids of the clips with whoever called: recipes give their lobes tensors alone.

    Only an error's words depend on it.
    """
    frame = sys._getframe()
    while (frame := frame.f_back) is not None:  # type: ignore[assignment]
        ids = getattr(frame.f_locals.get("batch"), "id", None)
        if isinstance(ids, list) and len(ids) == count:
            return [str(name) for name in ids]
    return None


def prepare_padded(
    wav: Tensor, samples: Tensor | None, preprocess: Preprocess
) -> tuple[Tensor, Tensor | None]:
    """Normalise a padded batch, each clip for itself: tensors alone, for ``torch.compile``.

    Parameters
    ----------
    wav
        (B, N).
    samples
        (B,) samples of each clip; None: all N.
    preprocess
        As the lobe's.

    Returns
    -------
    The batch (B, at least N), and how many samples (B,) of each row the model shall see, None
    for all: with ``"card"`` that includes the card's own padding to 3 s.
    """
    if preprocess == "card" and wav.shape[1] < CARD_SAMPLES:
        # All rows end at 3 s, and what is behind a clip is silence to the model.
        own = _silence_behind(wav, samples)
        return _normalise(functional.pad(own, (0, CARD_SAMPLES - wav.shape[1])), None), None
    own = _silence_behind(wav, samples)
    seen = samples
    if preprocess == "card" and samples is not None:
        seen = samples.clamp(min=CARD_SAMPLES)
    return (own if preprocess == "none" else _normalise(own, seen)), seen


def _silence_behind(wav: Tensor, samples: Tensor | None) -> Tensor:
    wav = wav.float()
    return wav if samples is None else wav.masked_fill(~frame_mask(samples, wav.shape[1]), 0.0)


def _normalise(wav: Tensor, seen: Tensor | None) -> Tensor:
    """Zero mean and unit variance over the samples seen of each row, silence behind them."""
    if seen is None:
        variance, mean = torch.var_mean(wav, dim=1, correction=0, keepdim=True)
        return (wav - mean) / torch.sqrt(variance + 1e-7)
    count = seen.unsqueeze(1)
    mask = frame_mask(seen, wav.shape[1])
    centred = (wav - wav.sum(1, keepdim=True) / count) * mask
    variance = centred.square().sum(1, keepdim=True) / count
    return centred / torch.sqrt(variance + 1e-7)
