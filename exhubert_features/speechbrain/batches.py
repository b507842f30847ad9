"""SpeechBrain's batches: relative lengths to samples, and what no model can take, by its id."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from speechbrain.dataio.batch import PaddedBatch
from speechbrain.utils.logger import get_logger
from torch import Tensor

from ..errors import AudioError, UsageError
from ..spec import MINIMUM_SAMPLES, SAMPLE_RATE
from ..waveforms import all_usable, split_waveforms

logger = get_logger(__name__)


class UsableClips:
    """A ``collate_fn`` that leaves clips too short for a frame out of their batch.

    In a recipe's YAML, among the options of the data loader::

        dataloader_options:
            batch_size: 8
            collate_fn: !new:exhubert_features.speechbrain.UsableClips

    Each clip that is left out is named in the log. A batch of nothing else is an error, for
    SpeechBrain's loop takes no empty batch: where clips are sorted by length, or come one by one,
    use ``dataset.filtered_sorted(key_min_value={"duration": 0.025})`` instead.

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
                remedy="Take clips under "
                f"{self.minimum / SAMPLE_RATE:g} s out before: SpeechBrain's filtered_sorted does "
                "it by their durations",
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
    if all_usable(wav, samples):
        return
    try:
        split_waveforms(wav, samples, names=_ids_of_the_batch(len(wav)))
    except AudioError as error:
        if (wav.shape[1] if samples is None else int(samples.min())) >= MINIMUM_SAMPLES:
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
