"""What this machine can do at best: products of matrices in each precision, and copying."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from ..model.kernels import int8_product, multiplies_int8
from ..precision import seconds_of
from ..spec import Precision

_SIDE = {"cpu": 1024, "cuda": 8192}
_COPIED = 256 << 20  # bytes: more than any cache holds
_REPEATS = 7  # the best counts: others may take the machine in between, but none can help
_CLEAR_PEAK = Path("/proc/self/clear_refs")


@dataclass(frozen=True, kw_only=True)
class Machine:
    """Peaks in operations a second, by precision, where it has products in that."""

    device: str
    threads: int
    peaks: dict[str, float]
    copied_per_second: float  # bytes read and written


def measure_machine(device: torch.device) -> Machine:
    """Take the best of a few products and copies."""
    names: tuple[Precision, ...] = ("float32", "bfloat16", "int8")
    peaks = {name: _peak(name, device) for name in names}
    source = torch.zeros(_COPIED, dtype=torch.uint8, device=device)
    target = torch.zeros_like(source)
    seconds = min(seconds_of(lambda: target.copy_(source), device) for _ in range(_REPEATS))
    return Machine(
        device=str(device),
        threads=torch.get_num_threads(),
        peaks={name: peak for name, peak in peaks.items() if peak},
        copied_per_second=2 * _COPIED / seconds,
    )


def _peak(precision: Precision, device: torch.device) -> float:
    """Operations a second of a square product; 0.0 where there is none."""
    side = _SIDE[device.type]
    if precision == "int8":
        if device.type != "cpu" or not multiplies_int8():
            return 0.0
        multiply = int8_product(side)
    else:
        one = torch.randn(side, side, device=device).to(getattr(torch, precision))
        multiply = partial(torch.mm, one, one)
    multiply()
    return 2 * side**3 / min(seconds_of(multiply, device) for _ in range(_REPEATS))


def forget_peak_memory(device: torch.device) -> None:
    """Let :func:`peak_memory_since` count from now on, where the system can."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif _CLEAR_PEAK.exists():
        _CLEAR_PEAK.write_text("5")


def peak_memory_since(device: torch.device) -> int | None:
    """Most bytes at once: of the GPU, or resident in main memory; None where nobody counts."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if not _CLEAR_PEAK.exists():
        return None
    lines = Path("/proc/self/status").read_text().splitlines()
    peak = next(line for line in lines if line.startswith("VmHWM:"))
    return 1024 * int(peak.split()[1])
