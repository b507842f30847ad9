"""``exhubert expand SOURCE DEST``: block-extend a HuBERT checkpoint, the paper's way."""

from __future__ import annotations

import argparse
from pathlib import Path

from .convert import add_classes_argument, add_hub_arguments, split_classes


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "source", metavar="SOURCE", help="a HuBERT with stable layer norm: Hub id or folder"
    )
    parser.add_argument("destination", metavar="DEST", type=Path, help="a new folder")
    add_classes_argument(
        parser, help="classes of the head; default: the source's own, or the released six"
    )
    parser.add_argument("--seed", type=int, default=0, help="of a new head (default: 0)")
    add_hub_arguments(parser)


def run(options: argparse.Namespace) -> int:
    """Extend, and say what came out."""
    from ..checkpoint.expand import expand

    config = expand(
        options.source,
        options.destination,
        classes=split_classes(options.classes),
        seed=options.seed,
        revision=options.revision,
        cache_dir=options.cache_dir,
        local_files_only=options.local_files_only,
    )
    half = config.num_hidden_layers // 2
    print(
        f"{options.destination}: {half} layers became {config.num_hidden_layers}; the even ones "
        "are the originals, the odd ones start silent and learn"
    )
    print(f"classes: {', '.join(config.classes)}")
    return 0
