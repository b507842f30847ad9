"""A checkpoint as an ONNX model: normalised waveforms in, hidden states and logits out."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import CheckpointError, MissingDependency, UsageError
from ..files import temporary_folder
from ..model import ExHuBERTNetwork, classify_frames
from ..spec import CARD_SAMPLES, SAMPLE_RATE, Layers, resolve_layers

MODEL = "model.onnx"
TOLERANCE = 1e-3  # of states, whose scale is about 1; float32 in another order gives 1e-6 to 1e-4
_CHECKED = ((1, CARD_SAMPLES), (2, CARD_SAMPLES + 12_345), (3, 16_000))  # clips, samples


class _Exported(nn.Module):
    """What the ONNX model computes, with nothing in it that depends on a number of clips."""

    def __init__(self, model: ExHuBERTNetwork, layers: tuple[int, ...]) -> None:
        super().__init__()
        self.model, self.layers = model, layers

    def forward(self, input_values: Tensor) -> tuple[Tensor, ...]:
        kept: dict[int, Tensor] = {}
        classify = bool(self.model.config.classes)
        deepest = self.model.num_states - 1 if classify else max(self.layers)
        hidden = self.model.hubert(input_values, None, deepest, kept.__setitem__)
        states = torch.stack([kept[layer] for layer in self.layers])
        if not classify:
            return (states,)
        head = (self.model.projector, self.model.classifier)
        return states, classify_frames(hidden, None, *head)


def export_onnx(
    model: ExHuBERTNetwork, destination: str | Path, *, layers: Layers = -1
) -> dict[str, float]:
    """Write ``model.onnx`` with its weights beside it, and compare it with the model.

    The folder appears only if both say the same.

    Parameters
    ----------
    model
        In float32 on the CPU.
    destination
        A folder that does not exist yet, or is empty.
    layers
        Hidden states to give: a number is one id, a list several, None all.

    Returns
    -------
    dict
        The largest difference of each output from the model's, over batches of several lengths.
    """
    _require_libraries()
    ids = resolve_layers(layers, model.num_states)
    exported = _Exported(model.eval(), ids).eval()
    folder = Path(destination).expanduser().resolve()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder} exists and is not empty", expected="a new folder")
    with temporary_folder(folder) as partial:
        _write(exported, partial / MODEL)
        about = {
            "sample_rate": SAMPLE_RATE,
            "input": "input_values (clips, samples): zero mean, unit variance, as card pads to 3 s",
            "minimum_samples": CARD_SAMPLES,
            "layers": list(ids),
            "classes": list(model.config.classes),
        }
        (partial / "config.json").write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
        found = _differences(exported, partial / MODEL)
        if wrong := [name for name, worst in found.items() if not worst <= TOLERANCE]:
            raise CheckpointError(
                f"{wrong[0]} of the ONNX model differ by {found[wrong[0]]:.2g} from the original",
                expected=f"at most {TOLERANCE:g}",
                remedy="Try another version of torch or onnxscript; nothing was written",
            )
    return found


def _require_libraries() -> None:
    missing = [
        name
        for name in ("onnx", "onnxscript", "onnxruntime")
        if importlib.util.find_spec(name) is None
    ]
    if missing:
        raise MissingDependency(
            f"{', '.join(missing)} is needed to export to ONNX and to compare",
            remedy="pip install 'exhubert-features[onnx]'",
        )


def _names(model: ExHuBERTNetwork) -> list[str]:
    return ["hidden_states", "logits"] if model.config.classes else ["hidden_states"]


def _write(exported: _Exported, path: Path) -> None:
    clips, samples = torch.export.Dim("clips"), torch.export.Dim("samples", min=800)
    torch.onnx.export(
        exported,
        (torch.zeros(2, CARD_SAMPLES),),
        path,
        input_names=["input_values"],
        output_names=_names(exported.model),
        dynamic_shapes={"input_values": {0: clips, 1: samples}},
        dynamo=True,
        external_data=True,  # one protobuf holds 2 GB, the released model has 2.7
        verbose=False,
    )


def _differences(exported: _Exported, path: Path) -> dict[str, float]:
    """Compare with torch on clips of several lengths, alone and together."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = _names(exported.model)
    worst = dict.fromkeys(names, 0.0)
    for number, (clips, samples) in enumerate(_CHECKED):
        generator = torch.Generator().manual_seed(number)
        wave = torch.randn(clips, samples, generator=generator)
        with torch.no_grad():
            expected = exported(wave)
        found = session.run(names, {"input_values": wave.numpy()})
        for name, one, other in zip(names, found, expected, strict=True):
            worst[name] = max(worst[name], float(np.abs(one - other.numpy()).max()))
    return worst
