"""Block extension, the ExHuBERT paper's way to make a deeper model of a pre-trained HuBERT."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from ..errors import CheckpointError, UsageError
from ..model import ExHuBERTNetwork
from ..model.config import ExHuBERTConfig
from ..spec import CLASSES
from .blank import blank_model
from .loading import load_model
from .saving import refuse_occupied, save_checkpoint

_LAYER = re.compile(r"(hubert\.encoder\.layers\.)(\d+)(\..+)")


def expand(
    source: str | Path,
    destination: str | Path,
    *,
    classes: Sequence[str] | None = None,
    seed: int = 0,
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
) -> ExHuBERTConfig:
    """Write the block-extended ``source`` to the folder ``destination``.

    Parameters
    ----------
    source, revision, cache_dir, local_files_only
        See :func:`exhubert_features.checkpoint.find_checkpoint`; a HuBERT with stable layer
        norm, such as the large and extra-large ones, with or without a head.
    destination
        A folder that does not exist yet, or is empty.
    classes
        Class names. Without any, the source's own, or the released six for a new head.
    seed
        Of the new classification head, made when the source has none.

    Returns
    -------
    The extended model's config.
    """
    refuse_occupied(destination)  # before a download, not after
    model, checkpoint = load_model(
        source, revision=revision, cache_dir=cache_dir, local_files_only=local_files_only
    )
    try:
        extended = _expand_model(model, classes=classes, seed=seed)
    except CheckpointError as error:
        raise CheckpointError(f"{checkpoint.source} cannot be block-extended: {error}") from error
    save_checkpoint(extended, destination)
    return extended.config


def _expand_model(
    model: ExHuBERTNetwork, *, classes: Sequence[str] | None = None, seed: int = 0
) -> ExHuBERTNetwork:
    """Build a model with every layer of ``model`` twice, which gives the same hidden states.

    Layer i becomes the pair 2i, 2i + 1. The even one has an identity gate and stays what it
    was; the odd one's gate is zero, so that at first it adds nothing.
    """
    original = model.config
    if original.gated:
        raise CheckpointError("it has gates, so it is block-extended already")
    if original.family != "hubert":
        raise CheckpointError(f"it is a {original.family}", expected="a HuBERT")
    if not original.do_stable_layer_norm:
        raise CheckpointError(
            "its layers norm after their residual sums (do_stable_layer_norm: false)",
            expected="stable layer norm",
            remedy="Use a large HuBERT such as facebook/hubert-large-ll60k",
        )
    names = tuple(classes) if classes is not None else original.classes or CLASSES
    if original.classes and len(names) != len(original.classes):
        raise UsageError(
            f"{len(names)} classes ({', '.join(names)})",
            expected=f"{len(original.classes)}, as the source's own head has classes",
            remedy="Leave the classes out; train a new head with `exhubert train`",
        )
    config = replace(
        original, gated=True, num_hidden_layers=2 * original.num_hidden_layers, classes=names
    )
    state = _twice(model.state_dict(), config.hidden_size)
    if not original.classes:
        state |= _new_head(config, seed)
    extended = blank_model(config)
    extended.load_state_dict(state, assign=True)
    return extended.eval()


def _twice(state: dict[str, Tensor], width: int) -> dict[str, Tensor]:
    extended: dict[str, Tensor] = {}
    for key, tensor in state.items():
        found = _LAYER.fullmatch(key)
        if found is None:
            extended[key] = tensor
            continue
        stack, index, name = found[1], int(found[2]), found[3]
        for layer, copy in ((2 * index, tensor), (2 * index + 1, tensor.clone())):
            extended[f"{stack}{layer}{name}"] = copy
            gate = f"{stack}{layer}.gate_bb_linear"
            extended[f"{gate}.weight"] = (
                torch.zeros(width, width) if layer % 2 else torch.eye(width)
            )
            extended[f"{gate}.bias"] = torch.zeros(width)
    return extended


def _new_head(config: ExHuBERTConfig, seed: int) -> dict[str, Tensor]:
    """Weights at the scale that keeps the variance, biases zero."""
    generator = torch.Generator().manual_seed(seed)
    sizes = {
        "projector": (config.classifier_proj_size, config.hidden_size),
        "classifier": (len(config.classes), config.classifier_proj_size),
    }
    head: dict[str, Tensor] = {}
    for name, (rows, columns) in sizes.items():
        head[f"{name}.weight"] = torch.randn(rows, columns, generator=generator) / columns**0.5
        head[f"{name}.bias"] = torch.zeros(rows)
    return head
