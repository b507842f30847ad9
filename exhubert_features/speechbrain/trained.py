"""Checkpoints of what trains: its weights, and the hash of those they stand on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from ..checkpoint.weights import read_plain_pickle, state_sha256
from ..errors import CheckpointError
from ..model import ExHuBERTNetwork

FORMAT = "exhubert-lobe-1"


def save_trained(model: ExHuBERTNetwork, path: str | Path, *, source: str) -> None:
    """Write the weights that train, and the hash of the others.

    Parameters
    ----------
    model
        Weights that require a gradient are those that train.
    path
        A file.
    source
        Where the frozen weights came from, for the error message of a later mismatch.
    """
    trained = {
        name: weight.detach().to("cpu", copy=True)
        for name, weight in model.named_parameters()
        if weight.requires_grad
    }
    content = {
        "format": FORMAT,
        "source": source,
        "trained": trained,
        "frozen_sha256": state_sha256(model.state_dict(), without=trained),
    }
    torch.save(content, path)


def load_trained(model: ExHuBERTNetwork, path: str | Path, *, source: str) -> None:
    """Take over what :func:`save_trained` wrote, if all other weights are the same."""
    content = _read(path)
    trained = content["trained"]
    state = model.state_dict()
    wrong = [
        name
        for name, weight in trained.items()
        if name not in state or weight.shape != state[name].shape
    ]
    if wrong:
        raise CheckpointError(
            f"{path} holds {len(wrong)} weights that do not fit, first {', '.join(wrong[:3])}",
            expected=f"weights of {source} with {len(model.config.classes)} classes",
            remedy="Build the lobe with the source and classes it was trained with",
        )
    if state_sha256(model.state_dict(), without=trained) != content["frozen_sha256"]:
        raise CheckpointError(
            f"{path} was trained on top of other frozen weights, those of {content['source']}",
            expected=f"those of this lobe, {source}",
            remedy="Build the lobe with the source and revision it was trained with",
        )
    model.load_state_dict(trained, strict=False)  # every name is accounted for above
    model.detect_identity_gates()


def _read(path: str | Path) -> dict[str, Any]:
    try:
        content = read_plain_pickle(Path(path))
    except CheckpointError as error:
        raise CheckpointError(
            str(error), remedy="Or delete its CKPT folder: recovery then takes the one before"
        ) from None
    known = isinstance(content, dict) and content.get("format") == FORMAT
    if not known or {"trained", "frozen_sha256", "source"} - content.keys():
        raise CheckpointError(
            f"{path} was not written by this lobe",
            expected=f"format {FORMAT}",
            remedy="Weights of a whole model belong in the lobe's source",
        )
    return content
