"""The model card of a converted checkpoint: licence, citation and how to open it."""

from __future__ import annotations

import re
from pathlib import Path

from ..model.config import ExHuBERTConfig
from ..spec import DEFAULT_SOURCE
from .hub import Checkpoint

RELEASED_LICENCE = "cc-by-nc-sa-4.0"
_LICENCE = re.compile(r"^license:\s*[\"']?([\w.-]+)", re.MULTILINE)
_FRONT_MATTER = re.compile(r"\A---\n(.*?)\n---", re.DOTALL)
_CITATION = """\
```bibtex
@inproceedings{amiriparian24_interspeech,
  title = {{ExHuBERT}: Enhancing {HuBERT} Through Block Extension and Fine-Tuning on 37 Emotion
           Datasets},
  author = {Shahin Amiriparian and Filip Packań and Maurice Gerczuk and Björn W. Schuller},
  booktitle = {Interspeech 2024},
  year = {2024},
  doi = {10.21437/Interspeech.2024-280},
}
```
"""


def model_card(config: ExHuBERTConfig, checkpoint: Checkpoint) -> str:
    """Write the ``README.md`` of a checkpoint that was converted.

    Parameters
    ----------
    config
        Of the model.
    checkpoint
        Where it came from: its own card, if one lies beside it, tells the licence.
    """
    licence = _licence(checkpoint)
    tags = ["speech", "HuBERT", *(["ExHuBERT", "speech-emotion-recognition"] * config.gated)]
    head = ["---", *([f"license: {licence}"] if licence else []), "library_name: transformers"]
    head += ["pipeline_tag: audio-classification"] if config.classes else []
    head += ["tags:", *(f"- {tag}" for tag in tags), "---"]
    origin = checkpoint.source + (f" at {checkpoint.revision}" if checkpoint.revision else "")
    parts = [
        "\n".join(head),
        f"# {'ExHuBERT' if config.gated else 'HuBERT'}, converted from {origin}",
        _usage(config),
        _terms(licence, checkpoint.source),
    ]
    if config.gated:
        parts.append("## Citation\n\n" + _CITATION.strip())
    return "\n\n".join(parts) + "\n"


def _licence(checkpoint: Checkpoint) -> str:
    if checkpoint.source == DEFAULT_SOURCE:
        return RELEASED_LICENCE
    card = Path(checkpoint.config_file).parent / "README.md"
    if not card.is_file():
        return ""
    front = _FRONT_MATTER.match(card.read_text(encoding="utf-8", errors="replace"))
    found = _LICENCE.search(front[1]) if front else None
    return found[1] if found else ""


def _usage(config: ExHuBERTConfig) -> str:
    lines = ["from transformers import pipeline", ""]
    if config.gated:
        lines.insert(0, "import exhubert_features.integrations.transformers  # makes it known")
    if config.classes:
        lines += [
            'classify = pipeline("audio-classification", "this folder", top_k=None)',
            'classify("speech.wav")',
        ]
    else:
        lines[-2:] = ["from transformers import AutoModel", ""]
        lines += ['AutoModel.from_pretrained("this folder")']
    code = "\n".join(lines)
    classes = f"\n\nClasses, in the order of the logits: {', '.join(config.classes)}."
    needs = "`pip install exhubert-features`; no code of this folder runs.\n\n" * config.gated
    return f"## Use\n\n{needs}```python\n{code}\n```{classes if config.classes else ''}"


def _terms(licence: str, source: str) -> str:
    if licence == RELEASED_LICENCE:
        return (
            f"## Licence\n\nThe weights are {licence}: research use only. Heads trained on their "
            "features and fine-tuned copies inherit that."
        )
    return f"## Licence\n\nThe weights keep the licence of {source}{licence and f': {licence}'}."
