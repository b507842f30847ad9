"""Checkpoints in: whole and as stored, or a named error."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import CheckpointError, UsageError
from ..model import ExHuBERTNetwork
from ..model.config import ExHuBERTConfig
from ..spec import CLASSES, SAMPLE_RATE
from .blank import blank_model
from .hub import Checkpoint, find_checkpoint, read_json_object
from .weights import check_values, files_sha256, read_weights

_ARCHITECTURES = ("hubert", "wav2vec2", "wavlm", "exhubert")
_OTHER = "Use an ExHuBERT, HuBERT, wav2vec 2.0 or WavLM checkpoint"
_GATE = "gate_bb_linear"
_LAYER = re.compile(r"hubert\.encoder\.layers\.(\d+)\.")
_CONVOLUTION = re.compile(r"hubert\.feature_extractor\.conv_layers\.(\d+)\.")
_HEAD = ("projector.", "classifier.")
# The head of transformers' ...ForSequenceClassification.
_CLASSIFIER = {f"{name}{part}" for name in _HEAD for part in ("weight", "bias")}
# What stands on or beside the encoder and changes none of its states: heads of speech recognition
# and of pre-training, layers that shorten its output, the last layer of an x-vector.
_UNUSED = (
    "lm_head.", "quantizer.", "project_hid.", "project_q.", "hubert.adapter.",
    "hubert.feature_extractor.weight", "hubert.feature_extractor.bias",
)  # fmt: skip
# What a config must say itself, for the weights' shapes do not tell it all.
_NEEDED = (
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "conv_dim",
    "conv_kernel",
    "conv_stride",
    "conv_bias",
    "do_stable_layer_norm",
)


def load_model(
    source: str | Path,
    *,
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
    classes: Sequence[str] | None = None,
) -> tuple[ExHuBERTNetwork, Checkpoint]:
    """Load a checkpoint whole, in float32 on the CPU, in eval mode.

    Nothing in a checkpoint is executed and no parameter is initialised: each one is the
    file's own memory, mapped.

    Parameters
    ----------
    source, revision, cache_dir, local_files_only
        See :func:`find_checkpoint`.
    classes
        Class names to use in place of the checkpoint's own.
    """
    checkpoint = find_checkpoint(
        source, revision=revision, cache_dir=cache_dir, local_files_only=local_files_only
    )
    state = read_state(checkpoint)
    config = _derive_config(checkpoint, state, classes)
    try:
        model = blank_model(config)
    except (RuntimeError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{checkpoint.config_file} describes no model ({error})", remedy=_OTHER
        ) from error
    _check_keys(state, model.state_dict(), checkpoint.weights_name)
    check_values(state, checkpoint.weights_name)
    model.load_state_dict({key: _own(tensor) for key, tensor in state.items()}, assign=True)
    return model.eval(), checkpoint


def read_config(checkpoint: Checkpoint) -> ExHuBERTConfig:
    """Read the sizes and switches from ``config.json`` and the tensors' names and shapes."""
    return _derive_config(checkpoint, read_state(checkpoint), None)


def read_state(checkpoint: Checkpoint) -> dict[str, Tensor]:
    """Read the tensors this model has a use for, memory-mapped, under the release's key names."""
    state = read_weights(checkpoint.weight_files)
    unused = {key for key in state if key.startswith(_UNUSED)}
    head = {key for key in state if not key.startswith("hubert.")} - unused
    family = read_json_object(checkpoint.config_file).get("model_type")
    if head and head != _CLASSIFIER and family in ("wav2vec2", "wavlm"):
        warnings.warn(
            f"{checkpoint.source} has a head of another kind ({', '.join(sorted(head)[:3])}, ...): "
            "the encoder is loaded without it",
            stacklevel=2,
        )
        unused |= head
    elif "layer_weights" in state:
        warnings.warn(
            f"{checkpoint.source} classifies a weighted sum of layers (use_weighted_layer_sum), "
            "which is not supported: the encoder is loaded without its head",
            stacklevel=2,
        )
        unused |= {key for key in state if key.startswith(("layer_weights", *_HEAD))}
    return {key: tensor for key, tensor in state.items() if key not in unused}


def weights_sha256(checkpoint: Checkpoint) -> str:
    """SHA-256 of the weights' bytes, for provenance; counted once for each state of the files."""
    return files_sha256(checkpoint.weight_files)


def _derive_config(
    checkpoint: Checkpoint, state: dict[str, Tensor], classes: Sequence[str] | None
) -> ExHuBERTConfig:
    file = checkpoint.config_file
    data = read_json_object(file)
    _check_config(data, file)
    gated = any(_GATE in key for key in state)
    rows = state.get("classifier.weight", torch.empty(0))
    count = len(rows) if rows.ndim else 0
    if classes is None:
        names = _class_names(data, count, gated, file)
    elif len(classes) == count:
        names = tuple(classes)
    else:
        raise UsageError(
            f"{len(classes)} classes ({', '.join(classes)})",
            expected=f"{count}, as {checkpoint.source} has classes",
        )
    try:
        config = ExHuBERTConfig.from_dict(
            data, gated=gated, classes=names, do_normalize=_normalises(checkpoint)
        )
    except CheckpointError as error:
        raise CheckpointError(f"{file}: {error}") from error
    _check_depth(config, state, checkpoint)
    if not config.mask_time_prob and not config.mask_feature_prob:
        # transformers stores this vector only when training would use it.
        state.setdefault("hubert.masked_spec_embed", torch.zeros(config.hidden_size))
    return config


def _normalises(checkpoint: Checkpoint) -> bool | None:
    """Whether the model's feature extractor normalises clips; None where nothing says so."""
    file = checkpoint.preprocessor_file
    if file is None:
        return None
    data = read_json_object(file)
    rate, normalises = data.get("sampling_rate", SAMPLE_RATE), data.get("do_normalize", True)
    if rate != SAMPLE_RATE or not isinstance(normalises, bool):
        raise CheckpointError(
            f"{file} has sampling_rate: {rate!r}, do_normalize: {normalises!r}",
            expected=f"{SAMPLE_RATE}, and true or false",
            remedy="Use a model of speech at this rate, or download it again",
        )
    return normalises


def _check_config(data: Mapping[str, Any], file: Path) -> None:
    if data.get("model_type") not in _ARCHITECTURES:
        raise CheckpointError(
            f"{file} describes a {data.get('model_type', 'model without model_type')}",
            expected=" or ".join(_ARCHITECTURES),
            remedy=_OTHER,
        )
    missing = [key for key in _NEEDED if key not in data]
    if missing:
        raise CheckpointError(
            f"{file} has no {', '.join(missing)}",
            expected="every size of the model",
            remedy="Download or copy it again",
        )


def _check_depth(config: ExHuBERTConfig, state: Iterable[str], checkpoint: Checkpoint) -> None:
    """Compare the config with what is there, before a model of the config's size is built."""
    keys = list(state)
    for pattern, what, promised in (
        (_LAYER, "encoder layers", config.num_hidden_layers),
        (_CONVOLUTION, "convolutions", len(config.conv_dim)),
    ):
        there = len({found[1] for key in keys if (found := pattern.match(key))})
        if there != promised:
            raise CheckpointError(
                f"{checkpoint.weights_name} has {there} {what}, first keys "
                f"{', '.join(sorted(keys)[:3])}",
                expected=f"the {promised} of {checkpoint.config_file}",
                remedy=_OTHER,
            )


def _class_names(data: Mapping[str, Any], count: int, gated: bool, file: Path) -> tuple[str, ...]:
    """Names of the classifier's rows: as many as it has, as ``id2label`` says."""
    if count == 0:
        return ()
    generic = tuple(f"LABEL_{index}" for index in range(count))
    stored = data.get("id2label")
    known = (
        {str(key): str(name) for key, name in stored.items()} if isinstance(stored, dict) else {}
    )
    names = tuple(known.get(str(index), "") for index in range(count))
    if all(name.startswith("LABEL_") for name in known.values()):
        # The released six are stored without names; a replaced classifier often is, too.
        return CLASSES if gated and count == len(CLASSES) else generic
    if len(known) != count or not all(names):
        raise CheckpointError(
            f"{file} names {len(known)} classes ({', '.join(list(known.values())[:3])}, ...)",
            expected=f"{count}, as classifier.weight has rows",
            remedy="Correct id2label, or give the names: exhubert convert --classes a,b,c",
        )
    return names


def _check_keys(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor], file: str) -> None:
    """Every parameter from the file, in its own shape, and nothing left over."""
    missing = [key for key in wanted if key not in state]
    unknown = [key for key in state if key not in wanted]
    misshaped = [
        f"{key} {tuple(state[key].shape)} instead of {tuple(wanted[key].shape)}"
        for key in wanted
        if key in state and state[key].shape != wanted[key].shape
    ]
    problems = [
        f"{len(keys)} {what} (first {', '.join(keys[:3])})"
        for what, keys in (
            ("keys missing", missing),
            ("tensors misshaped", misshaped),
            ("keys unknown", unknown),
        )
        if keys
    ]
    if problems:
        raise CheckpointError(
            f"{file} does not fit its config.json: {'; '.join(problems)}",
            expected="the weights of such a model, whole",
            remedy="Check that both files belong together, or use another checkpoint",
        )


def _own(tensor: Tensor) -> Tensor:
    """As float32; a view that repeats or skips memory becomes a tensor of its own."""
    return tensor.to(torch.float32).contiguous()
