"""A model at work on tensors: waveforms at 16 kHz in, layer-wise states and class scores out."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, cast

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from .checkpoint import Checkpoint, weights_sha256
from .checkpoint.weights import state_sha256
from .errors import AudioError, UsageError
from .fingerprint import ModelIdentity
from .model import ExHuBERTNetwork, ModelOutput, OnState
from .model.config import ExHuBERTConfig
from .model.geometry import FrameGeometry
from .precision import prepare_model
from .spec import (
    CARD_SAMPLES,
    DEFAULT_PREPROCESS,
    SAMPLE_RATE,
    Layers,
    Precision,
    Preprocess,
)
from .waveforms import Waveforms, prepare_batch, split_waveforms


@dataclass(frozen=True)
class EncoderOutput:
    """What the encoder says of a batch of B clips.

    ``layers`` is (L, B, T, D), one entry for each id in ``layer_ids``: id 0 is the encoder's
    input, id k the output of layer k-1, and the last id is layer-normed. Only the first
    ``frame_lengths[b]`` of the T frames belong to clip b. ``logits`` is (B, C) in float32, or
    None when they were not asked for or the checkpoint has no classifier; ``classes`` names
    the C classes.
    """

    layers: Tensor
    layer_ids: tuple[int, ...]
    frame_lengths: Tensor
    logits: Tensor | None
    classes: tuple[str, ...]

    @property
    def probabilities(self) -> Tensor:
        """Softmax of the logits, (B, C)."""
        if self.logits is None:
            raise UsageError(
                "no probabilities: the output has no logits",
                expected="logits=True and a checkpoint with a classifier",
            )
        return self.logits.softmax(dim=-1)


class Inference(FrameGeometry):
    """A loaded model on its device and in its precision, strict about what it takes.

    :class:`exhubert_features.Encoder` derives from it and takes what users have: files, folders,
    tables and arrays of any rate.

    Parameters
    ----------
    model
        The model; it is made ready for ``device`` and ``precision``, in place.
    checkpoint
        The files it came from, for provenance; None for a model made in memory.
    device
        A torch device, or ``"auto"``: CUDA where there is one, else the CPU.
    precision
        ``"float32"`` for parity with the reference, ``"bfloat16"``, ``"float16"``, or on a CPU
        ``"int8"``; ``"auto"`` is float32 unless the machine has units for something faster that
        keeps the model's states. The attribute ``precision`` tells what is used.
    """

    def __init__(
        self,
        model: ExHuBERTNetwork,
        *,
        checkpoint: Checkpoint | None = None,
        device: str | torch.device = "auto",
        precision: Precision | Literal["auto"] = "float32",
    ) -> None:
        self.device = choose_device(device)
        self.checkpoint = checkpoint
        if checkpoint is None:
            self._memory_hash = state_sha256(model.state_dict())
        self.model = model
        self.precision: Precision = prepare_model(model, self.device, precision)

    @property
    def config(self) -> ExHuBERTConfig:
        """The model's sizes and switches."""
        return self.model.config

    @property
    def dtype(self) -> torch.dtype:
        """Of waveforms and states; on a CPU float32 also in bfloat16 and int8."""
        return self.model.hubert.masked_spec_embed.dtype

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in logit order; empty without a classifier."""
        return self.config.classes

    @property
    def num_states(self) -> int:
        """How many hidden states there are: 49 for the released model."""
        return self.model.num_states

    @property
    def hidden_size(self) -> int:
        """Width of every hidden state."""
        return self.config.hidden_size

    @cached_property
    def identity(self) -> ModelIdentity:
        """What decides this encoder's numbers, for fingerprints."""
        checkpoint = self.checkpoint
        digest = self._memory_hash if checkpoint is None else weights_sha256(checkpoint)
        return ModelIdentity(
            weights_sha256=digest,
            config_sha256=self.config.sha256,
            architecture="exhubert" if self.config.gated else self.config.family,
            num_states=self.num_states,
            hidden_size=self.hidden_size,
            classes=self.classes,
            precision=self.precision,
        )

    @property
    def provenance(self) -> dict[str, Any]:
        """Where the weights were found; recorded beside features, no part of the identity."""
        if self.checkpoint is None:
            return {"source": "memory", "revision": None}
        return {"source": self.checkpoint.source, "revision": self.checkpoint.revision}

    def resolve_preprocess(self, preprocess: Preprocess) -> Preprocess:
        """Tell what a way to prepare audio comes to: ``"card"`` is each model's own."""
        return self.config.card if preprocess == "card" else preprocess

    @torch.no_grad()
    def __call__(
        self,
        waveforms: Waveforms,
        lengths: Sequence[int] | Tensor | None = None,
        *,
        layers: Layers = None,
        preprocess: Preprocess = DEFAULT_PREPROCESS,
        truncate: bool = False,
        logits: bool = True,
        together: bool | None = None,
        sample_rate: int = SAMPLE_RATE,
    ) -> EncoderOutput:
        """Encode clips; the same clip gives the same numbers alone and in any batch.

        Parameters
        ----------
        waveforms
            One (N,) clip, a list of clips of any lengths, or (B, N); 16 kHz floating point.
        lengths
            (B,) samples of each clip when they are padded to one length.
        layers
            None: all hidden states; a number: the one of that id; a list: these ids. Without
            ``logits``, layers above the deepest one asked for do not run.
        preprocess
            ``"card"``: as the model's card does. That of the released model, zero-padded to 3 s,
            normalised with the padding, unmasked, counts for every HuBERT; wav2vec 2.0 and WavLM
            have ``"masked"`` or ``"none"``, as their ``preprocessor_config.json`` says.
            ``"masked"``: each clip is normalised over its own samples and padding is masked.
            ``"none"``: clips are taken as they are and padding is masked.
        truncate
            With ``"card"``: cut clips to 3 s; else longer clips are taken whole.
        logits
            Whether to run the classifier, if the checkpoint has one.
        together
            True: the clips run as one padded batch, which agrees with each clip alone to 1e-5
            of the states' scale (float32; in int8 to a few hundredths, as rounding amplifies
            it). False: one after the other, which agrees to the last bit.
            None: one after the other in float32 on a CPU, where it costs little, else together.
        sample_rate
            Rate of the clips; anything but 16,000 is refused, not resampled.

        Returns
        -------
        EncoderOutput
            States (L, B, T, D), logits (B, C) and the frames of each clip.
        """
        if sample_rate != SAMPLE_RATE:
            raise AudioError(
                f"clips at {sample_rate} Hz",
                expected=f"{SAMPLE_RATE} Hz",
                remedy="Use encoder.predict((waveform, rate)) or encoder.extract((waveform, "
                "rate)), which resample, or exhubert_features.audio.read_array(name, waveform, "
                "rate) for the waveform alone",
            )
        if together is None:
            together = self.device.type != "cpu" or self.precision != "float32"
        clips = split_waveforms(waveforms, lengths)
        preprocess = self.resolve_preprocess(preprocess)
        batch, seen = prepare_batch(clips, preprocess, truncate=truncate)
        rows = list(range(len(clips)))
        outputs = [
            self._forward(batch, seen, part, layers=layers, logits=logits)
            for part in ([rows] if together else [[row] for row in rows])
        ]
        own = [min(len(clip), CARD_SAMPLES) if truncate else len(clip) for clip in clips]
        return EncoderOutput(
            layers=_join_rows([torch.stack(output.hidden_states) for output in outputs]),
            layer_ids=outputs[0].layer_ids,
            # The model counts the card's padding as signal; nobody else shall.
            frame_lengths=torch.tensor(
                [self.frame_count(samples) for samples in own], device=self.device
            ),
            logits=None
            if outputs[0].logits is None
            else torch.cat([cast("Tensor", output.logits) for output in outputs]).float(),
            classes=self.classes,
        )

    @torch.no_grad()
    def visit(
        self,
        waves: Sequence[np.ndarray],
        on_state: OnState,
        *,
        layers: Layers = None,
        preprocess: Preprocess = DEFAULT_PREPROCESS,
        logits: bool = True,
    ) -> Tensor | None:
        """Encode checked clips as one padded batch, handing states over instead of keeping them.

        Parameters
        ----------
        waves
            B clips (N,), float32 at 16 kHz, as :func:`exhubert_features.audio.read_audio`
            returns them; they are not checked again.
        on_state
            Called with the id and the state (B, T, D) of each layer asked for, from the bottom
            up. With ``"card"``, frames of the padding to 3 s are among the T.
        layers, preprocess, logits
            See :meth:`__call__`.

        Returns
        -------
        Logits (B, C) in float32, or None without a classifier.
        """
        clips = [torch.from_numpy(wave) for wave in waves]
        batch, seen = prepare_batch(clips, self.resolve_preprocess(preprocess), truncate=False)
        output = self._forward(
            batch, seen, list(range(len(clips))), layers=layers, logits=logits, on_state=on_state
        )
        return None if output.logits is None else output.logits.float()

    def _forward(
        self,
        batch: Tensor,
        seen: list[int],
        rows: list[int],
        *,
        layers: Layers,
        logits: bool,
        on_state: OnState | None = None,
    ) -> ModelOutput:
        """Run some rows (B, N) of the batch, masked where their lengths ``seen`` differ."""
        lengths = [seen[row] for row in rows]
        with _own_precision(self.device, self.precision):
            return self.model(
                batch[rows, : max(lengths)].to(self.device, self.dtype),
                torch.tensor(lengths, device=self.device) if len(set(lengths)) > 1 else None,
                layers=layers,
                logits=logits,
                on_state=on_state,
            )


def _join_rows(parts: list[Tensor]) -> Tensor:
    """Several (L, B, T, D) to one, with zeros where one has fewer frames than the longest."""
    if len(parts) == 1:
        return parts[0]
    frames = max(part.shape[2] for part in parts)
    padded = [functional.pad(part, (0, 0, 0, frames - part.shape[2])) for part in parts]
    return torch.cat(padded, dim=1)


def choose_device(device: str | torch.device) -> torch.device:
    """Resolve ``"auto"``; refuse CUDA where there is none."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except RuntimeError as error:
        raise UsageError(f"device is {device!r}", expected="auto, cpu, cuda or cuda:N") from error
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        raise UsageError(
            f"device is {device}",
            expected=f"one of the {torch.cuda.device_count()} CUDA devices here",
            remedy="Use device='cpu', or install a torch that sees the GPU",
        )
    return chosen


@contextlib.contextmanager
def _own_precision(device: torch.device, precision: Precision) -> Iterator[None]:
    """Compute in the encoder's precision, which goes into fingerprints, whatever is around it.

    Autocast is off, and CUDA does not round float32 convolutions to TF32, which breaks parity
    (1e-3).
    """
    with contextlib.ExitStack() as stack:
        stack.enter_context(torch.autocast(device.type, enabled=False))
        if device.type == "cuda" and precision == "float32":
            cudnn = torch.backends.cudnn
            stack.enter_context(
                cudnn.flags(
                    enabled=cudnn.enabled,
                    benchmark=cudnn.benchmark,
                    deterministic=cudnn.deterministic,
                    allow_tf32=False,
                )
            )
        yield
