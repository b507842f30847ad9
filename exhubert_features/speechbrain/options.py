"""What SpeechBrain's own lobes pass on to transformers, which this lobe does not use."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from ..errors import UsageError

# They say what is the case anyway: nothing of a checkpoint is ever executed, attention is torch's.
_HARMLESS: dict[str, tuple[Any, ...]] = {
    "trust_remote_code": (True, False),
    "attn_implementation": (None, "sdpa"),
    "low_cpu_mem_usage": (None, True, False),
    "use_safetensors": (None, True, False),
    "output_hidden_states": (None, True, False),
    "quantization_config": (None,),
    "cache_dir": (None, "pretrained_models"),
    **dict.fromkeys(("for_pretraining", "with_lm_head", "with_casual_lm", "seq2seqlm"), (False,)),
}


def placement(options: Mapping[str, Any]) -> tuple[torch.device | None, torch.dtype | None]:
    """Read where the model shall be, and as what; refuse by name what cannot be done.

    Parameters
    ----------
    options
        ``device`` or ``device_map`` (one device for everything), ``dtype`` or ``torch_dtype``, and
        those that change nothing here.

    Returns
    -------
    Device and type of the weights, None to leave them as they are.
    """
    wanted = {name: value for name, value in options.items() if name not in _HARMLESS}
    devices = [wanted.pop(name) for name in ("device", "device_map") if name in wanted]
    types = [wanted.pop(name) for name in ("dtype", "torch_dtype") if name in wanted]
    refused = [
        f"{name}={value!r}"
        for name, value in options.items()
        if name in wanted or value not in _HARMLESS.get(name, (value,))
    ]
    device = next((one for one in devices if one is not None), None)
    if isinstance(device, Mapping) or device in ("auto", "balanced", "sequential"):
        refused.append(f"device_map={device!r}")
    if refused:
        raise UsageError(
            f"ExHuBERT cannot do {', '.join(refused)}",
            expected="device, device_map (one device), dtype, and the lobe's own options",
            remedy="Take it out of the YAML",
        )
    dtype = next((one for one in types if one is not None), None)
    if isinstance(dtype, str):
        dtype = getattr(torch, dtype.removeprefix("torch."), dtype)
    if dtype is not None and not isinstance(dtype, torch.dtype):
        raise UsageError(f"dtype is {dtype!r}", expected="such as bfloat16")
    return (None if device is None else torch.device(device)), dtype
