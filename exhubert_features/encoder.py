"""The front door: an encoder that takes what users have and gives features and predictions."""

from __future__ import annotations

from pathlib import Path

import torch

from .checkpoint import load_model
from .inference import Inference
from .spec import DEFAULT_REVISION, DEFAULT_SOURCE, Precision


class Encoder(Inference):
    """A loaded model, ready for use; made by :func:`load_encoder`."""


def load_encoder(
    source: str | Path = DEFAULT_SOURCE,
    *,
    revision: str | None = DEFAULT_REVISION,
    device: str | torch.device = "auto",
    precision: Precision = "float32",
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
) -> Encoder:
    """Load an ExHuBERT or HuBERT checkpoint as an :class:`Encoder`.

    Parameters
    ----------
    source
        A Hub id, or a local folder. Nothing in it is executed.
    revision
        Commit, tag or branch on the Hub. The default pins the released ExHuBERT and is not
        applied to other ids.
    device
        ``"auto"`` is CUDA where there is one, else the CPU.
    precision
        ``"float32"`` for parity with the reference; ``"bfloat16"`` is several times faster
        on hardware that has it.
    cache_dir
        Where the Hub's files are kept; the Hub's own default when None.
    local_files_only
        Never use the network.
    """
    model, checkpoint = load_model(
        source, revision=revision, cache_dir=cache_dir, local_files_only=local_files_only
    )
    return Encoder(model, checkpoint=checkpoint, device=device, precision=precision)
