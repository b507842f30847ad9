"""ExHuBERT as transformers' Auto classes and pipelines load it.

The modules are those of :class:`exhubert_features.model.ExHuBERTNetwork` under the same names, so
weights go from one to the other as they are; layers attend by any of transformers' attention
functions and are checkpointed as its own.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutput, SequenceClassifierOutput
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS, PreTrainedModel
from transformers.models.auto.modeling_auto import AutoModel, AutoModelForAudioClassification

from ...model import Hubert, classify_frames, frame_lengths
from ...model.layers import EncoderLayer, frame_mask
from ...model.positions import WeightNormConvolution
from .configuration import ExHuBERTHubConfig


class _ExHuBERTAttention(nn.Module):
    """Multi-head self-attention over (B, T, D), the way the config's implementation has it."""

    is_causal = False
    k_proj: nn.Module
    v_proj: nn.Module
    q_proj: nn.Module
    out_proj: nn.Module

    def __init__(self, attention: nn.Module, config: ExHuBERTHubConfig) -> None:
        super().__init__()
        self.config = config
        self.head_dim = config.hidden_size // config.num_attention_heads
        for name in ("k_proj", "v_proj", "q_proj", "out_proj"):
            self.add_module(name, attention.get_submodule(name))

    def forward(self, hidden: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Attend to the frames that ``mask`` (B, 1, 1, T) lets be seen.

        Returns
        -------
        The mixture (B, T, D), and the weights (B, heads, T, T) where the implementation has them.
        """
        query, key, value = (
            self.get_submodule(name)(hidden).unflatten(-1, (-1, self.head_dim)).transpose(1, 2)
            for name in ("q_proj", "k_proj", "v_proj")
        )
        chosen = self.config._attn_implementation
        attend = _attend if chosen == "eager" else ALL_ATTENTION_FUNCTIONS[chosen]
        mixed, weights = attend(
            self,
            query,
            key,
            value,
            mask,
            dropout=self.config.attention_dropout if self.training else 0.0,
            scaling=self.head_dim**-0.5,
        )
        return self.get_submodule("out_proj")(mixed.flatten(2)), weights


def _attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    *,
    dropout: float,
    scaling: float,
) -> tuple[Tensor, Tensor]:
    """Attention as transformers calls eager: its weights (B, heads, T, T) can be looked at."""
    scores = query @ key.transpose(2, 3) * scaling
    if mask is not None:
        scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    weights = functional.dropout(scores.softmax(dim=-1), dropout, module.training)
    return (weights @ value).transpose(1, 2), weights


class _ExHuBERTLayer(GradientCheckpointingLayer):
    """One layer and its gate, made of the modules of a core layer."""

    def __init__(self, layer: EncoderLayer, config: ExHuBERTHubConfig) -> None:
        super().__init__()
        self.skip = layer.skip
        self.attention = _ExHuBERTAttention(layer.attention, config)
        for name in ("dropout", "layer_norm", "feed_forward", "final_layer_norm", "gate_bb_linear"):
            self.add_module(name, layer.get_submodule(name))

    def forward(self, hidden: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Turn the state (B, T, D) before the layer into the one behind it; attention beside it."""
        attended, weights = self.attention(self.layer_norm(hidden), mask)
        output = hidden + self.dropout(attended)
        output = self.gate_bb_linear(output + self.feed_forward(self.final_layer_norm(output)))
        return output + hidden if self.skip else output, weights


class _ExHuBERTConvolution(WeightNormConvolution):
    """The convolution of positions with the names that transformers gives a weight norm's parts.

    It renames ``weight_g`` and ``weight_v`` of files to these; our own loader knows both.
    """

    def __init__(self, convolution: WeightNormConvolution) -> None:
        nn.Module.__init__(self)
        self.kernel, self.groups = convolution.kernel, convolution.groups
        self.bias = convolution.bias
        parts = nn.Module()
        parts.original0, parts.original1 = convolution.weight_g, convolution.weight_v
        self.parametrizations = nn.Module()
        self.parametrizations.weight = parts

    @property
    def weight_g(self) -> Tensor:  # type: ignore[override]
        """Lengths of the kernel's taps."""
        return self.get_parameter("parametrizations.weight.original0")

    @property
    def weight_v(self) -> Tensor:  # type: ignore[override]
        """Directions of the kernel's taps."""
        return self.get_parameter("parametrizations.weight.original1")


class _ExHuBERTPreTrainedModel(PreTrainedModel):
    """What the models below have in common."""

    config_class = ExHuBERTHubConfig
    base_model_prefix = "hubert"
    main_input_name = "input_values"
    input_modalities = "audio"
    supports_gradient_checkpointing = True
    _no_split_modules = ("_ExHuBERTLayer",)
    _supports_sdpa = True

    def _get_feat_extract_output_lengths(self, input_lengths: Tensor | int) -> Tensor:
        """Frames of so many samples, under the name by which other libraries ask."""
        return frame_lengths(torch.as_tensor(input_lengths), self.config.to_core())

    def _get_feature_vector_attention_mask(
        self, feature_vector_length: int, attention_mask: Tensor
    ) -> Tensor:
        """(B, T), True on frames of what (B, N) says are samples."""
        frames = self._get_feat_extract_output_lengths(attention_mask.sum(dim=-1))
        return frame_mask(frames, feature_vector_length)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """For a new model or head; gates start as they do in block extension."""
        for layer in self.modules():
            if isinstance(layer, _ExHuBERTLayer) and layer.gate_bb_linear is module:
                (nn.init.zeros_ if layer.skip else nn.init.eye_)(module.weight)
                nn.init.zeros_(module.bias)
                return
        super()._init_weights(module)
        if isinstance(module, WeightNormConvolution):
            nn.init.normal_(module.weight_v)
            nn.init.ones_(module.weight_g)
            nn.init.zeros_(module.bias)
        elif isinstance(module, ExHuBERTModel):
            nn.init.uniform_(module.masked_spec_embed)

    @classmethod
    def _can_set_attn_implementation(cls) -> bool:
        """Say so; transformers would look for the words of its own models in this file."""
        return True


class ExHuBERTModel(_ExHuBERTPreTrainedModel):
    """Normalised waveforms to hidden states: everything under the classification head."""

    def __init__(self, config: ExHuBERTHubConfig) -> None:
        super().__init__(config)
        core = Hubert(config.to_core())
        self.masked_spec_embed = core.masked_spec_embed
        self.feature_extractor = core.feature_extractor
        self.feature_projection = core.feature_projection
        self.encoder = core.encoder
        positions = self.encoder.pos_conv_embed
        positions.conv = _ExHuBERTConvolution(positions.conv)
        self.encoder.layers = nn.ModuleList(
            _ExHuBERTLayer(layer, config) for layer in core.encoder.blocks
        )
        self.post_init()

    def forward(
        self,
        input_values: Tensor,
        attention_mask: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        **kwargs: Any,
    ) -> BaseModelOutput | tuple[Tensor, ...]:
        """Encode normalised waveforms.

        Parameters
        ----------
        input_values
            (B, N), as the feature extractor makes them.
        attention_mask
            (B, N), 1 on samples and 0 on padding at the end; None: no padding.
        output_attentions
            Return the attention weights of each layer; for ``attn_implementation="eager"``.
        output_hidden_states
            Return all states, one more than there are layers; the last is layer-normed.
        return_dict
            False for a plain tuple.
        **kwargs
            What transformers hands to every model; of no use here.
        """
        asked = {"states": output_hidden_states, "attentions": output_attentions}
        if output_hidden_states is None:
            asked["states"] = self.config.output_hidden_states
        if output_attentions is None:
            asked["attentions"] = self.config.output_attentions
        # transformers 5 loads half-precision weights as they are; feature extractors make float32.
        input_values = input_values.to(self.masked_spec_embed.dtype)
        lengths = None if attention_mask is None else attention_mask.sum(dim=-1)
        hidden = self.feature_projection(self.feature_extractor(input_values, lengths))
        mask = None
        if attention_mask is not None:
            mask = self._get_feature_vector_attention_mask(hidden.shape[1], attention_mask)
        if self.training:
            frames = None if mask is None else mask.sum(dim=-1)
            hidden = Hubert._augment(self, hidden, frames)
        states, attentions = self._encode(hidden, mask)
        output = BaseModelOutput(
            last_hidden_state=states[-1],
            hidden_states=tuple(states) if asked["states"] else None,
            attentions=tuple(attentions) if asked["attentions"] else None,
        )
        plain = return_dict is False or (return_dict is None and not self.config.use_return_dict)
        return output.to_tuple() if plain else output

    def _encode(
        self, hidden: Tensor, mask: Tensor | None
    ) -> tuple[list[Tensor], list[Tensor | None]]:
        """All states and attention weights; the last state is layer-normed."""
        encoder = self.encoder
        if mask is not None:
            hidden = hidden.masked_fill(~mask.unsqueeze(-1), 0.0)
            mask = mask[:, None, None, :]
        hidden = encoder.dropout(hidden + encoder.pos_conv_embed(hidden))
        states: list[Tensor] = [hidden]
        attentions = []
        for layer in encoder.layers:
            hidden, weights = layer(hidden, mask)
            states.append(hidden)
            attentions.append(weights)
        states[-1] = encoder.layer_norm(hidden)
        return states, attentions

    def freeze_feature_encoder(self) -> None:
        """Freeze the convolutions."""
        self.feature_extractor.requires_grad_(False)

    def freeze_og_encoder(self) -> None:
        """Freeze the original half of the layers, the even ones, gates included."""
        for layer in self.encoder.layers[::2]:
            layer.requires_grad_(False)


class ExHuBERTForAudioClassification(_ExHuBERTPreTrainedModel):
    """Normalised waveforms to the scores of classes, or to values."""

    def __init__(self, config: ExHuBERTHubConfig) -> None:
        super().__init__(config)
        self.hubert = ExHuBERTModel(config)
        self.projector = nn.Linear(config.hidden_size, config.classifier_proj_size)
        self.classifier = nn.Linear(config.classifier_proj_size, config.num_labels)
        self.post_init()

    def forward(
        self,
        input_values: Tensor,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        **kwargs: Any,
    ) -> SequenceClassifierOutput | tuple[Tensor, ...]:
        """Score normalised waveforms.

        Parameters
        ----------
        input_values, attention_mask, output_attentions, output_hidden_states, return_dict
            See :meth:`ExHuBERTModel.forward`.
        labels
            (B,) class indices; with several 0 or 1 for each class (B, C); in a regression values
            (B,) or (B, C). The loss is that of ``config.problem_type``, or of what they look like.
        **kwargs
            What transformers hands to every model; of no use here.
        """
        output = self.hubert(
            input_values,
            attention_mask,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
            return_dict=True,
        )
        frames = None
        if attention_mask is not None:
            frames = self._get_feat_extract_output_lengths(attention_mask.sum(dim=-1))
        logits = classify_frames(output.last_hidden_state, frames, self.projector, self.classifier)
        scored = SequenceClassifierOutput(
            loss=None if labels is None else self._loss(logits.float(), labels),
            logits=logits,
            hidden_states=output.hidden_states,
            attentions=output.attentions,
        )
        plain = return_dict is False or (return_dict is None and not self.config.use_return_dict)
        return scored.to_tuple() if plain else scored

    def _loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Compute the loss of the config's problem; without one, of what the labels look like."""
        problem = self.config.problem_type
        if problem is None:
            several = labels.is_floating_point() or labels.ndim > 1
            problem = "multi_label_classification" if several else "single_label_classification"
            problem = "regression" if self.config.num_labels == 1 else problem
        if problem == "regression":
            return functional.mse_loss(logits, labels.to(logits.dtype).view_as(logits))
        if problem == "multi_label_classification":
            return functional.binary_cross_entropy_with_logits(logits, labels.to(logits.dtype))
        return functional.cross_entropy(logits, labels.view(-1))

    def freeze_feature_encoder(self) -> None:
        """Freeze the convolutions."""
        self.hubert.freeze_feature_encoder()

    def freeze_og_encoder(self) -> None:
        """Freeze the original half of the layers, the even ones, gates included."""
        self.hubert.freeze_og_encoder()

    def freeze_base_model(self) -> None:
        """Freeze everything but the classification head."""
        self.hubert.requires_grad_(False)


# Make the Auto classes know them.
AutoModel.register(ExHuBERTHubConfig, ExHuBERTModel, exist_ok=True)
AutoModelForAudioClassification.register(
    ExHuBERTHubConfig, ExHuBERTForAudioClassification, exist_ok=True
)
