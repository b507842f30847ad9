"""Tensors out of weight files, and nothing but tensors: no code in a file is ever run."""

from __future__ import annotations

import contextlib
import hashlib
import os
import pickle
import re
import struct
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import CheckpointError, StoreError
from ..stamps import read_json, write_json

FLOATS = (torch.float32, torch.bfloat16, torch.float16, torch.float64)

_ZIP_MAGIC = b"PK\x03\x04"
_LFS_MAGIC = b"version https://git-lfs"
_DAMAGED = "The file is damaged or not a weights file: download or copy it again"

# What torch's restricted unpickler and its zip reader raise on bytes that are no checkpoint.
# The unpickler is a small stack machine: random opcodes end in any of these.
_UNREADABLE = (
    pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, LookupError, TypeError,
    AttributeError, AssertionError, MemoryError, OverflowError, struct.error,
)  # fmt: skip

# What transformers calls the encoder beneath a head.
_PREFIX = re.compile(r"^(hubert|wav2vec2|wavlm)\.")
# Keys of a bare encoder start with these; everything else names the head it belongs to.
_ENCODER_ROOTS = ("masked_spec_embed", "feature_extractor.", "feature_projection.", "encoder.")
_WEIGHT_NORM = {
    "parametrizations.weight.original0": "weight_g",
    "parametrizations.weight.original1": "weight_v",
}


def read_weights(files: Sequence[Path]) -> dict[str, Tensor]:
    """All tensors of one or more files, memory-mapped, under the release's key names."""
    state: dict[str, Tensor] = {}
    for file in files:
        for key, tensor in _read_file(file).items():
            name = _release_key(key)
            if name in state:
                raise CheckpointError(
                    f"{file} holds {key}, which was there already",
                    expected="every tensor once",
                    remedy=_DAMAGED,
                )
            state[name] = tensor
    return state


def _release_key(key: str) -> str:
    """Spell a key as the released checkpoint does.

    Newer torch writes the weight norm of the positional convolution as a parametrization; a
    bare ``HubertModel`` has no ``hubert.`` in front, other families their own name.
    """
    for modern, released in _WEIGHT_NORM.items():
        key = key.replace(modern, released)
    if _PREFIX.match(key):
        return _PREFIX.sub("hubert.", key)
    return f"hubert.{key}" if key.startswith(_ENCODER_ROOTS) else key


def _read_file(file: Path) -> dict[str, Tensor]:
    try:
        with file.open("rb") as stream:
            start = stream.read(len(_LFS_MAGIC))
    except OSError as error:
        raise CheckpointError(
            f"{file} cannot be read ({error.strerror})",
            remedy="Check its permissions",
        ) from error
    if not start:
        raise CheckpointError(f"{file} is empty", expected="a weights file", remedy=_DAMAGED)
    if start == _LFS_MAGIC:
        raise CheckpointError(
            f"{file} is a Git LFS pointer, not the weights",
            remedy="Run `git lfs pull` in that folder",
        )
    if file.suffix == ".safetensors":
        return _read_safetensors(file)
    return _read_pickle(file, zipped=start.startswith(_ZIP_MAGIC))


def _read_safetensors(file: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(file)
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(
            f"{file} cannot be read as safetensors ({error})", remedy=_DAMAGED
        ) from error
    except RuntimeError as error:  # what the system refused, in torch's words
        raise CheckpointError(
            f"{file} cannot be read ({error})",
            remedy="Check the disk and `ulimit -n`, and run the same command again",
        ) from error


def read_plain_pickle(file: Path, *, mapped: bool = False) -> Any:
    """Read what ``torch.save`` wrote, if that is tensors and plain containers; run nothing."""
    try:
        return torch.load(file, map_location="cpu", weights_only=True, mmap=mapped)
    except _UNREADABLE as error:
        # Not chained: torch's own message advises to switch the protection off.
        raise _refusal(file, error) from None


def _read_pickle(file: Path, *, zipped: bool) -> dict[str, Tensor]:
    # Files older than torch 1.6 are no zip archives and cannot be mapped.
    content = read_plain_pickle(file, mapped=zipped)
    if isinstance(content, Mapping) and content:
        tensors = {key: value for key, value in content.items() if isinstance(value, Tensor)}
        if len(tensors) == len(content) and all(isinstance(key, str) for key in tensors):
            return {key: value.detach() for key, value in tensors.items()}
    keys = list(content)[:3] if isinstance(content, Mapping) else []
    raise CheckpointError(
        f"{file} holds a {type(content).__name__}{f' with {keys}' if keys else ''}",
        expected="a flat dict of names and tensors, as transformers saves it",
        remedy="Save the model's state_dict() alone",
    )


def _refusal(file: Path, error: BaseException) -> CheckpointError:
    wanted = re.search(r"GLOBAL (\S+)", str(error))
    if wanted is not None:
        return CheckpointError(
            f"{file} is a pickle that would run {wanted[1]} when loaded; nothing of it was run",
            expected="tensors only",
            remedy="Do not trust this file; get the weights as .safetensors from their author",
        )
    cause = str(error).strip().partition("\n")[0] or type(error).__name__
    if isinstance(error, pickle.UnpicklingError):
        cause = "its pickle is not one of plain tensors"
    return CheckpointError(
        f"{file} cannot be read as a torch checkpoint ({cause[:200]})", remedy=_DAMAGED
    )


def check_values(state: Mapping[str, Tensor], file: str) -> None:
    """Refuse tensors that are no numbers: wrong kinds, NaN, infinity."""
    wrong = [
        f"{key} ({tensor.dtype}, {tensor.layout})"
        for key, tensor in state.items()
        if tensor.dtype not in FLOATS or tensor.layout != torch.strided or tensor.is_meta
    ]
    # A few bytes seen through strides of zero can claim terabytes, which the sum below would walk.
    wrong = wrong or [
        f"{key} ({tuple(tensor.shape)} out of {tensor.untyped_storage().nbytes():,} bytes)"
        for key, tensor in state.items()
        if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes()
    ]
    # A sum needs no memory for a mask; NaN and infinity do not leave it again.
    wrong = wrong or [
        f"{key} (NaN or infinity)"
        for key, tensor in state.items()
        if not bool(torch.isfinite(tensor.sum(dtype=torch.float32)))
    ]
    if wrong:
        raise CheckpointError(
            f"{file} holds {len(wrong)} unusable tensors, first {', '.join(wrong[:3])}",
            expected="finite floating-point tensors",
            remedy="The training that wrote it failed, or the file is damaged: use another one",
        )


def files_sha256(files: Sequence[Path]) -> str:
    """SHA-256 of one file's bytes; of the sorted names and hashes of several."""
    if len(files) == 1:
        return _file_sha256(files[0])
    lines = [f"{file.name} {_file_sha256(file)}\n" for file in sorted(files)]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def state_sha256(state: Mapping[str, Tensor], *, without: Iterable[str] = ()) -> str:
    """SHA-256 over names, types, shapes and bytes of weights in memory, but those left out."""
    left_out = set(without)
    digest = hashlib.sha256()
    for name, weight in sorted(state.items()):
        if name not in left_out:
            digest.update(f"{name} {weight.dtype} {tuple(weight.shape)};".encode())
            values = weight.detach().cpu().contiguous()
            digest.update(values.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _file_sha256(file: Path) -> str:
    """Hash of the bytes, from memory when the file is the same to the system.

    Whoever copies other weights over it and restores size and time of change does not restore
    the time of the inode's change.
    """
    real = file.resolve()  # the Hub's cache hands out symbolic links
    status = real.stat()
    identity = {
        "path": str(real),
        "size": status.st_size,
        "inode": status.st_ino,
        "mtime_ns": status.st_mtime_ns,
        "ctime_ns": status.st_ctime_ns,
    }
    # One small file for each weights file: two processes never rewrite each other's entries.
    name = hashlib.sha256(str(real).encode()).hexdigest()[:32]
    # Path.home() would raise where there is no home.
    cache = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"))  # noqa: PTH111
    memory = cache / "exhubert_features" / "weights" / f"{name}.json"
    # Nothing remembered, or nothing readable: count again.
    with contextlib.suppress(OSError, CheckpointError, KeyError):
        known = read_json(memory, error=CheckpointError)
        if known["file"] == identity:
            return str(known["digest"])
    digest = hashlib.sha256()
    with real.open("rb") as stream:
        while block := stream.read(1 << 22):
            digest.update(block)
    # A read-only home: the hash is counted again next time, nothing is lost.
    with contextlib.suppress(OSError, StoreError):
        memory.parent.mkdir(parents=True, exist_ok=True)
        write_json(memory, {"file": identity, "digest": digest.hexdigest()}, replace=True)
    return digest.hexdigest()
