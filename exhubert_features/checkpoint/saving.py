"""Checkpoints out: safetensors, a config with real class names, the preprocessor's settings."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from ..errors import CheckpointError, UsageError
from ..files import temporary_folder
from ..model import ExHuBERTNetwork
from ..model.config import ExHuBERTConfig
from ..spec import CARD_SAMPLES, CLASSES, SAMPLE_RATE
from .blank import blank_model


def save_checkpoint(
    model: ExHuBERTNetwork,
    destination: str | Path,
    *,
    dtype: torch.dtype | None = None,
    card: str | None = None,
) -> None:
    """Write ``model.safetensors``, ``config.json`` and ``preprocessor_config.json``.

    The folder appears whole or not at all.

    Parameters
    ----------
    destination
        A folder that does not exist yet, or is empty.
    dtype
        Floating-point type of the stored weights; None keeps the model's.
    card
        Text of a ``README.md``; None writes none.
    """
    from safetensors.torch import save_file

    if model.config.family != "hubert":
        raise UsageError(
            f"this is a {model.config.family}",
            expected="an ExHuBERT or HuBERT to write",
            remedy="Others load as they are: --model; transformers itself writes "
            "them as safetensors",
        )
    state = {key: _cast(key, tensor, dtype) for key, tensor in model.state_dict().items()}
    stored = next(iter(state.values())).dtype
    with _whole_folder(Path(destination)) as folder:
        save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
        _write_json(folder / "preprocessor_config.json", _preprocessor_config(model.config))
        _write_json(folder / "config.json", _hub_config(model.config, stored))
        if card is not None:
            (folder / "README.md").write_text(card, encoding="utf-8")
        # safetensors makes a file that only its owner can read; a shared folder needs more.
        shutil.copymode(folder / "config.json", folder / "model.safetensors")


def _hub_config(config: ExHuBERTConfig, dtype: torch.dtype = torch.float32) -> dict[str, Any]:
    """Write down the content of ``config.json``: ``exhubert``, or transformers' own ``hubert``."""
    plain = "HubertForSequenceClassification" if config.classes else "HubertModel"
    content = {
        "model_type": "exhubert" if config.gated else "hubert",
        "architectures": ["ExHuBERTForAudioClassification" if config.gated else plain],
        **config.to_dict(),
        "torch_dtype": str(dtype).removeprefix("torch."),
    }
    return {**content, **_named_classes(config.classes)} if config.classes else content


def _named_classes(classes: Sequence[str]) -> dict[str, Any]:
    return {
        "id2label": {str(index): label for index, label in enumerate(classes)},
        "label2id": {label: index for index, label in enumerate(classes)},
    }


def _preprocessor_config(config: ExHuBERTConfig) -> dict[str, Any]:
    """Write down the content of ``preprocessor_config.json``."""
    common = {
        "feature_size": 1,
        "sampling_rate": SAMPLE_RATE,
        "padding_value": 0.0,
        "padding_side": "right",
        "do_normalize": True,
    }
    if config.gated:
        return {
            "feature_extractor_type": "ExHuBERTFeatureExtractor",
            **common,
            "return_attention_mask": True,
            "minimum_samples": CARD_SAMPLES,
        }
    # Models that norm over time were trained without a mask.
    masked = config.feat_extract_norm == "layer"
    return {
        "feature_extractor_type": "Wav2Vec2FeatureExtractor",
        **common,
        "return_attention_mask": masked,
    }


def write_random_checkpoint(
    destination: str | Path,
    *,
    layers: int = 48,
    hidden: int = 32,
    heads: int = 4,
    ffn: int = 64,
    conv: int = 24,
    projector: int = 16,
    classes: Sequence[str] = CLASSES,
    gated: bool = True,
    seed: int = 0,
    layout: Literal["safetensors", "release"] = "safetensors",
) -> Path:
    """Write a checkpoint with random weights that behave as trained ones do; return its folder.

    Activations keep their scale through any number of layers. ``layout="release"`` writes
    ``pytorch_model.bin`` and a ``config.json`` as the published repository has them.
    """
    config = ExHuBERTConfig(
        num_hidden_layers=layers,
        hidden_size=hidden,
        num_attention_heads=heads,
        intermediate_size=ffn,
        conv_dim=(conv,) * 7,
        classifier_proj_size=projector,
        classes=tuple(classes),
        gated=gated,
    )
    model = blank_model(config)
    generator = torch.Generator().manual_seed(seed)
    state = {
        key: _random_tensor(key, tensor.shape, generator)
        for key, tensor in model.state_dict().items()
    }
    folder = Path(destination)
    if layout == "release":
        with _whole_folder(folder) as partial:
            torch.save(state, partial / "pytorch_model.bin")
            _write_json(partial / "config.json", _release_config(config))
    else:
        model.load_state_dict(state, assign=True)
        save_checkpoint(model, folder)
    return folder


def _random_tensor(key: str, shape: torch.Size, generator: torch.Generator) -> Tensor:
    tensor = torch.randn(shape, generator=generator)
    if key.endswith("weight_g"):
        return tensor.mul_(0.05).add_(1.0)
    if key.endswith("norm.weight"):
        return tensor.mul_(0.1).add_(1.0)
    if tensor.ndim == 1:
        return tensor.mul_(0.05)
    # Variance is kept by 1 / sqrt(inputs); less keeps a sum of 48 residual branches small.
    tensor.mul_(0.7 / math.sqrt(tensor[0].numel()))
    if "gate_bb_linear" in key:
        even = int(key.split(".")[3]) % 2 == 0
        tensor.mul_(0.3)
        return tensor.add_(torch.eye(len(tensor))) if even else tensor
    louder = 2.0 if ".conv_layers." in key else 4.0 if key.startswith("classifier") else 1.0
    return tensor.mul_(louder)


def _release_config(config: ExHuBERTConfig) -> dict[str, Any]:
    generic = [f"LABEL_{index}" for index in range(len(config.classes))]
    names = generic if config.classes == CLASSES else list(config.classes)
    return {
        **_hub_config(config),
        "model_type": "hubert",
        "architectures": ["ExHuBERT"],
        "auto_map": {"AutoModelForAudioClassification": "ExHuBERT_model.ExHuBERT"},
        **_named_classes(names),
    }


def _cast(key: str, tensor: Tensor, dtype: torch.dtype | None) -> Tensor:
    cast = tensor.detach().to(device="cpu", dtype=dtype or tensor.dtype).contiguous()
    if dtype is torch.float16 and not bool(torch.isfinite(cast).all()):
        raise CheckpointError(
            f"{key} reaches {float(tensor.abs().max()):.3g}",
            expected="at most 65504, the largest float16",
            remedy="Store it as bfloat16 or float32",
        )
    return cast


def _write_json(file: Path, content: Mapping[str, Any]) -> None:
    file.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def refuse_occupied(destination: str | Path) -> None:
    """Nothing that is there already is ever overwritten."""
    folder = Path(destination).expanduser()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(
            f"{folder} exists and is not empty",
            expected="a new folder",
            remedy="Choose another name, or delete it first",
        )


@contextmanager
def _whole_folder(destination: Path) -> Iterator[Path]:
    """Make a folder beside ``destination`` that takes its name once all is on the disk."""
    from safetensors import SafetensorError

    refuse_occupied(destination)
    destination = destination.expanduser().resolve()  # "." has no name to put another beside
    try:
        with temporary_folder(destination) as partial:
            yield partial
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"{destination} could not be written ({error})",
            remedy="Choose a folder on a disk with room that you may write to",
        ) from error
