"""Checkpoints: find, verify, load, save, convert, block-extend."""

from .loading import (
    Checkpoint,
    find_checkpoint,
    load_model,
    read_config,
    read_state,
    save_checkpoint,
    weights_sha256,
    write_random_checkpoint,
)

__all__ = [
    "Checkpoint",
    "find_checkpoint",
    "load_model",
    "read_config",
    "read_state",
    "save_checkpoint",
    "weights_sha256",
    "write_random_checkpoint",
]
