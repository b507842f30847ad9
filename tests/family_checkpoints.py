"""Checkpoints of wav2vec 2.0, WavLM and HuBERT as transformers writes them, tiny and random."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

LAYERS = 3
SIZES: dict[str, Any] = {
    "hidden_size": 32, "num_hidden_layers": LAYERS, "num_attention_heads": 4,
    "intermediate_size": 48, "conv_dim": (16,) * 7, "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4, "classifier_proj_size": 8,
}  # fmt: skip
# As wav2vec2-base, hubert-base and wavlm-base have it, and as the large ones.
SHAPES: dict[str, dict[str, Any]] = {
    "base": {"feat_extract_norm": "group", "conv_bias": False, "do_stable_layer_norm": False},
    "large": {"feat_extract_norm": "layer", "conv_bias": True, "do_stable_layer_norm": True},
}
FAMILIES = {"hubert": "Hubert", "wav2vec2": "Wav2Vec2", "wavlm": "WavLM"}


def written(
    folder: Path, family: str, shape: str = "large", *, kind: str = "Model", **more: Any
) -> torch.nn.Module:
    """A random model, saved by transformers with its feature extractor; loud enough to tell."""
    import transformers

    torch.manual_seed(0)
    config = getattr(transformers, f"{FAMILIES[family]}Config")(**SIZES, **SHAPES[shape], **more)
    model = getattr(transformers, f"{FAMILIES[family]}{kind}")(config).eval()
    for weight in model.parameters():
        torch.nn.init.normal_(weight, std=0.3 if weight.ndim > 1 else 0.1)
    model.save_pretrained(folder)
    transformers.Wav2Vec2FeatureExtractor(do_normalize=shape == "large").save_pretrained(folder)
    return model
