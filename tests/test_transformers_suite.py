"""transformers' own tests of models, those that every model there has to pass, on ours.

They lie in its source distribution and not in the wheel; without it this is skipped:

    pip download --no-deps --no-binary :all: transformers==(the version installed)
    tar xf transformers-*.tar.gz && pip install parameterized
    TRANSFORMERS_SUITE=$PWD/transformers-... pytest -o addopts= tests/test_transformers_suite.py

(without our options, for its marks are not ours).
"""

from __future__ import annotations

import os
import sys
import unittest
from types import ModuleType
from typing import Any

import pytest
import torch

from exhubert_features.integrations.transformers import (
    ExHuBERTForAudioClassification,
    ExHuBERTHubConfig,
    ExHuBERTModel,
)

SUITE = os.environ.get("TRANSFORMERS_SUITE")
if not SUITE:
    pytest.skip("TRANSFORMERS_SUITE names no sources of transformers", allow_module_level=True)
pytest.importorskip("parameterized")

CLIPS, SAMPLES = 3, 3_200
# Of mixins that are not in the distribution, and are about other things than ours.
for module, name in (
    ("tests.exporters.test_export", "ExportTesterMixin"),
    ("tests.generation.test_utils", "GenerationTesterMixin"),
):
    stub = ModuleType(module)
    setattr(stub, name, type(name, (), {}))
    sys.modules.setdefault(module, stub)
sys.path.insert(0, SUITE)
from tests.test_modeling_common import ModelTesterMixin  # noqa: E402


class Sizes:
    """What the suite wants to know of a small model."""

    batch_size, seq_length, encoder_seq_length = CLIPS, SAMPLES, 9
    hidden_size, num_hidden_layers, num_attention_heads, num_labels = 16, 2, 2, 3
    is_training = True

    def get_config(self) -> ExHuBERTHubConfig:
        return ExHuBERTHubConfig(
            hidden_size=self.hidden_size,
            num_hidden_layers=self.num_hidden_layers,
            num_attention_heads=self.num_attention_heads,
            intermediate_size=20,
            conv_dim=[32] * 7,
            num_conv_pos_embeddings=16,
            num_conv_pos_embedding_groups=2,
            classifier_proj_size=8,
            hidden_dropout=0.0,
            apply_spec_augment=False,
            num_labels=self.num_labels,
        )

    def prepare_config_and_inputs_for_common(self) -> tuple[ExHuBERTHubConfig, dict[str, Any]]:
        mask = torch.ones(CLIPS, SAMPLES, dtype=torch.long)
        return self.get_config(), {
            "input_values": torch.randn(CLIPS, SAMPLES),
            "attention_mask": mask,
        }


class Suite(ModelTesterMixin):
    test_resize_embeddings = False

    def setUp(self) -> None:
        self.model_tester = Sizes()

    @unittest.skip("a model of waveforms has no embeddings of tokens")
    def test_inputs_embeds(self) -> None: ...

    test_model_get_set_embeddings = test_resize_tokens_embeddings = test_inputs_embeds


class TestModel(Suite, unittest.TestCase):
    all_model_classes = (ExHuBERTModel,)

    def setUp(self) -> None:
        super().setUp()
        self.model_tester.is_training = False  # it has no loss


class TestClassification(Suite, unittest.TestCase):
    all_model_classes = (ExHuBERTForAudioClassification,)

    def _prepare_for_class(
        self, inputs: dict[str, Any], model: type, return_labels: bool = False
    ) -> dict[str, Any]:
        labels = {"labels": torch.zeros(CLIPS, dtype=torch.long)} if return_labels else {}
        return {**super()._prepare_for_class(inputs, model), **labels}
