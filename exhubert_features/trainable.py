"""The model as a part of a larger one: plain torch, without a host toolkit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from .checkpoint import load_model
from .errors import UsageError
from .model.compiling import any_size, compile_behind
from .model.config import ExHuBERTConfig
from .model.geometry import FrameGeometry
from .model.layers import frame_mask
from .spec import (
    CARD_SAMPLES,
    DEFAULT_PREPROCESS,
    DEFAULT_REVISION,
    DEFAULT_SOURCE,
    Layers,
    Preprocess,
    resolve_layers,
)
from .waveforms import all_usable, check_preprocess, split_waveforms


class WaveformModel(nn.Module, FrameGeometry):
    """A model and what leads up to it: the common part of TrainableEncoder and hosts' lobes.

    Parameters
    ----------
    source, revision, layers, preprocess, apply_spec_augment, cache_dir, local_files_only
        As of :class:`TrainableEncoder`.
    freeze
        Whether no graph shall be built. Freezing itself is left to who knows what else learns.
    """

    def __init__(
        self,
        source: str | Path,
        *,
        revision: str | None,
        layers: Layers,
        preprocess: Preprocess,
        freeze: bool,
        apply_spec_augment: bool,
        cache_dir: str | Path | None,
        local_files_only: bool = False,
    ) -> None:
        super().__init__()
        check_preprocess(preprocess)  # before a download, not after
        model, self.checkpoint = load_model(
            source, revision=revision, cache_dir=cache_dir, local_files_only=local_files_only
        )
        model.detect_identity_gates()
        self.model = model
        self.set_config(replace(model.config, apply_spec_augment=apply_spec_augment))
        self.layers = resolve_layers(layers, model.num_states)
        self.preprocess: Preprocess = model.config.card if preprocess == "card" else preprocess
        self.freeze = freeze

    @property
    def config(self) -> ExHuBERTConfig:
        """The model's sizes and switches."""
        return self.model.config

    def set_config(self, config: ExHuBERTConfig) -> None:
        """Give all parts of the model another one."""
        self.model.config = self.model.hubert.config = config

    @property
    def hidden_size(self) -> int:
        """Width of every hidden state."""
        return self.config.hidden_size

    @property
    def num_states(self) -> int:
        """How many hidden states come back: 49 of the released model, fewer with ``layers``."""
        return len(self.layers)

    def encode_padded(
        self, wav: Tensor, samples: Tensor | None, *, preprocess: Preprocess, logits: bool = False
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Encode clips that were looked at: tensors alone, one graph for ``torch.compile``.

        Parameters
        ----------
        wav
            (B, N).
        samples
            (B,) samples of each clip; None: all N.
        preprocess
            How clips are prepared, ``self.preprocess`` as a rule.
        logits
            Whether to classify.

        Returns
        -------
        tuple
            States (L, B, T, D), T the frames of N samples; frames (B,) of each clip, None: all T;
            class scores (B, C) or None.
        """
        batch, seen = _prepare(wav, samples, preprocess)
        dtype = self.model.hubert.masked_spec_embed.dtype
        output = self.model(batch.to(dtype), seen, layers=self.layers, logits=logits)
        # The card's padding to 3 s ends here, so that lengths also fit the states.
        size = self.frame_count(wav.shape[1])
        states = torch.stack([state[:, :size] for state in output.hidden_states])
        if samples is None:
            return states, None, output.logits
        frames = self.model.frame_lengths(samples)
        return states * frame_mask(frames, size).unsqueeze(-1), frames, output.logits


class TrainableEncoder(WaveformModel):
    """Waveforms and their lengths to hidden states and theirs, with gradients.

    What is frozen stays in eval mode whatever ``train()`` says. Parts are frozen by
    ``encoder.model.freeze_og_encoder()``, the original half of the layers,
    ``.freeze_feature_encoder()``, the convolutions, or ``requires_grad_(False)``.

    Parameters
    ----------
    source
        Hub id or folder of an ExHuBERT or HuBERT checkpoint.
    revision
        Commit, tag or branch on the Hub; the default pins the released model.
    layers
        Hidden states to return: None for all, a number is one id, a list several. Layers above
        the deepest one do not run.
    preprocess
        ``"card"``: as the released model's card does, with padding to 3 s as part of the signal.
        ``"masked"``: each clip is normalised over its own samples and padding is masked.
        ``"none"``: clips come normalised.
    freeze
        Freeze the whole model; no graph is built.
    apply_spec_augment
        Mask spans of time while training, as the checkpoint's config says.
    cache_dir
        Where files from the Hub are kept; the Hub's own default when None.
    local_files_only
        Never use the network.

    Examples
    --------
    A tiny model with random weights:

    >>> from exhubert_features.checkpoint import write_random_checkpoint
    >>> encoder = TrainableEncoder(write_random_checkpoint("small", layers=2))
    >>> encoder.hidden_size, encoder.num_states
    (32, 3)
    >>> states, frames = encoder(torch.randn(2, 16_000), torch.tensor([16_000, 8_000]))
    >>> states.shape, frames.tolist(), states.requires_grad
    (torch.Size([3, 2, 49, 32]), [49, 24], True)
    """

    def __init__(
        self,
        source: str | Path = DEFAULT_SOURCE,
        *,
        revision: str | None = DEFAULT_REVISION,
        layers: Layers = None,
        preprocess: Preprocess = DEFAULT_PREPROCESS,
        freeze: bool = False,
        apply_spec_augment: bool = False,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
    ) -> None:
        super().__init__(
            source,
            revision=revision,
            layers=layers,
            preprocess=preprocess,
            freeze=freeze,
            apply_spec_augment=apply_spec_augment,
            cache_dir=cache_dir,
            local_files_only=local_files_only,
        )
        self.model.freeze_unused(max(self.layers), logits=False)
        if freeze:
            self.model.requires_grad_(False)
        self.train()

    def train(self, mode: bool = True) -> TrainableEncoder:
        """Switch dropout on, except in what is frozen: that stays as it is at inference."""
        super().train(mode)
        self.model.keep_frozen_at_inference()
        compile_behind(TrainableEncoder.forward, TrainableEncoder._checked, all_usable, any_size)
        return self

    def forward(self, wav: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Encode a batch.

        Parameters
        ----------
        wav
            (B, N) floating point at 16 kHz.
        lengths
            (B,) samples of each clip; None when nothing is padding.

        Returns
        -------
        tuple
            States (L, B, T, D), zero behind each clip's frames, and frames (B,). T is the most
            frames that a clip has.
        """
        samples = self._checked(wav, lengths)
        states, frames = self._encode(wav, samples)
        if frames is None:
            count = self.frame_count(wav.shape[1])
            return states, torch.full((len(wav),), count, device=wav.device)
        return states[:, :, : int(frames.max())], frames

    def _checked(self, wav: Tensor, lengths: Tensor | None) -> Tensor | None:
        """Count the samples of each clip (B,), after looking at every one; None: all of them."""
        if wav.ndim != 2:
            raise UsageError(f"wav has shape {tuple(wav.shape)}", expected="(batch, samples)")
        samples = None if lengths is None else torch.as_tensor(lengths, device=wav.device)
        fitting = samples is None or (
            samples.shape == wav.shape[:1] and not samples.is_floating_point()
        )
        if not (fitting and len(wav) and all_usable(wav, samples)):
            split_waveforms(wav, lengths)  # which says what is wrong
        if samples is not None and bool((samples == wav.shape[1]).all()):
            samples = None
        any_size(wav, samples)
        return samples

    def _encode(self, wav: Tensor, samples: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Encode: the part that ``torch.compile`` takes in one piece."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.freeze):
            states, frames, _ = self.encode_padded(wav, samples, preprocess=self.preprocess)
        return states, frames


def _prepare(
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
        As of :class:`TrainableEncoder`.

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
