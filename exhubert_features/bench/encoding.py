"""How fast the encoder is: in each precision, at each batch size, beside the plain loop."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch

from ..encoder import Encoder, load_encoder
from ..model.config import ExHuBERTConfig, frame_count
from ..precision import seconds_of, speedup
from ..spec import CARD_SAMPLES, SAMPLE_RATE, Layers, Precision
from .machine import Machine, forget_peak_memory, peak_memory_since
from .plain import PlainLoop

BATCH_SIZES = {"cpu": (1, 2, 4, 8), "cuda": (1, 8, 32, 64)}
_Turn = tuple[str, int]  # a precision, or the plain loop, and a batch size
_EMULATED = 0.7  # times the speed of float32: below this a precision is not worth the wait


@dataclass(frozen=True, kw_only=True)
class Speed:
    """Clips of 3 s through the encoder, all layers."""

    name: str  # the precision, or "plain loop"
    batch_size: int
    seconds: float  # a clip, the best of the rounds
    front_seconds: float  # of these, under the layers
    ratio: float  # times as fast as the plain loop in the same round, the median
    share_of_peak: float  # of the machine's matrix peak in this precision
    memory: int | None  # bytes at most, weights included; None where the system does not count

    @property
    def clips_per_second(self) -> float:
        """Of 3 s each."""
        return 1 / self.seconds

    @property
    def real_time(self) -> float:
        """Seconds of audio in a second."""
        return CARD_SAMPLES / SAMPLE_RATE / self.seconds

    def stretched(self, layers: int, deeper: int) -> float:
        """Seconds a clip if the model had more layers."""
        return self.front_seconds + (self.seconds - self.front_seconds) * deeper / layers


def bench_encoder(
    checkpoint: str | Path,
    machine: Machine,
    *,
    precisions: Sequence[Precision],
    batch_sizes: Sequence[int],
    rounds: int,
) -> list[Speed]:
    """Measure by turns, so that a busy minute hits all; the plain loop comes first.

    Each turn is paired with a plain loop of its own round. All the encoders are loaded at once.
    """
    device = torch.device(machine.device)
    encoders = {
        name: load_encoder(checkpoint, device=device, precision=name) for name in precisions
    }
    config = next(iter(encoders.values())).config
    noise = np.random.default_rng(0).normal(0, 0.1, (max(batch_sizes), CARD_SAMPLES))
    waves = list(noise.astype(np.float32))
    plain = PlainLoop(load_encoder(checkpoint, device=device).model)
    clip = torch.from_numpy(waves[0]).to(device)
    actions: dict[_Turn, Callable[[], object]] = {("plain loop", 1): partial(plain, clip)}
    for name, encoder in encoders.items():
        actions |= {(name, size): partial(_encode, encoder, waves[:size]) for size in batch_sizes}
    memory: dict[_Turn, int | None] = {}
    front: dict[_Turn, float] = {("plain loop", 1): 0.0}
    for turn, action in actions.items():
        forget_peak_memory(device)
        action()  # the first pass allocates
        memory[turn] = peak_memory_since(device)
    for name, encoder in encoders.items():
        for size in batch_sizes:
            shallow = partial(_encode, encoder, waves[:size], layers=0)
            front[name, size] = min(seconds_of(shallow, device) for _ in range(3)) / size
    found: dict[_Turn, list[float]] = {turn: [] for turn in actions}
    for _ in range(rounds):
        for turn, action in actions.items():
            found[turn].append(seconds_of(action, device) / turn[1])
    first, work = np.array(found["plain loop", 1]), operations(config)
    peaks = {"plain loop": machine.peaks["float32"], **machine.peaks}
    return [
        Speed(
            name=turn[0],
            batch_size=turn[1],
            seconds=min(seconds),
            front_seconds=front[turn],
            ratio=float(np.median(first / seconds)),
            share_of_peak=work / min(seconds) / peaks[turn[0]],
            memory=memory[turn],
        )
        for turn, seconds in found.items()
    ]


def worth_running(device: torch.device) -> list[Precision]:
    """List the precisions that this machine does not merely emulate."""
    names: tuple[Precision, ...] = ("float32", "bfloat16", "int8")
    return [name for name in names if name == "float32" or speedup(name, device) >= _EMULATED]


def operations(config: ExHuBERTConfig, samples: int = CARD_SAMPLES) -> float:
    """Count multiplications and additions in one clip's products, 217e9 for 3 s of the release."""
    total, channels = 0, 1
    for depth, width in enumerate(config.conv_dim):
        part = ExHuBERTConfig(
            conv_dim=config.conv_dim[: depth + 1],
            conv_kernel=config.conv_kernel[: depth + 1],
            conv_stride=config.conv_stride[: depth + 1],
        )
        total += frame_count(samples, part) * config.conv_kernel[depth] * channels * width
        channels = width
    frames, width = frame_count(samples, config), config.hidden_size
    total += frames * channels * width
    taps, groups = config.num_conv_pos_embeddings, config.num_conv_pos_embedding_groups
    total += frames * taps * width * width // groups
    square = (5 if config.gated else 4) * width**2 + 2 * width * config.intermediate_size
    total += config.num_hidden_layers * (frames * square + 2 * frames**2 * width)
    return 2.0 * total


def _encode(encoder: Encoder, waves: Sequence[np.ndarray], layers: Layers = None) -> None:
    encoder.visit(waves, _forget, layers=layers, logits=layers is None)


def _forget(layer: int, hidden: torch.Tensor) -> None:
    """Take a state and keep nothing."""
