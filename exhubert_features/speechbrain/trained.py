"""Checkpoints of what trains: its weights, and the hash of those they stand on.

A file is a plain dictionary of tensors, so that SpeechBrain can average several: the lobe's
parameters that train, whatever a subclass has of its own, and under one more key the hash of the
weights that were frozen, its bytes as numbers, which an average leaves alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..checkpoint.weights import read_plain_pickle, state_sha256
from ..errors import CheckpointError

_FROZEN = "frozen_sha256:"  # and the source they came from
_MODEL = "model."


def save_trained(lobe: Any, path: str | Path) -> None:
    """Write all that a fresh lobe of the same options would not have.

    Parameters
    ----------
    lobe
        Its ``model`` came from a checkpoint: of that, weights that require a gradient are
        written, and buffers. All else is its own and is written as it is.
    path
        A file.
    """
    source = lobe.checkpoint.source
    kept = _kept(lobe)
    content = {
        name: weight.detach().to("cpu", copy=True)
        for name, weight in lobe.state_dict(keep_vars=True).items()
        if name in kept
    }
    content[f"{_FROZEN}{source}"] = _frozen_hash(lobe, kept)
    torch.save(content, path)


def read_trained(lobe: Any, path: str | Path) -> Mapping[str, Tensor]:
    """Read a whole state of a lobe from a file; nothing in it is run.

    Parameters
    ----------
    lobe
        Nothing of it is changed.
    path
        What :func:`save_trained` wrote, an average of several of these, or a whole
        ``state_dict`` of the lobe or of its model.

    Raises
    ------
    CheckpointError
        When weights are missing, or of other shapes or names, or were trained on top of others.
    """
    try:
        content = read_plain_pickle(Path(path))
    except CheckpointError as error:
        raise CheckpointError(
            str(error), remedy="Or delete its CKPT folder: recovery then takes the one before"
        ) from None
    if not isinstance(content, Mapping) or not all(
        isinstance(value, Tensor) for value in content.values()
    ):
        raise _foreign(path)
    state = lobe.state_dict()
    of_model = {name.removeprefix(_MODEL) for name in state if name.startswith(_MODEL)}
    if content and content.keys() <= of_model:
        content = {_MODEL + name: value for name, value in content.items()}
    if not is_trained_part(content) and not content.keys() & state.keys():
        raise _foreign(path)
    return complete_state(lobe, content, path)


def is_trained_part(content: Mapping[str, Any]) -> bool:
    """Whether this is what :func:`save_trained` writes, and not a whole state."""
    return any(name.startswith(_FROZEN) for name in content)


def complete_state(
    lobe: Any, content: Mapping[str, Tensor], path: str | Path = "the state"
) -> Mapping[str, Tensor]:
    """Fill up what :func:`save_trained` wrote with the weights of the lobe that it stands on."""
    weights = {name: value for name, value in content.items() if not name.startswith(_FROZEN)}
    state = lobe.state_dict()
    _check_names(lobe, weights, state, path, whole=not is_trained_part(content))
    for name in content.keys() - weights.keys():
        if not torch.equal(content[name].float(), _frozen_hash(lobe, weights.keys())):
            raise CheckpointError(
                f"{path} was trained on top of other frozen weights, those of "
                f"{name.removeprefix(_FROZEN)}",
                expected=f"those of this lobe, {lobe.checkpoint.source}",
                remedy="Build the lobe with the source, revision and adapters it was trained "
                "with; what has trained must still be trainable when it is saved",
            )
    return {**state, **weights}


def _kept(lobe: Any) -> set[str]:
    """Name what a checkpoint holds: all but the frozen weights of the model."""
    frozen = {
        name
        for name, weight in lobe.named_parameters(remove_duplicate=False)
        if name.startswith(_MODEL) and not weight.requires_grad
    }
    return set(lobe.state_dict()) - frozen


def _frozen_hash(lobe: Any, kept: Any) -> Tensor:
    """Hash the model's weights that are not kept: 32 bytes, as numbers."""
    digest = state_sha256(
        {name: value for name, value in lobe.state_dict().items() if name.startswith(_MODEL)},
        without=kept,
    )
    return torch.tensor(list(bytes.fromhex(digest)), dtype=torch.float32)


def _check_names(
    lobe: Any,
    content: Mapping[str, Tensor],
    state: Mapping[str, Tensor],
    path: str | Path,
    *,
    whole: bool,
) -> None:
    wrong = [
        name
        for name, weight in content.items()
        if name not in state or weight.shape != state[name].shape
    ]
    own = {name for name in state if whole or not name.startswith(_MODEL)}
    missing = sorted(own - content.keys())
    if wrong or missing:
        found = f"holds {len(wrong)} weights that do not fit, first {', '.join(wrong[:3])}"
        lacks = f"lacks {len(missing)} weights, first {', '.join(missing[:3])}"
        raise CheckpointError(
            f"{path} {found if wrong else lacks}",
            expected=f"weights of {lobe.checkpoint.source} with "
            f"{len(lobe.model.config.classes)} classes",
            remedy="Build the lobe with the source, classes and adapters it was trained with",
        )


def _foreign(path: str | Path) -> CheckpointError:
    return CheckpointError(
        f"{path} was not written by this lobe",
        expected="its own checkpoint, or its whole state_dict()",
        remedy="Weights of a whole model belong in the lobe's source",
    )
