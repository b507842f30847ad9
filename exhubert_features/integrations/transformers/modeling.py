"""ExHuBERT as transformers' ``AutoModelForAudioClassification`` and ``pipeline`` load it."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers.modeling_outputs import SequenceClassifierOutput
from transformers.modeling_utils import PreTrainedModel
from transformers.models.auto.modeling_auto import AutoModelForAudioClassification

from ...model import ExHuBERTNetwork, Hubert, classify_frames, frame_lengths
from ...model.positions import WeightNormConvolution
from .configuration import ExHuBERTHubConfig


class ExHuBERTForAudioClassification(PreTrainedModel):
    """The modules of :class:`exhubert_features.model.ExHuBERTNetwork` under the same names."""

    config_class = ExHuBERTHubConfig
    base_model_prefix = "hubert"
    main_input_name = "input_values"
    input_modalities = "audio"
    supports_gradient_checkpointing = True

    def __init__(self, config: ExHuBERTHubConfig) -> None:
        super().__init__(config)
        model = ExHuBERTNetwork(config.to_core())
        self.hubert, self.projector, self.classifier = (
            model.hubert,
            model.projector,
            model.classifier,
        )
        self.post_init()

    def forward(
        self,
        input_values: Tensor,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> SequenceClassifierOutput | tuple[Tensor, ...]:
        """Normalised waveforms (B, N) to logits (B, C).

        Parameters
        ----------
        input_values
            (B, N), as the feature extractor makes them.
        attention_mask
            (B, N), 1 on samples and 0 on padding at the end; None: no padding.
        labels
            (B,) class indices; the cross-entropy is returned as ``loss``.
        output_hidden_states
            Return all states, one more than there are layers; the last is layer-normed.
        return_dict
            False for a plain tuple.
        """
        if output_hidden_states is None:
            output_hidden_states = self.config.output_hidden_states
        states: list[Tensor] = []

        def keep(layer: int, hidden: Tensor) -> None:
            if output_hidden_states:
                states.append(hidden)

        lengths = None if attention_mask is None else attention_mask.sum(dim=-1)
        frames = None if lengths is None else frame_lengths(lengths, self.hubert.config)
        # transformers 5 loads half-precision weights as they are; feature extractors make float32.
        input_values = input_values.to(self.hubert.masked_spec_embed.dtype)
        hidden = self.hubert(input_values, lengths, self.config.num_hidden_layers, keep)
        logits = classify_frames(hidden, frames, self.projector, self.classifier)
        output = SequenceClassifierOutput(
            loss=None if labels is None else functional.cross_entropy(logits.float(), labels),
            logits=logits,
            hidden_states=tuple(states) if output_hidden_states else None,
        )
        return output.to_tuple() if return_dict is False else output

    def freeze_feature_encoder(self) -> None:
        """Freeze the convolutions."""
        self.hubert.feature_extractor.requires_grad_(False)

    def freeze_og_encoder(self) -> None:
        """Freeze the original half of the layers, the even ones, gates included."""
        for layer in self.hubert.encoder.layers[::2]:
            layer.requires_grad_(False)

    def freeze_base_model(self) -> None:
        """Freeze everything but the classification head."""
        self.hubert.requires_grad_(False)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """For a new model or head; gates start as they do in block extension."""
        for layer in self.hubert.encoder.layers:
            gate = layer.gate_bb_linear
            if isinstance(gate, nn.Linear) and gate is module:
                (nn.init.zeros_ if layer.skip else nn.init.eye_)(gate.weight)
                nn.init.zeros_(gate.bias)
                return
        super()._init_weights(module)
        if isinstance(module, WeightNormConvolution):
            nn.init.normal_(module.weight_v)
            nn.init.ones_(module.weight_g)
            nn.init.zeros_(module.bias)
        elif isinstance(module, Hubert):
            nn.init.uniform_(module.masked_spec_embed)

    @staticmethod
    def _fix_state_dict_key_on_load(key: str) -> tuple[str, bool]:
        """Keep ``weight_g`` and ``weight_v``; transformers 4 would rename them."""
        return key, False


# Make ``AutoModelForAudioClassification`` know it.
AutoModelForAudioClassification.register(
    ExHuBERTHubConfig, ExHuBERTForAudioClassification, exist_ok=True
)
