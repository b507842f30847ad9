"""Ways to write a checkpoint's files, for tests."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

State = dict[str, Tensor]


def stored(folder: Path) -> State:
    return torch.load(folder / "pytorch_model.bin", weights_only=True)


def rewrite(folder: Path, change: Callable[[State], object]) -> None:
    state = stored(folder)
    change(state)
    torch.save(state, folder / "pytorch_model.bin")


def set_config(folder: Path, **values: object) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


def as_safetensors(folder: Path, state: State) -> None:
    save_file(state, folder / "model.safetensors")


def as_shards(suffix: str) -> Callable[[Path, State], None]:
    def write(folder: Path, state: State) -> None:
        stem = "model" if suffix == "safetensors" else "pytorch_model"
        names = [f"{stem}-0000{number}-of-00003.{suffix}" for number in (1, 2, 3)]
        keys = list(state)
        for number, name in enumerate(names):
            part = {key: state[key] for key in keys[number::3]}
            if suffix == "safetensors":
                save_file(part, folder / name)
            else:
                torch.save(part, folder / name)
        index = {"weight_map": {key: names[i % 3] for i, key in enumerate(keys)}}
        (folder / f"{stem}.{suffix}.index.json").write_text(json.dumps(index))

    return write


def as_legacy(folder: Path, state: State) -> None:
    torch.save(state, folder / "pytorch_model.bin", _use_new_zipfile_serialization=False)


def as_parametrizations(folder: Path, state: State) -> None:
    modern = {
        key.replace("weight_g", "parametrizations.weight.original0").replace(
            "weight_v", "parametrizations.weight.original1"
        ): tensor
        for key, tensor in state.items()
    }
    as_safetensors(folder, modern)
