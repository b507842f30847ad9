"""Linear layers for inference on a CPU: products in 8 bits or in bfloat16, the rest in float32."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import UsageError

STEPS = 127  # on either side of zero
_ZERO = STEPS + 1  # inputs are kept as unsigned bytes around it
_LEAST = 1e-30  # keeps a row of zeros from being divided by zero


class _InferenceLinear(nn.Module):
    """A linear layer that neither learns nor is saved: its weight is no longer the model's.

    ``packed`` is the weight as oneDNN wants it, which only :meth:`pack` and ``to_dense`` read.
    """

    packed: Tensor

    @staticmethod
    def pack(weight: Tensor) -> Tensor:
        """Lay a weight (O, I) out for the processor."""
        raise NotImplementedError

    @staticmethod
    def unpack(packed: Tensor) -> Tensor:
        """Give back the weight (O, I)."""
        raise NotImplementedError

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "packed": self.unpack(self.packed)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__({**state, "packed": self.pack(state["packed"])})

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> _InferenceLinear:
        if fn(torch.empty(0)).device.type != "cpu":
            raise UsageError(
                "layers that were made for inference on a CPU are moved to another device",
                remedy="Load the model again with precision='bfloat16' or 'float32' for it",
            )
        return super()._apply(fn, recurse)

    def _save_to_state_dict(self, *arguments: Any) -> None:
        raise UsageError(
            "the weights of an encoder in int8 or bfloat16 are not the checkpoint's any more",
            remedy="Load the model again in float32, and save that; frozen lobes need no saving",
        )


class Int8Linear(_InferenceLinear):
    """Linear layer in whole numbers: weights in 8 bits per channel, inputs in 8 bits per row.

    Each row has its own step, so no row depends on the others; sums are exact.

    Parameters
    ----------
    weight, bias
        (O, I) and (O,).
    gelu
        Apply GELU to the result.
    gate
        The weight may be near the identity: its diagonal, which would leave no steps for the
        rest of it, stays in float32.
    """

    def __init__(
        self, weight: Tensor, bias: Tensor, *, gelu: bool = False, gate: bool = False
    ) -> None:
        super().__init__()
        self.gelu = gelu
        self.bias, self.diagonal = bias.clone(), weight.diagonal().clone() if gate else None
        if self.diagonal is not None:
            weight = weight - self.diagonal.diag()
        self.scale = _weight_steps(weight)
        self.packed = self.pack((weight / self.scale.unsqueeze(1)).round_().to(torch.int8))

    @staticmethod
    def pack(weight: Tensor) -> Tensor:
        """Lay a weight (O, I) of whole numbers out for the processor."""
        return torch.ops.onednn.qlinear_prepack(weight, None)

    @staticmethod
    def unpack(packed: Tensor) -> Tensor:
        """Give back the whole numbers (O, I)."""
        return packed.to_dense().t().contiguous()

    def forward(self, hidden: Tensor) -> Tensor:
        """Map (..., I) to (..., O), float32."""
        rows = hidden.flatten(0, -2)
        step = _largest(rows).clamp_(min=_LEAST).div_(STEPS)
        product = _multiply(_as_bytes(rows * step.reciprocal()), self.packed, self.scale)
        result = torch.addcmul(self.bias, product, step, out=product)
        if self.diagonal is not None:
            result.addcmul_(rows, self.diagonal)
        if self.gelu:
            torch.ops.aten.gelu_(result)
        return result.unflatten(0, hidden.shape[:-1])


def _weight_steps(weight: Tensor) -> Tensor:
    """Choose the step (O,) of each row of (O, I), such that no processor's sums are cut off.

    Those without VNNI multiply two neighbouring inputs, up to 255, with their weights and add
    the products in 16 bits. So not only each weight but also two neighbours of one sign, summed,
    must fit in 127 steps (rounding adds one: 255 * 128 < 2 ** 15). The same on every machine, so
    that all of them give the same numbers.
    """
    pairs = weight[:, ::2] + weight[:, 1::2]  # columns are even in number, as heads are
    # Two of different signs sum to less than the larger one.
    return torch.maximum(_largest(weight), _largest(pairs)).flatten().clamp_(min=_LEAST) / STEPS


def _largest(rows: Tensor) -> Tensor:
    """Find the largest number, whatever its sign, in each row: (N, 1)."""
    return torch.maximum(rows.amax(1, keepdim=True), rows.amin(1, keepdim=True).neg_())


def _as_bytes(rows: Tensor) -> Tensor:
    """Round (N, I) to whole numbers around ``_ZERO``."""
    rounded = torch.quantize_per_tensor(rows, 1.0, _ZERO, torch.quint8)
    # The same memory as plain bytes; int_repr() would copy, slowly.
    return torch.empty(0, dtype=torch.uint8).set_(
        rounded.untyped_storage(), 0, rounded.shape, rounded.stride()
    )


def _multiply(whole: Tensor, packed: Tensor, scale: Tensor) -> Tensor:
    """Multiply bytes (N, I) and a weight: (N, O) float32, each channel in its scale."""
    zeros = torch.zeros(len(scale), dtype=torch.int64)
    return torch.ops.onednn.qlinear_pointwise(
        whole, 1.0, _ZERO, packed, scale, zeros, None, 1.0, 0, torch.float32, "none", [], ""
    )


def int8_product(side: int) -> Callable[[], Tensor]:
    """Make a square product of bytes, alone, for machines to be measured by."""
    whole = torch.ones(side, side)
    rows, packed, scale = _as_bytes(whole), Int8Linear.pack(whole.to(torch.int8)), torch.ones(side)
    return lambda: _multiply(rows, packed, scale)


@cache
def multiplies_int8() -> bool:
    """Whether this machine multiplies 8-bit numbers exactly: the most extreme ones are tried."""
    inputs = torch.full((64, 1024), float(STEPS))
    inputs[1::3] = -STEPS
    inputs[2::3, ::2] = -STEPS
    weight = torch.tensor([[64.0, 64.0], [-64.0, -64.0], [127.0, 1.0], [-127.0, 127.0]])
    weight = weight.repeat(64, 512)
    try:
        packed = Int8Linear.pack(weight.to(torch.int8))
        product = _multiply(_as_bytes(inputs), packed, torch.ones(256))
    except (AttributeError, NotImplementedError, RuntimeError):
        return False  # this build of torch, or this kind of processor, has no such product
    return torch.equal(product, inputs @ weight.t())


class BFloat16Linear(_InferenceLinear):
    """Linear layer with products in bfloat16, GELU in the same pass, sums in float32.

    The weight lies as oneDNN wants it, which need not sort it anew for each product.

    Parameters
    ----------
    weight, bias, gelu
        See :class:`Int8Linear`. With GELU the result stays in bfloat16, for the next product.
    gate
        Of no consequence here.
    """

    def __init__(
        self, weight: Tensor, bias: Tensor, *, gelu: bool = False, gate: bool = False
    ) -> None:
        super().__init__()
        self.bias = bias.bfloat16()
        self.gelu = gelu
        self.packed = self.pack(weight.bfloat16())

    @staticmethod
    def pack(weight: Tensor) -> Tensor:
        """Lay a weight (O, I) in bfloat16 out for the processor."""
        return torch.ops.mkldnn._reorder_linear_weight(weight)

    @staticmethod
    def unpack(packed: Tensor) -> Tensor:
        """Give back the weight (O, I)."""
        return packed.to_dense()

    def forward(self, hidden: Tensor) -> Tensor:
        """Map (..., I) to (..., O), float32 unless GELU follows."""
        after = "gelu" if self.gelu else "none"
        result = torch.ops.mkldnn._linear_pointwise(
            hidden.bfloat16(), self.packed, self.bias, after, [], "none"
        )
        return result if self.gelu else result.float()
