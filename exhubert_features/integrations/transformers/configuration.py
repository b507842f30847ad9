"""ExHuBERT's ``config.json`` as transformers' ``AutoConfig`` reads it."""

from __future__ import annotations

from typing import Any

from transformers.configuration_utils import PretrainedConfig
from transformers.models.auto.configuration_auto import AutoConfig

from ...model.config import ExHuBERTConfig


class ExHuBERTHubConfig(PretrainedConfig):
    """Our model's :class:`ExHuBERTConfig` and what transformers adds to a config.

    It does not derive from ``HubertConfig``: transformers may load our class while that one is
    only half there.
    """

    model_type = "exhubert"

    def __init__(self, **values: Any) -> None:
        super().__init__(**{**ExHuBERTConfig().to_dict(), **values})

    def to_core(self) -> ExHuBERTConfig:
        """Turn it into the configuration of :class:`exhubert_features.model.ExHuBERTNetwork`."""
        names = [self.id2label[index] for index in range(self.num_labels)]
        return ExHuBERTConfig.from_dict(self.to_dict(), gated=True, classes=names)


# Make ``AutoConfig`` know the model type ``exhubert``.
AutoConfig.register(ExHuBERTHubConfig.model_type, ExHuBERTHubConfig, exist_ok=True)
