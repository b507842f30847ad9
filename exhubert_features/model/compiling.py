"""What ``--compile`` takes: the model, behind the checks of a batch.

The checks look at values, and name a clip that cannot be used: no graph can do that. SpeechBrain
compiles for fixed shapes unless told otherwise, which for audio means once for each length.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from torch import Tensor


def compile_behind(*functions: Callable[..., Any]) -> None:
    """Have ``torch.compile`` leave functions as they are, and compile what they call.

    Whoever compiles has imported what this needs, which takes seconds; else nothing is done.
    """
    if (dynamo := sys.modules.get("torch._dynamo")) is not None:
        for function in functions:
            dynamo.decorators.skip(function)


def any_size(*tensors: Tensor | None) -> None:
    """Have ``torch.compile`` take all sizes of these tensors as one case."""
    if (dynamo := sys.modules.get("torch._dynamo")) is None:
        return
    for tensor in tensors:
        if tensor is not None:
            dynamo.maybe_mark_dynamic(tensor, list(range(tensor.ndim)))
