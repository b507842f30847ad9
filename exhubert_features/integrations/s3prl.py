"""s3prl: an upstream with its contract, which needs s3prl only to be registered there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from ..frames import fit_frames, host_frame_count
from ..spec import DEFAULT_SOURCE, FRAME_STRIDE
from ..trainable import TrainableEncoder


class UpstreamExpert(nn.Module):
    """All hidden states of several waveforms, ⌈samples / 320⌉ frames of the longest.

    Parameters
    ----------
    ckpt
        Hub id or folder.
    model_config
        Not used: a checkpoint has its own.
    **kw
        Further arguments of :class:`exhubert_features.TrainableEncoder`; what s3prl itself hands
        to every upstream (``refresh`` and the like) is not used.
    """

    def __init__(self, ckpt: str = DEFAULT_SOURCE, model_config: str | None = None, **kw: Any):
        super().__init__()
        known = {"revision", "layers", "preprocess", "freeze", "apply_spec_augment", "cache_dir"}
        chosen = {name: value for name, value in kw.items() if name in known}
        self.encoder = TrainableEncoder(ckpt, **chosen)

    def get_downsample_rates(self, key: str | None = None) -> int:
        """Tell how many samples lie between frames, of any state."""
        return FRAME_STRIDE

    def forward(self, wavs: Sequence[Tensor]) -> dict[str, Any]:
        """Encode waveforms (N,) at 16 kHz.

        Returns
        -------
        ``hidden_states``, one (B, T, D) each, and ``last_hidden_state``. Behind its own frames a
        clip has its last one again.
        """
        lengths = torch.tensor([len(wav) for wav in wavs], device=wavs[0].device)
        states, frames = self.encoder(pad_sequence(list(wavs), batch_first=True), lengths)
        size = host_frame_count(int(lengths.max()), "ceil")
        fitted = [
            fit_frames(states[:, row, :count], size) for row, count in enumerate(frames.tolist())
        ]
        hidden = tuple(torch.stack(fitted, dim=1))
        return {"hidden_states": hidden, "last_hidden_state": hidden[-1]}


def register() -> None:
    """Make s3prl know ``exhubert``, the released model, and ``exhubert_local`` with ``ckpt=``."""
    from s3prl import hub

    hub.exhubert = UpstreamExpert
    hub.exhubert_local = UpstreamExpert
