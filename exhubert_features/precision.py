"""In which precision to compute: what this machine is fast at, and a model made ready for it."""

from __future__ import annotations

import statistics
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from itertools import repeat
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from .errors import UsageError
from .model import ExHuBERTNetwork
from .model.fusing import Kernel, fused_layer
from .model.kernels import BFloat16Linear, Int8Linear, multiplies_int8
from .model.layers import EncoderLayer
from .spec import Precision

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
# On a CPU only the products of the layers are in these: convolutions in bfloat16 alone would
# double the loss.
_KERNELS: dict[str, Kernel] = {"bfloat16": BFloat16Linear, "int8": Int8Linear}
# What "auto" chooses from, the most faithful first. float16, where little fits, never unasked.
_CANDIDATES: dict[str, tuple[Precision, ...]] = {
    "cpu": ("float32", "bfloat16", "int8"),
    "cuda": ("float32", "bfloat16"),
}
# How many times as fast a less faithful precision's products must be. Units for them give 2.5 and
# more; without such units int8 gives 1.5 at most on a CPU, which is not worth its loss.
WORTHWHILE = 2.0
FAITHFUL = 0.999  # the least cosine between a layer's mean states in int8 and in float32
_PATIENCE = 0.1  # seconds for one comparison, if a single pair of products does not take longer
_ROWS = {"cpu": 256, "cuda": 4096}
_WIDTH = {"cpu": 1024, "cuda": 4096}  # of the products by which a machine is judged


def resolve_precision(
    asked: Precision | Literal["auto"], device: torch.device, *, width: int | None = None
) -> Precision:
    """Settle what to compute in.

    Parameters
    ----------
    asked
        ``"auto"`` is float32 unless this machine has units for something faster. A precision
        that this machine only emulates is taken at the user's word, with a warning.
    device
        Where the model will run.
    width
        The model's hidden size: nothing beats float32 on a tiny model. None: a large one.
    """
    if asked == "auto":
        return fastest_precision(device, width)
    if asked not in get_args(Precision):
        known = ", ".join(get_args(Precision))
        raise UsageError(f"precision is {asked!r}", expected=f"auto, {known}")
    if asked == "int8" and (device.type != "cpu" or not multiplies_int8()):
        raise UsageError(
            f"int8 on {device.type}, or with a torch that has no products of 8 bits",
            expected="an x86 CPU",
            remedy="Use precision auto or bfloat16",
        )
    if asked != "float32" and device.type in _CANDIDATES:
        _warn_of_emulation(asked, device)
    return asked


def fastest_precision(device: torch.device, width: int | None = None) -> Precision:
    """Choose the fastest that keeps its fidelity, by products measured here and now."""
    chosen, *others = _CANDIDATES.get(device.type, ("float32",))
    best = 1.0
    for one in others:
        ratio = speedup(one, device, width)
        if ratio >= WORTHWHILE * best:
            chosen, best = one, ratio
    return chosen


def _warn_of_emulation(asked: Precision, device: torch.device) -> None:
    ratio = speedup(asked, device)
    if ratio < 1:
        warnings.warn(
            f"this machine has no units for {asked}: its matrix products run at {ratio:.2f} times "
            f"the speed of float32. Use precision {fastest_precision(device)}",
            stacklevel=6,
        )


@cache
def speedup(precision: Precision, device: torch.device, width: int | None = None) -> float:
    """Measure how many times as fast as in float32 the model's products are; 0.0 where they fail.

    By turns, on one core and in that core's own time: on a machine that is busy with other
    things the answer is the same.

    Parameters
    ----------
    precision
        What to compare with float32.
    device
        Where the model will run.
    width
        The model's hidden size; None: a large one.
    """
    width = width or _WIDTH[device.type]
    plain, other = _product("float32", device, width), _product(precision, device, width)
    if plain is None or other is None:
        return 0.0
    begin, ratios = time.perf_counter(), list[float]()
    with _one_thread_each():
        plain(), other()  # the first ones compile kernels and allocate
        while not ratios or time.perf_counter() - begin < _PATIENCE:
            ratios.append(_seconds_of_core(plain, device) / _seconds_of_core(other, device))
    return statistics.median(ratios)


@contextmanager
def _one_thread_each() -> Iterator[int]:
    """Keep torch from spreading single operations over threads; gives how many there were."""
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        yield threads
    finally:
        torch.set_num_threads(threads)


def _product(precision: Precision, device: torch.device, width: int) -> Callable[[], object] | None:
    """Make the first product of a feed-forward block, as the model runs it."""
    rows, weight = torch.randn(_ROWS[device.type], width), torch.randn(4 * width, width)
    if precision == "int8" and (device.type != "cpu" or not multiplies_int8()):
        return None
    if device.type == "cpu" and precision in _KERNELS:
        layer = _KERNELS[precision](weight, torch.zeros(len(weight)))
        return lambda: layer(rows)
    rows, weight = (one.to(device, _DTYPES[precision]) for one in (rows, weight))
    return lambda: nn.functional.linear(rows, weight)


def _seconds_of_core(action: Callable[[], object], device: torch.device) -> float:
    if device.type != "cpu" or sys.platform == "win32":  # Windows counts a thread's time coarsely
        return seconds_of(action, device)
    start = time.thread_time()
    action()
    return time.thread_time() - start


def seconds_of(action: Callable[[], object], device: torch.device) -> float:
    """Measure the seconds that an action takes, its work on a GPU included."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    start = time.perf_counter()
    action()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


@torch.no_grad()
def prepare_model(
    model: ExHuBERTNetwork, device: torch.device, asked: Precision | Literal["auto"]
) -> Precision:
    """Make a model ready for inference, in place: frozen, on its device, as fast as it goes.

    In int8, and in bfloat16 on a CPU, the encoder's layers are rebuilt: such a model can
    neither be trained nor saved. Where ``"auto"`` would mean int8 but these weights suffer from
    it, float32 is taken; who asks for int8 gets it, with a warning.

    Returns
    -------
    The precision it computes in.
    """
    chosen = resolve_precision(asked, device, width=model.config.hidden_size)
    model.eval().requires_grad_(False)
    model.detect_identity_gates()
    if device.type != "cpu":
        model.to(device, _DTYPES[chosen])
        return chosen
    if chosen not in _KERNELS:
        model.to(_DTYPES[chosen])
    encoder = model.hubert.encoder
    model.hubert.feature_extractor.transform()
    encoder.pos_conv_embed.transform()
    if chosen == "int8":
        layers, cosine = _fused_and_compared(model, Int8Linear)
        if cosine < FAITHFUL:
            chosen = _settle_unfaithful(asked, cosine)
        if chosen == "int8":
            encoder.layers = nn.ModuleList(layers)
    elif chosen in _KERNELS:
        kernel = _KERNELS[chosen]
        encoder.layers = nn.ModuleList(fused_layer(one, kernel) for one in encoder.blocks)
    return chosen


def _settle_unfaithful(asked: str, cosine: float) -> Precision:
    """Say that int8 does not suit these weights; take float32 unless int8 was asked for."""
    used: Precision = "int8" if asked == "int8" else "float32"
    warnings.warn(
        f"in int8 this model's states agree with float32 only to a cosine of {cosine:.4f} "
        f"({FAITHFUL} is usual); it runs in {used}",
        stacklevel=6,
    )
    return used


def _fused_and_compared(model: ExHuBERTNetwork, kernel: Kernel) -> tuple[list[EncoderLayer], float]:
    """Rebuild all layers; tell the least cosine between old and new states, the mean over time.

    Half a second of noise shows it: what makes weights unfit for 8 bits, channels far larger
    than the others, hardly depends on what is heard.
    """
    signal = torch.randn(8_000, generator=torch.Generator().manual_seed(0))
    found: dict[int, Tensor] = {}
    model.hubert(signal.unsqueeze(0), None, 0, found.__setitem__)
    exact = rough = found[0]
    layers, cosines, blocks = [], [], model.hubert.encoder.blocks
    positions = blocks[0].attention.positions(exact.shape[1])
    # Packing a weight keeps one core busy, whatever the threads: several layers at a time.
    with _one_thread_each() as threads, ThreadPoolExecutor(threads) as pool:
        rebuilt = pool.map(fused_layer, blocks, repeat(kernel))
        for plain, fused in zip(blocks, rebuilt, strict=True):
            layers.append(fused)
            exact, rough = plain(exact, None, positions), fused(rough, None, positions)
            cosines.append(torch.cosine_similarity(exact.mean(1), rough.mean(1)))
    return layers, float(torch.cat(cosines).min())
