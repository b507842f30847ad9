"""Checkpoints: find, verify, load, save, convert, block-extend."""

from .hub import Checkpoint, find_checkpoint
from .loading import load_model, read_config, read_state, weights_sha256
from .saving import save_checkpoint, write_random_checkpoint

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
