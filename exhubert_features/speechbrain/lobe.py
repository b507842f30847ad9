"""ExHuBERT as a SpeechBrain lobe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from speechbrain.utils.checkpoints import (
    mark_as_loader,
    mark_as_saver,
    mark_as_transfer,
    register_checkpoint_hooks,
)
from torch import Tensor, nn
from torch.nn import functional

from ..errors import UsageError
from ..model.compiling import any_size, compile_behind
from ..model.layers import frame_mask
from ..precision import prepare_model
from ..spec import (
    DEFAULT_PREPROCESS,
    DEFAULT_REVISION,
    SAMPLE_RATE,
    Layers,
    Precision,
    Preprocess,
)
from ..trainable import WaveformModel
from ..waveforms import all_usable
from .batches import absolute_lengths, check_clips
from .options import placement
from .trained import complete_state, is_trained_part, read_trained, save_trained


class LobeOutput(NamedTuple):
    """What the lobe returns with ``output_logits=True``.

    ``embeddings`` is (B, T, C) or (L, B, T, C), ``logits`` (B, classes), ``lengths`` (B,) the
    frames of each clip relative to T, so that ``round(lengths * T)`` is exact.
    """

    embeddings: Tensor
    logits: Tensor
    lengths: Tensor


@register_checkpoint_hooks
class ExHuBERT(WaveformModel):
    """Drop-in for SpeechBrain's HuBERT lobe: waveforms (B, N) to embeddings (B, T, C).

    What is frozen stays in eval mode whatever ``modules.train()`` says. Checkpoints hold only
    the weights that train; the others are named by their hash, and recovering on top of
    different ones is refused.

    Parameters
    ----------
    source
        Hub id or folder of an ExHuBERT or HuBERT checkpoint.
    save_path
        Where files from the Hub are kept. Not used for folders.
    output_norm
        Normalise each clip's embeddings over its own frames and channels.
    freeze
        Freeze the whole model; no graph is built.
    freeze_feature_extractor
        Freeze the convolutions.
    apply_spec_augment
        Mask spans of time while training, as the checkpoint's config says.
    output_all_hiddens
        Return (L, B, T, C), 49 states for the released model, and not only the last.
    revision
        Commit, tag or branch on the Hub; the default pins the released model.
    layers
        Which hidden states to return: a number is one id, a list several. With
        one id and no ``output_all_hiddens`` the result is (B, T, C). Layers above the deepest
        do not run.
    freeze_original
        Freeze the original half of the layers, as the model's authors do.
    output_logits
        Return a :class:`LobeOutput` with the class logits.
    preprocess
        ``"masked"``: each clip is normalised over its own samples and padding is masked.
        ``"card"``: as the released model's card does, with padding to 3 s as part of the
        signal. ``"none"``: clips come normalised.
    classes
        Class names of a new classifier in place of the checkpoint's.
    precision
        Of a frozen lobe: ``"bfloat16"``, ``"float16"``, ``"int8"`` (on a CPU) or ``"auto"``, as
        of an :class:`~exhubert_features.Encoder`.
    transformers_options
        What SpeechBrain's own lobes pass on to transformers: ``device``, ``device_map`` and
        ``dtype`` (``torch_dtype``) are done; others are refused by name, but for those that say
        what is the case anyway.
    """

    def __init__(
        self,
        source: str,
        save_path: str | None,
        output_norm: bool = False,
        freeze: bool = False,
        freeze_feature_extractor: bool = False,
        apply_spec_augment: bool = False,
        output_all_hiddens: bool = False,
        *,
        revision: str | None = DEFAULT_REVISION,
        layers: Layers = None,
        freeze_original: bool = False,
        output_logits: bool = False,
        preprocess: Preprocess = DEFAULT_PREPROCESS,
        classes: Sequence[str] | None = None,
        precision: Precision | Literal["auto"] = "float32",
        **transformers_options: Any,
    ) -> None:
        if precision != "float32" and not freeze:
            raise UsageError(
                f"precision={precision!r} in a lobe that trains",
                expected="freeze=True, or float32",
                remedy="SpeechBrain's --precision bf16 trains in mixed precision",
            )
        device, dtype = placement(transformers_options)
        super().__init__(
            source,
            revision=revision,
            layers=-1 if layers is None and not output_all_hiddens else layers,
            preprocess=preprocess,
            freeze=freeze,
            apply_spec_augment=apply_spec_augment,
            cache_dir=save_path or None,
        )
        self.output_norm = output_norm
        self.freeze_feature_extractor = freeze_feature_extractor
        self.freeze_original = freeze_original
        self.output_all_hiddens = output_all_hiddens
        self.output_logits = output_logits
        self.normalize_wav = self.preprocess != "none"
        if classes is not None:
            self._replace_classifier(classes)
        if output_logits and not self.config.classes:
            raise UsageError(
                f"output_logits=True, but {self.checkpoint.source} has no classifier",
                remedy="Name the classes of a new one with classes=",
            )
        self._freeze_weights()
        self.model.to(device=device, dtype=dtype)
        if precision != "float32":
            prepare_model(self.model, device or torch.device("cpu"), precision)
        self.train()

    @cached_property
    def feature_extractor(self) -> Any:
        """The preprocessing as transformers describes it; the lobe itself does not use it."""
        from transformers import Wav2Vec2FeatureExtractor

        return Wav2Vec2FeatureExtractor(
            sampling_rate=SAMPLE_RATE,
            do_normalize=self.normalize_wav,
            return_attention_mask=self.preprocess == "masked",
        )

    def _replace_classifier(self, classes: Sequence[str]) -> None:
        if isinstance(classes, str):  # a sequence of letters
            raise UsageError(f"classes is {classes!r}", expected="a list of names")
        if self.freeze:
            raise UsageError(
                f"a new classifier for {', '.join(classes)} with freeze=True",
                expected="a classifier that can learn",
                remedy="Use freeze_feature_extractor and freeze_original",
            )
        config = self.config
        if not config.classes:
            self.model.projector = nn.Linear(config.hidden_size, config.classifier_proj_size)
        self.model.classifier = nn.Linear(config.classifier_proj_size, len(classes))
        self.set_config(replace(config, classes=tuple(classes)))

    def _freeze_weights(self) -> None:
        if self.freeze:
            self.model.requires_grad_(False)
        if self.freeze_feature_extractor:
            self.model.freeze_feature_encoder()
        if self.freeze_original:
            self.model.freeze_og_encoder()
        self.model.freeze_unused(max(self.layers), logits=self.output_logits)

    def train(self, mode: bool = True) -> ExHuBERT:
        """Switch dropout on, except in what is frozen: that stays as it is at inference."""
        super().train(mode)
        self.model.keep_frozen_at_inference()
        compile_behind(ExHuBERT.forward, ExHuBERT.extract_features, ExHuBERT._checked)
        compile_behind(ExHuBERT._adapted, absolute_lengths, check_clips, all_usable, any_size)
        return self

    def forward(
        self, wav: Tensor, wav_lens: Tensor | None = None, lengths: Tensor | None = None
    ) -> Tensor | LobeOutput:
        """Embed a batch.

        Parameters
        ----------
        wav
            (B, N) floating point at 16 kHz.
        wav_lens
            (B,) relative lengths in (0, 1]; None when nothing is padding.
        lengths
            The same under the name by which ``LengthsCapableSequential`` passes it.

        Returns
        -------
        (B, T, C) or (L, B, T, C), zero on padded frames; see :class:`LobeOutput`.
        """
        if wav_lens is not None and lengths is not None:
            raise UsageError("wav_lens and lengths are both given", expected="one of them")
        samples = self._checked(wav, lengths if wav_lens is None else wav_lens)
        return self._embed(wav, samples, graph=not self.freeze or self._adapted())

    def extract_features(self, wav: Tensor, wav_lens: Tensor | None = None) -> Tensor | LobeOutput:
        """Do what :meth:`forward` does, with a graph even when the lobe is frozen."""
        return self._embed(wav, self._checked(wav, wav_lens), graph=True)

    def _checked(self, wav: Tensor, wav_lens: Tensor | None) -> Tensor | None:
        """Count the samples of each clip (B,), after looking at every one of them."""
        samples = absolute_lengths(wav, wav_lens)
        check_clips(wav, samples)
        any_size(wav, samples)
        return samples

    def _adapted(self) -> bool:
        """Whether something learns in the frozen model: adapters were put into it."""
        return any(weight.requires_grad for weight in self.model.parameters())

    def _embed(self, wav: Tensor, samples: Tensor | None, graph: bool) -> Tensor | LobeOutput:
        """Embed clips that were looked at: the part that ``torch.compile`` takes in one piece."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and graph):
            states, frames, logits = self.encode_padded(
                wav,
                samples,
                preprocess=self.preprocess if self.normalize_wav else "none",
                logits=self.output_logits,
            )
            if self.output_norm:
                states = _normalise_output(states, frames)
        embeddings = self._combine(states)
        if logits is None:
            return embeddings
        whole = torch.ones(len(wav), device=wav.device)
        lengths = whole if frames is None else frames / states.shape[2]
        return LobeOutput(embeddings, logits, lengths)

    def _combine(self, states: Tensor) -> Tensor:
        """Make what is returned out of the states (L, B, T, C)."""
        single = not self.output_all_hiddens and len(self.layers) == 1
        return states[0] if single else states

    @mark_as_saver
    def save(self, path: str | Path) -> None:
        """Write the weights that train, and the hash of the others."""
        save_trained(self, path)

    @mark_as_loader
    @mark_as_transfer
    def load(self, path: str | Path, end_of_epoch: bool = True) -> None:
        """Take over what :meth:`save` wrote, or a whole ``state_dict``, if it fits."""
        self.load_state_dict(read_trained(self, path))

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> Any:
        """Take over a state as torch does, or what :meth:`save` wrote, averaged perhaps."""
        if is_trained_part(state_dict):
            state_dict = complete_state(self, state_dict)
        keys = super().load_state_dict(state_dict, strict, assign)
        self.model.detect_identity_gates()
        return keys


def _normalise_output(states: Tensor, frames: Tensor | None) -> Tensor:
    """Zero mean, unit variance over each clip's own frames and channels, (L, B, T, C)."""
    values = states.float()
    if frames is None:
        return functional.layer_norm(values, values.shape[2:]).to(states.dtype)
    mask = frame_mask(frames, states.shape[2]).unsqueeze(-1)
    count = (frames * states.shape[3]).view(-1, 1, 1)
    mean = (values * mask).sum((2, 3), keepdim=True) / count
    variance = ((values - mean).square() * mask).sum((2, 3), keepdim=True) / count
    return ((values - mean) * mask * torch.rsqrt(variance + 1e-5)).to(states.dtype)
