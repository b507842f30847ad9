"""Heads on disk: safetensors for the numbers, JSON for the rest; nothing that runs code."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import torch

from ..errors import CheckpointError, UsageError
from ..files import make_folder, publish, read_regular
from ..fingerprint import Fingerprint
from ..spec import POOLS
from ..stamps import read_json, write_json
from ..version import __version__
from .features import HeadConfig
from .modules import HEADS, Head, build_head

FORMAT = "exhubert-head"
VERSION = 2  # 1 carried no hash of itself
CARD = "head.json"
_WEIGHTS_NAME = re.compile(r"head-[0-9a-f]{16}\.safetensors")


def save_head(head: Head, directory: str | Path, *, notes: Mapping[str, Any] | None = None) -> Path:
    """Write ``head.json`` and its weights into a folder; an older head there is replaced.

    The weights file is named after its content and ``head.json`` is renamed into place last,
    so a reader or a power cut meets the old head or the new one, never a mixture.

    Parameters
    ----------
    notes
        JSON data about the training; :func:`load_head` gives it back as ``head.notes``.
    """
    from safetensors.torch import save

    folder = Path(directory)
    make_folder(folder)
    content = save({name: value.contiguous().cpu() for name, value in head.state_dict().items()})
    digest = hashlib.sha256(content).hexdigest()
    weights = f"head-{digest[:16]}.safetensors"
    card = {
        "format": FORMAT,
        "version": VERSION,
        "package_version": __version__,
        "config": asdict(head.config),
        "weights": weights,
        "weights_sha256": digest,
        "fingerprint": head.fingerprint.to_dict(),
        "notes": dict(notes or head.notes),
    }
    publish(content, folder / weights, replace=True)
    write_json(folder / CARD, card, replace=True)
    for old in folder.glob("head-*.safetensors"):
        if old.name != weights and _WEIGHTS_NAME.fullmatch(old.name):
            old.unlink(missing_ok=True)
    return folder / CARD


def refuse_existing(directory: str | Path) -> None:
    """Raise UsageError where a folder already holds a head, which writing would replace."""
    if (Path(directory) / CARD).exists():
        raise UsageError(
            f"{directory} already holds a head",
            expected="a new folder",
            remedy="--force (force=True) replaces that head",
        )


def load_head(path: str | Path) -> Head:
    """Load a head, in eval mode, from its folder or its ``head.json``.

    Raises
    ------
    CheckpointError
        When a file is missing, damaged or no head.
    """
    card_file = Path(path) / CARD if Path(path).is_dir() else Path(path)
    card = _read_card(card_file)
    config = _config(card, card_file)
    state = _read_weights(card, card_file)
    try:
        with torch.device("meta"):  # sizes are only claims until the weights confirm them
            head = build_head(config)
        head.load_state_dict(state, assign=True)
    except RuntimeError as error:
        raise CheckpointError(f"{card_file} and its weights do not fit: {error}") from error
    if not head.temperature > 0:
        raise CheckpointError(
            f"{card_file}: the head's temperature is {float(head.temperature):g}",
            expected="a number above 0, by which its outputs are divided",
            remedy="Train or copy the head again",
        )
    head.fingerprint = _fingerprint(card, card_file)
    head.notes = card["notes"]
    return head.eval().requires_grad_(False)


def _read_card(path: Path) -> dict[str, Any]:
    try:
        content = read_regular(path)
        card = json.loads(content)
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(
            f"{path} cannot be read as a head: {error}", expected="a folder with head.json"
        ) from error
    if not isinstance(card, dict) or card.get("format") != FORMAT:
        raise CheckpointError(f"{path} is no head", expected=f"JSON of format {FORMAT}")
    version = card.get("version")
    if type(version) is not int or not 1 <= version <= VERSION:
        raise CheckpointError(
            f"{path} has version {version}",
            expected=f"1 to {VERSION}",
            remedy="Update exhubert-features",
        )
    if version > 1:
        card = read_json(path, error=CheckpointError, remedy="Train or copy the head again")
    elif "sha256" in card:  # so its version was another
        raise CheckpointError(f"{path} is not what was written", remedy="Copy the head again")
    kinds = {"config": dict, "weights": str, "weights_sha256": str, "fingerprint": dict}
    for key, kind in {**kinds, "notes": dict}.items():
        if not isinstance(card.get(key), kind):
            raise CheckpointError(f"{path} has no usable {key!r}")
    return card


def _fingerprint(card: Mapping[str, Any], path: Path) -> Fingerprint:
    try:
        return Fingerprint.from_dict(card["fingerprint"])
    except UsageError as error:
        raise CheckpointError(f"{path} cannot be used: {error}") from error


def _config(card: Mapping[str, Any], path: Path) -> HeadConfig:
    data = {"per_group": False, **card["config"]}  # version 0.1.0 did not have it
    if set(data) != {field.name for field in fields(HeadConfig)} or data["kind"] not in HEADS:
        raise CheckpointError(f"{path} describes no known head: {sorted(data)}")
    kinds: dict[str, type] = {"classes": str, "layers": int, "pools": str}
    whole = all(type(data[key]) is int and data[key] > 0 for key in ("width", "hidden"))
    lists = all(
        isinstance(data[key], list)
        and all(type(item) is kind for item in data[key])
        and len(set(data[key])) == len(data[key])
        for key, kind in kinds.items()
    )
    text = isinstance(data["target"], str) and isinstance(data["dropout"], float)
    text = text and isinstance(data["per_group"], bool)
    known = lists and min(data["layers"], default=-1) >= 0 and set(data["pools"]) <= set(POOLS)
    if not (whole and known and text and 0 <= data["dropout"] < 1):
        raise CheckpointError(f"{path} has a config with values of the wrong kind")
    return HeadConfig(**{**data, **{key: tuple(data[key]) for key in kinds}})


def _read_weights(card: Mapping[str, Any], path: Path) -> dict[str, torch.Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load

    if not _WEIGHTS_NAME.fullmatch(card["weights"]):
        raise CheckpointError(f"{path} names the weights {card['weights']!r}")
    file = path.parent / card["weights"]
    try:
        content = read_regular(file)
        if hashlib.sha256(content).hexdigest() != card["weights_sha256"]:
            raise CheckpointError(
                f"{file} is not what {path.name} says it is: its hash differs",
                remedy="Train or copy the head again",
            )
        state = load(content)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{file} cannot be read: {error}") from error
    odd = [
        name
        for name, value in state.items()
        if not value.is_floating_point() or not torch.isfinite(value).all()
    ]
    if odd:
        raise CheckpointError(f"{file} holds NaN, infinite or non-float values in {odd[0]}")
    return state
