"""Options that several commands share: which model, and where it runs."""

from __future__ import annotations

import argparse
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from ..spec import DEFAULT_PREPROCESS, DEFAULT_REVISION, DEFAULT_SOURCE, Precision

if TYPE_CHECKING:
    from ..encoder import Encoder

PRECISIONS = ("auto", *get_args(Precision))


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what :func:`chosen_encoder` reads."""
    group = parser.add_argument_group("model")
    group.add_argument(
        "--model",
        metavar="ID|DIR",
        default=DEFAULT_SOURCE,
        help="Hub id or local folder of an ExHuBERT, HuBERT, wav2vec 2.0 or WavLM checkpoint "
        "(default: %(default)s)",
    )
    group.add_argument(
        "--revision",
        default=DEFAULT_REVISION,
        help="commit, tag or branch on the Hub (default: the pinned release, for its id only)",
    )
    group.add_argument("--cache-dir", type=Path, help="where the Hub's files are kept")
    group.add_argument("--local-files-only", action="store_true", help="never use the network")
    group.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    group.add_argument(
        "--precision",
        choices=PRECISIONS,
        default="auto",
        help="of the computation (default: %(default)s: float32, which is exact, unless this "
        "machine has units for bfloat16 or int8 and the model stays close to float32 in it)",
    )


def add_audio_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare how audio is read and given to the model."""
    group = parser.add_argument_group("audio")
    group.add_argument(
        "--preprocess",
        choices=("card", "masked", "none"),
        default=DEFAULT_PREPROCESS,
        help="card: as the model was trained, ExHuBERT and HuBERT padded to 3 s; masked: each clip "
        "normalised by itself, padding ignored; none: not normalised either (default: %(default)s)",
    )
    group.add_argument(
        "--window", type=float, default=3.0, help="seconds; longer audio is cut (default: 3.0)"
    )
    group.add_argument(
        "--hop", type=float, help="seconds between windows (default: the window, no overlap)"
    )
    group.add_argument("--channel", type=int, help="take this channel, from 0 (default: the mean)")
    group.add_argument(
        "--data-root",
        metavar="DIR",
        help="stands for {data_root} in manifests, and holds relative files not beside them",
    )


def add_running_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what changes the speed and not the numbers."""
    group = parser.add_argument_group("running")
    group.add_argument(
        "--workers", type=int, help="threads that decode (default: the processors, at most 8)"
    )
    group.add_argument(
        "--batch-size", type=int, help="windows at a time (default: 24 s on a CPU, 192 s on CUDA)"
    )


def positive(text: str) -> int:
    """Read a whole number above 0, for argparse."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return number


def add_earlier_name(group: argparse._ActionsContainer, flag: str, *, dest: str) -> None:
    """Let an option be written as in version 0.1.0, which scripts still do."""
    group.add_argument(flag, dest=dest, default=argparse.SUPPRESS, help=argparse.SUPPRESS)


def model_settings(options: argparse.Namespace) -> dict[str, Any]:
    """Give the arguments of ``load_encoder`` that were asked for."""
    return {
        "source": options.model,
        "revision": options.revision,
        "device": options.device,
        "precision": options.precision,
        "cache_dir": options.cache_dir,
        "local_files_only": options.local_files_only,
    }


def chosen_encoder(options: argparse.Namespace) -> Encoder:
    """Load the encoder that was asked for."""
    from ..encoder import load_encoder

    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always", UserWarning)
        encoder = load_encoder(**model_settings(options))
    for one in heard:
        print(f"exhubert: warning: {one.message}", file=sys.stderr)
    return encoder
