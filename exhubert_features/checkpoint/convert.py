"""Any supported checkpoint to safetensors with real class names."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from ..model.config import ExHuBERTConfig
from .card import model_card
from .loading import load_model
from .saving import refuse_occupied, save_checkpoint


def convert(
    source: str | Path,
    destination: str | Path,
    *,
    dtype: torch.dtype | None = None,
    classes: Sequence[str] | None = None,
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
) -> ExHuBERTConfig:
    """Write ``source`` to the folder ``destination`` as :func:`save_checkpoint` does, with a card.

    Parameters
    ----------
    source, revision, cache_dir, local_files_only
        See :func:`exhubert_features.checkpoint.find_checkpoint`.
    destination
        A folder that does not exist yet, or is empty.
    dtype
        ``torch.bfloat16`` or ``torch.float16`` for half the bytes; None is float32.
    classes
        Class names in logit order, in place of the checkpoint's.

    Returns
    -------
    The model's config.
    """
    refuse_occupied(destination)  # before a download, not after
    model, checkpoint = load_model(
        source,
        revision=revision,
        cache_dir=cache_dir,
        local_files_only=local_files_only,
        classes=classes,
    )
    save_checkpoint(model, destination, dtype=dtype, card=model_card(model.config, checkpoint))
    return model.config
