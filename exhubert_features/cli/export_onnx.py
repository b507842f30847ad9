"""``exhubert export-onnx SOURCE DEST``: a checkpoint as an ONNX model, compared at the end."""

from __future__ import annotations

import argparse
from pathlib import Path

from .convert import add_hub_arguments


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("source", metavar="SOURCE", help="a Hub id or a local folder")
    parser.add_argument("destination", metavar="DEST", type=Path, help="a new folder")
    parser.add_argument(
        "--layers",
        default="last",
        help="hidden states to give: all, last, 0,12,24,48 or 0-48 (default: %(default)s)",
    )
    add_hub_arguments(parser)


def run(options: argparse.Namespace) -> int:
    """Export, compare, and say how near it is."""
    from ..checkpoint import load_model
    from ..checkpoint.onnx import MODEL, export_onnx
    from ..spec import parse_layers

    model, _ = load_model(
        options.source,
        revision=options.revision,
        cache_dir=options.cache_dir,
        local_files_only=options.local_files_only,
    )
    model.detect_identity_gates()
    found = export_onnx(model, options.destination, layers=parse_layers(options.layers))
    size = sum(path.stat().st_size for path in options.destination.expanduser().iterdir())
    print(f"{options.destination / MODEL}: {size:,} bytes with its weights")
    for name, difference in found.items():
        print(f"{name}: at most {difference:.1e} from the original")
    return 0
