"""A model without values, to be given a checkpoint's."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from ..model import ExHuBERTNetwork
from ..model.config import ExHuBERTConfig

# Functions that fill a tensor, and the keyword under which each one may get it.
_FILLS = {"uniform_": "tensor", "normal_": "tensor", "kaiming_uniform_": "tensor", "eye": "out"}


def blank_model(config: ExHuBERTConfig) -> ExHuBERTNetwork:
    """Build on the meta device: no memory, no initialisation; fill with ``assign=True``."""
    with torch.device("meta"), _Unfilled():
        return ExHuBERTNetwork(config)


class _Unfilled(TorchFunctionMode):
    """Skips initialisation.

    On the meta device it has no effect but to load torch's compiler: 2 s and 130 MB.
    """

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Sequence[type],
        arguments: Sequence[Any] = (),
        options: Mapping[str, Any] | None = None,
    ) -> Any:
        options = options or {}
        keyword = _FILLS.get(function.__name__)
        if keyword is not None:
            return options[keyword] if keyword in options else arguments[0]
        return function(*arguments, **options)
