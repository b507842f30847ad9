"""``exhubert convert SOURCE DEST``: any supported checkpoint to safetensors with class names."""

from __future__ import annotations

import argparse
from pathlib import Path

DTYPES = ("float32", "bfloat16", "float16")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("source", metavar="SOURCE", help="a Hub id or a local folder")
    parser.add_argument("destination", metavar="DEST", type=Path, help="a new folder")
    parser.add_argument("--dtype", choices=DTYPES, default="float32", help="of the stored weights")
    add_classes_argument(parser, help="class names, in logit order")
    add_hub_arguments(parser)


def add_classes_argument(parser: argparse.ArgumentParser, *, help: str) -> None:
    """``--classes``, and the name it had before, which old scripts still say."""
    parser.add_argument("--classes", metavar="A,B,C", help=help)
    parser.add_argument("--labels", dest="classes", help=argparse.SUPPRESS)


def add_hub_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of every command that reads a checkpoint to write another."""
    parser.add_argument("--revision", help="commit, tag or branch on the Hub")
    parser.add_argument("--cache-dir", type=Path, help="where the Hub's files are kept")
    parser.add_argument("--local-files-only", action="store_true", help="never use the network")


def split_classes(text: str | None) -> list[str] | None:
    """Names between commas."""
    from ..errors import UsageError

    if text is None:
        return None
    classes = [name.strip() for name in text.split(",")]
    if not all(classes) or len(set(classes)) < len(classes):
        raise UsageError(f"classes are {text!r}", expected="distinct names between commas")
    return classes


def run(options: argparse.Namespace) -> int:
    """Convert, and say what came out."""
    import torch

    from ..checkpoint.convert import convert

    config = convert(
        options.source,
        options.destination,
        dtype=getattr(torch, options.dtype),
        classes=split_classes(options.classes),
        revision=options.revision,
        cache_dir=options.cache_dir,
        local_files_only=options.local_files_only,
    )
    kind = "ExHuBERT" if config.gated else "HuBERT"
    classes = ", ".join(config.classes) or "none"
    size = (options.destination.expanduser() / "model.safetensors").stat().st_size
    print(f"{options.destination}: {kind}, {config.num_hidden_layers} layers, {options.dtype}")
    print(f"classes: {classes}")
    print(f"model.safetensors: {size:,} bytes")
    if config.gated:
        print("for transformers: import exhubert_features.integrations.transformers")
    return 0
