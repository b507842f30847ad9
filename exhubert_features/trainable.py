"""The model as a part of a larger one: plain torch, without a host toolkit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from .checkpoint import load_model
from .errors import UsageError
from .model.config import ExHuBERTConfig
from .model.geometry import FrameGeometry
from .model.layers import frame_mask
from .spec import (
    DEFAULT_PREPROCESS,
    DEFAULT_REVISION,
    DEFAULT_SOURCE,
    Layers,
    Preprocess,
    resolve_layers,
)
from .waveforms import check_preprocess, prepare_batch, split_waveforms


class TrainableEncoder(nn.Module, FrameGeometry):
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
        super().__init__()
        check_preprocess(preprocess)  # before a download, not after
        model, _ = load_model(
            source, revision=revision, cache_dir=cache_dir, local_files_only=local_files_only
        )
        model.detect_identity_gates()
        self.model = model
        self.model.config = replace(model.config, apply_spec_augment=apply_spec_augment)
        self.model.hubert.config = self.model.config
        self.layers = resolve_layers(layers, model.num_states)
        self.preprocess: Preprocess = preprocess
        self.freeze = freeze
        self.model.freeze_unused(max(self.layers), logits=False)
        if freeze:
            self.model.requires_grad_(False)
        self.train()

    @property
    def config(self) -> ExHuBERTConfig:
        """The model's sizes and switches."""
        return self.model.config

    @property
    def hidden_size(self) -> int:
        """Width of every hidden state."""
        return self.config.hidden_size

    @property
    def num_states(self) -> int:
        """How many hidden states come back: 49 of the released model, fewer with ``layers``."""
        return len(self.layers)

    def train(self, mode: bool = True) -> TrainableEncoder:
        """Switch dropout on, except in what is frozen: that stays as it is at inference."""
        super().train(mode)
        self.model.keep_frozen_at_inference()
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
        if wav.ndim != 2:
            raise UsageError(f"wav has shape {tuple(wav.shape)}", expected="(batch, samples)")
        clips = split_waveforms(wav, lengths)
        batch, seen = prepare_batch(clips, self.preprocess, truncate=False)
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.freeze):
            output = self.model(
                batch.to(self.model.hubert.masked_spec_embed.dtype),
                torch.tensor(seen, device=wav.device) if len(set(seen)) > 1 else None,
                layers=self.layers,
                logits=False,
            )
        frames = self.model.frame_lengths(
            torch.tensor([len(clip) for clip in clips], device=wav.device)
        )
        size = int(frames.max())  # the card's padding to 3 s ends here
        states = torch.stack(output.hidden_states)[:, :, :size]
        if int(frames.min()) < size:
            states = states.masked_fill(~frame_mask(frames, size).unsqueeze(-1), 0.0)
        return states, frames
