"""ExHuBERT and its relatives in torch alone: waveforms in, hidden states and logits out.

The module tree spells the released checkpoint's key names, so a state dict loads as it is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint as recompute

from ..errors import UsageError
from ..spec import Layers, resolve_layers
from .config import ExHuBERTConfig
from .convolutions import FeatureExtractor
from .layers import EncoderLayer, FeatureProjection, frame_mask
from .positions import PositionalConvolution

OnState = Callable[[int, Tensor], None]  # takes a layer's id and its state (B, T, D)


class ModelOutput(NamedTuple):
    """What one forward pass gives.

    ``hidden_states`` holds a (B, T, D) tensor for each id in ``layer_ids``, or nothing when the
    states went to ``on_state``; ``frame_lengths`` (B,) counts the frames inside ``lengths``;
    ``logits`` is (B, C).
    """

    hidden_states: tuple[Tensor, ...]
    layer_ids: tuple[int, ...]
    frame_lengths: Tensor
    logits: Tensor | None = None
    loss: Tensor | None = None


class _TransformerStack(nn.Module):
    """Positional convolution and the layers."""

    def __init__(self, config: ExHuBERTConfig) -> None:
        super().__init__()
        self.norm_first = config.do_stable_layer_norm
        self.gradient_checkpointing = False
        self.pos_conv_embed = PositionalConvolution(config)
        self.dropout = nn.Dropout(config.hidden_dropout)
        self.layers = nn.ModuleList(
            EncoderLayer(config, index) for index in range(config.num_hidden_layers)
        )
        self.layer_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    @property
    def blocks(self) -> list[EncoderLayer]:
        """The layers, typed."""
        return cast("list[EncoderLayer]", list(self.layers))

    def forward(
        self, hidden: Tensor, mask: Tensor | None, deepest: int, on_state: OnState
    ) -> Tensor:
        """Run up to state ``deepest``, handing each one to ``on_state``; return the last.

        State 0 is the input of layer 0, state k the output of layer k-1; the very last state
        of a norm-first encoder is layer-normed.
        """
        attention_mask = None
        if mask is not None:
            hidden = hidden.masked_fill(~mask.unsqueeze(-1), 0.0)
            attention_mask = mask[:, None, None, :]
        hidden = hidden + self.pos_conv_embed(hidden)
        if not self.norm_first:
            hidden = self.layer_norm(hidden)
        hidden = self.dropout(hidden)
        on_state(0, hidden)
        positions = self.blocks[0].attention.positions(hidden.shape[1])
        for index, layer in enumerate(self.blocks[:deepest], 1):  # torch 2.4 compiles no start=
            if self.gradient_checkpointing and self.training:
                hidden = recompute(layer, hidden, attention_mask, positions, use_reentrant=False)
            else:
                hidden = layer(hidden, attention_mask, positions)
            if self.norm_first and index == len(self.layers):
                hidden = self.layer_norm(hidden)
            on_state(index, hidden)
        return hidden


class Hubert(nn.Module):
    """Everything under the classification head."""

    def __init__(self, config: ExHuBERTConfig) -> None:
        super().__init__()
        self.config = config
        self.masked_spec_embed = nn.Parameter(torch.empty(config.hidden_size).uniform_())
        self.feature_extractor = FeatureExtractor(config)
        self.feature_projection = FeatureProjection(config)
        self.encoder = _TransformerStack(config)

    def forward(
        self,
        waveforms: Tensor,
        lengths: Tensor | None,
        deepest: int,
        on_state: OnState,
    ) -> Tensor:
        """Turn waveforms (B, N) into the state ``deepest``, (B, T, D).

        Every state on the way is handed to ``on_state``.
        """
        hidden = self.feature_projection(self.feature_extractor(waveforms, lengths))
        frames = None if lengths is None else frame_lengths(lengths, self.config)
        if self.training:
            hidden = self._augment(hidden, frames)
        mask = None if frames is None else frame_mask(frames, hidden.shape[1])
        return self.encoder(hidden, mask, deepest, on_state)

    def _augment(self, hidden: Tensor, frames: Tensor | None) -> Tensor:
        """SpecAugment on (B, T, D): spans of time become a learned vector, of width zero."""
        batch, size, width = hidden.shape
        config = self.config
        span = hidden.new_zeros((batch, size), dtype=torch.bool)
        if config.apply_spec_augment and config.mask_time_prob > 0:
            span = span_mask(
                hidden.new_full((batch,), size, dtype=torch.long) if frames is None else frames,
                size,
                probability=config.mask_time_prob,
                length=config.mask_time_length,
                minimum=config.mask_time_min_masks,
            )
        # Also with no span: the vector then stays in the graph with zero gradient, and
        # distributed training finds no unused parameter.
        hidden = torch.where(span.unsqueeze(-1), self.masked_spec_embed.to(hidden.dtype), hidden)
        if config.apply_spec_augment and config.mask_feature_prob > 0:
            columns = span_mask(
                hidden.new_full((batch,), width, dtype=torch.long),
                width,
                probability=config.mask_feature_prob,
                length=config.mask_feature_length,
                minimum=config.mask_feature_min_masks,
            )
            hidden = hidden.masked_fill(columns.unsqueeze(1), 0.0)
        return hidden


class ExHuBERTNetwork(nn.Module):
    """ExHuBERT, or a plain HuBERT, wav2vec 2.0 or WavLM, with its head if it has one.

    The names of modules are HuBERT's, whatever ``config.family`` is.
    """

    def __init__(self, config: ExHuBERTConfig) -> None:
        super().__init__()
        self.config = config
        self.hubert = Hubert(config)
        if config.classes:
            self.projector = nn.Linear(config.hidden_size, config.classifier_proj_size)
            self.classifier = nn.Linear(config.classifier_proj_size, len(config.classes))

    @property
    def num_states(self) -> int:
        """Hidden states there are: the encoder's input and each layer's output."""
        return self.config.num_hidden_layers + 1

    @property
    def feature_extractor(self) -> FeatureExtractor:
        """The convolutions, where SpeechBrain recipes look for them."""
        return self.hubert.feature_extractor

    @property
    def encoder(self) -> nn.Module:
        """Positional convolution and layers, where SpeechBrain recipes look for them."""
        return self.hubert.encoder

    @property
    def feature_projection(self) -> nn.Module:
        """What stands between the convolutions and the encoder, likewise."""
        return self.hubert.feature_projection

    def frame_lengths(self, samples: Tensor) -> Tensor:
        """Frames (B,) inside ``samples`` (B,)."""
        return frame_lengths(samples, self.config)

    def forward(
        self,
        waveforms: Tensor,
        lengths: Tensor | None = None,
        *,
        layers: Layers = None,
        logits: bool = True,
        labels: Tensor | None = None,
        class_weights: Tensor | None = None,
        label_smoothing: float = 0.0,
        on_state: OnState | None = None,
    ) -> ModelOutput:
        """Run the model, no deeper than what is asked for.

        Parameters
        ----------
        waveforms
            (B, N), already normalised, padded with zeros.
        lengths
            (B,) samples of each clip, or None when nothing is padding.
        layers
            Hidden states to return, see :func:`exhubert_features.spec.resolve_layers`.
        logits
            Whether to run the classification head, if there is one.
        labels
            (B,) class indices; the cross-entropy is returned as ``loss``.
        class_weights
            (C,) weights of the classes in that loss.
        label_smoothing
            Of that loss.
        on_state
            Called with the id and the state (B, T, D) of each layer asked for, from the bottom
            up, as soon as it is there. The states are then not kept, which saves memory.
        """
        ids = resolve_layers(layers, self.num_states)
        classify = (logits or labels is not None) and bool(self.config.classes)
        if labels is not None and not classify:
            raise UsageError("labels for a model without a classification head")
        samples = torch.full((len(waveforms),), waveforms.shape[1], device=waveforms.device)
        frames = self.frame_lengths(samples if lengths is None else lengths)
        kept: dict[int, Tensor] = {}

        def take_wanted(layer: int, hidden: Tensor) -> None:
            if layer in ids and on_state is not None:
                on_state(layer, hidden)
            elif layer in ids:
                kept[layer] = hidden

        deepest = self.num_states - 1 if classify else max(ids)
        hidden = self.hubert(waveforms, lengths, deepest, take_wanted)
        scores = loss = None
        if classify:
            scores = classify_frames(
                hidden, None if lengths is None else frames, self.projector, self.classifier
            )
        if labels is not None and scores is not None:
            loss = functional.cross_entropy(
                scores.float(), labels, weight=class_weights, label_smoothing=label_smoothing
            )
        states = tuple(kept[layer] for layer in ids) if on_state is None else ()
        return ModelOutput(states, ids, frames, scores, loss)

    def freeze_feature_encoder(self) -> None:
        """Freeze the convolutions."""
        self.hubert.feature_extractor.requires_grad_(False)

    def freeze_og_encoder(self) -> None:
        """Freeze the original half of the layers, the even ones, gates included."""
        if not self.config.gated:
            raise UsageError(
                "freeze_og_encoder() on a plain HuBERT",
                expected="a block-extended model",
                remedy="Extend it with `exhubert expand`, or freeze_base_model()",
            )
        for layer in self.hubert.encoder.blocks[::2]:
            layer.requires_grad_(False)

    def freeze_base_model(self) -> None:
        """Freeze everything but the classification head."""
        self.hubert.requires_grad_(False)

    def freeze_unused(self, deepest: int, *, logits: bool) -> None:
        """Freeze what states up to ``deepest`` (and the logits, if wanted) do not depend on.

        Distributed training would wait for the gradients of such weights.
        """
        config, encoder = self.config, self.hubert.encoder
        if not config.apply_spec_augment:
            self.hubert.masked_spec_embed.requires_grad_(False)
        if logits:
            return
        unused: list[nn.Module] = list(encoder.layers[deepest:])
        if config.classes:
            unused += [self.projector, self.classifier]
        if config.do_stable_layer_norm and deepest < config.num_hidden_layers:
            unused.append(encoder.layer_norm)
        for module in unused:
            module.requires_grad_(False)

    def keep_frozen_at_inference(self) -> None:
        """Switch dropout off in what is frozen, after a call of ``train``."""
        for module in self.modules():
            weights = list(module.parameters())
            if weights and not any(weight.requires_grad for weight in weights):
                module.eval()

    def enable_gradient_checkpointing(self, enabled: bool = True) -> None:
        """Recompute each layer in the backward pass instead of keeping its insides."""
        self.hubert.encoder.gradient_checkpointing = enabled

    def detect_identity_gates(self) -> int:
        """Skip even gates that are the identity to the bit; return how many there are.

        Exact: the output does not change. Call it after loading; switching a layer whose gate
        can learn to training mode ends its skipping.
        """
        return sum(layer.detect_identity_gate() for layer in self.hubert.encoder.blocks)


def frame_lengths(samples: Tensor, config: ExHuBERTConfig) -> Tensor:
    """Frames (B,) that fit into ``samples`` (B,); the tensor twin of ``config.frame_count``."""
    for kernel, stride in zip(config.conv_kernel, config.conv_stride, strict=True):
        samples = torch.clamp((samples - kernel) // stride + 1, min=0)
    return samples


def classify_frames(
    hidden: Tensor, frames: Tensor | None, projector: nn.Linear, classifier: nn.Linear
) -> Tensor:
    """Project (B, T, D), take the mean of real frames (all for None), classify: (B, C)."""
    projected = projector(hidden)
    if frames is None:
        return classifier(projected.mean(dim=1))
    mask = frame_mask(frames, hidden.shape[1]).unsqueeze(-1)
    total = projected.masked_fill(~mask, 0.0).sum(dim=1)
    return classifier(total / frames.unsqueeze(1).to(total.dtype))


def span_mask(rows: Tensor, size: int, *, probability: float, length: int, minimum: int) -> Tensor:
    """SpecAugment's spans: (B, size), True inside; spans stay inside each row's length (B,).

    Tensor operations alone, so that neither a GPU nor ``torch.compile`` has to stop for it.
    """
    valid = rows.unsqueeze(1)
    # The fraction is settled by chance, so that short rows are masked now and then.
    chance = torch.rand(valid.shape, device=rows.device)
    count = (probability * valid / length + chance).long().clamp(min=minimum)
    count = torch.minimum(count, valid // length)
    # Every place gets a random rank, those where a span would not fit the last ones.
    places = torch.arange(size, device=rows.device)
    order = torch.rand(len(rows), size, device=rows.device)
    rank = order.masked_fill(places > valid - length, 2.0).argsort(dim=1).argsort(dim=1)
    begun = (rank < count).cumsum(dim=1)
    # Inside a span: one began at most ``length`` places ago.
    return begun > functional.pad(begun, (length, 0))[:, :size]
