"""Clips in memory to one padded batch: validation and the model's two normalisations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import get_args

import numpy as np
import torch
from torch import Tensor

from .errors import AudioError, UsageError
from .spec import CARD_SAMPLES, MINIMUM_SAMPLES, PREPROCESS_WORDS, SAMPLE_RATE, Preprocess

Waveform = np.ndarray | Tensor
Waveforms = Waveform | Sequence[Waveform]


def split_waveforms(
    waveforms: Waveforms,
    lengths: Sequence[int] | Tensor | None,
    *,
    minimum: int = MINIMUM_SAMPLES,
    names: Sequence[str] | None = None,
) -> list[Tensor]:
    """Take clips apart and check each one.

    Parameters
    ----------
    waveforms
        One (N,) clip, a list of them, or (B, N) padded to one length.
    lengths
        (B,) samples of each clip, or None: all of it.
    minimum
        The fewest samples that give a frame.
    names
        Of the clips, for errors; None: their places in the batch alone.

    Returns
    -------
    One 1-D float32 tensor a clip. An :class:`AudioError` names the clip that cannot be used.
    """
    if isinstance(waveforms, np.ndarray | np.generic | Tensor):
        rows: list[Waveform] = [waveforms] if waveforms.ndim < 2 else list(waveforms)
    else:
        rows = list(waveforms)
    if not rows:
        raise AudioError("no waveform at all", expected="at least one clip")
    clips = [_check_clip(index, row) for index, row in enumerate(rows)]
    clips = [clip.to(clips[0].device) for clip in clips]
    counts = _check_lengths(lengths, clips)
    if counts is not None:
        clips = [clip[:count] for clip, count in zip(clips, counts, strict=True)]
    for index, clip in enumerate(clips):
        called = f"clip {index}" if names is None else f"clip {index} of its batch, {names[index]},"
        _check_samples(called, clip, minimum)
    return clips


def all_usable(wav: Tensor, samples: Tensor | None) -> bool:
    """Look quickly whether :func:`split_waveforms` would take a batch (B, N), of (B,) samples."""
    size = wav.shape[1]
    fewest, most = (size, size) if samples is None else (int(samples.min()), int(samples.max()))
    return (
        wav.is_floating_point()
        and MINIMUM_SAMPLES <= fewest <= most <= size
        and bool(torch.isfinite(wav).all())
    )


def _check_lengths(
    lengths: Sequence[int] | Tensor | None, clips: Sequence[Tensor]
) -> list[int] | None:
    if lengths is None:
        return None
    values = torch.as_tensor(lengths)
    if values.is_floating_point() or values.ndim != 1 or len(values) != len(clips):
        raise UsageError(
            f"lengths {tuple(values.shape)} of {values.dtype} for {len(clips)} clips",
            expected="one whole number of samples for each clip",
            remedy="Relative lengths as SpeechBrain has them: round(relative * waveforms.shape[1])",
        )
    counts = [int(value) for value in values]
    for index, (count, clip) in enumerate(zip(counts, clips, strict=True)):
        if not 0 <= count <= len(clip):
            raise AudioError(
                f"clip {index} has length {count}", expected=f"0 to {len(clip)} samples"
            )
    return counts


def _check_clip(index: int, row: Waveform) -> Tensor:
    if isinstance(row, np.ndarray) and row.dtype.kind == "f":
        # Torch takes no reversed, byte-swapped or read-only memory; a copy is none of these.
        row = np.array(row, np.float32)
    try:
        clip = torch.as_tensor(row)
    except (TypeError, ValueError, RuntimeError) as error:
        raise AudioError(
            f"clip {index} is a {type(row).__name__} without samples",
            expected="an array or tensor of floating-point samples",
            remedy="For files and folders use encoder.predict or encoder.extract",
        ) from error
    if clip.ndim != 1:
        raise AudioError(
            f"clip {index} has shape {tuple(clip.shape)}",
            expected="one channel, shape (samples,)",
            remedy="Average the channels or choose one, or use encoder.predict or encoder.extract, "
            "which take any number",
        )
    if not clip.is_floating_point():
        raise AudioError(
            f"clip {index} is {clip.dtype}",
            expected="floating point in -1 .. 1",
            remedy="Divide 16-bit integers by 32768",
        )
    return clip.to(torch.float32)


def _check_samples(called: str, clip: Tensor, minimum: int) -> None:
    if len(clip) < minimum:
        raise AudioError(
            f"{called} has {len(clip)} samples",
            expected=f"at least {minimum} (one frame) at {SAMPLE_RATE} Hz",
            remedy="Leave the clip out or join it with its neighbour",
        )
    if not bool(torch.isfinite(clip).all()):
        where = int((~torch.isfinite(clip)).nonzero()[0])
        raise AudioError(
            f"{called} has {float(clip[where])} at sample {where}",
            expected="finite samples",
            remedy="Repair or leave out the clip",
        )


def check_preprocess(preprocess: str) -> None:
    """Refuse a mode that does not exist."""
    if preprocess not in get_args(Preprocess):
        raise UsageError(f"preprocess is {preprocess!r}", expected=PREPROCESS_WORDS)


def _normalise(clip: Tensor) -> Tensor:
    """Zero mean and unit variance over all of (N,), as HuBERT's feature extractor does."""
    variance, mean = torch.var_mean(clip, correction=0)
    return (clip - mean) / torch.sqrt(variance + 1e-7)


def prepare_batch(
    clips: Sequence[Tensor], preprocess: Preprocess, *, truncate: bool
) -> tuple[Tensor, list[int]]:
    """Normalise the clips and pad them to one batch.

    Returns
    -------
    The batch (B, N) and how many samples of each row the model shall see: with ``card`` that
    includes the card's own padding to 3 s, which it normalises with the signal.
    """
    check_preprocess(preprocess)
    if truncate and preprocess != "card":
        raise UsageError(
            f"truncate=True with preprocess={preprocess!r}", expected="preprocess='card'"
        )
    rows = list(clips)
    if preprocess == "card":
        rows = [clip[:CARD_SAMPLES] if truncate else clip for clip in rows]
        rows = [
            torch.nn.functional.pad(clip, (0, max(0, CARD_SAMPLES - len(clip)))) for clip in rows
        ]
    if preprocess != "none":
        rows = [_normalise(clip) for clip in rows]
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True), [len(row) for row in rows]
