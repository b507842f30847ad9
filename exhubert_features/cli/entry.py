"""The ``exhubert`` command: one file per sub-command in ``commands/``, loaded when asked for."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Sequence
from importlib import import_module

from ..errors import ExHuBERTError
from ..version import __version__

# Name and one-line help stand here so that `exhubert --help` imports no command at all.
COMMANDS = {
    "demo": "the whole chain on synthetic speech, offline, in about a minute",
    "prepare": "a manifest out of a corpus' folder",
    "extract": "audio to a crash-safe feature store",
    "predict": "class probabilities, arousal and valence of audio files",
    "inspect": "what is in a store, how it was made, what failed",
    "verify": "check every byte of a store, repair it if asked",
    "pack": "one HDF5 file out of a store, for sharing",
    "merge": "one store out of several",
    "export": "features as npz, csv or parquet",
    "probe": "a linear probe on every layer, with honest folds",
    "train": "train and evaluate a head for a new task",
    "evaluate": "test a trained head on another store",
    "compare": "finished runs side by side, tested on the same clips",
    "convert": "any supported checkpoint to safetensors with label names",
    "expand": "block-extend a HuBERT checkpoint, the paper's way",
    "bench": "how fast the store and the extraction are on this machine",
}


def build_parser(command: str | None) -> argparse.ArgumentParser:
    """Parser for one command, or for the overview when ``command`` is None or unknown."""
    parser = argparse.ArgumentParser(
        prog="exhubert", description="ExHuBERT features for speech emotion recognition."
    )
    parser.add_argument("--version", action="version", version=f"exhubert {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, summary in COMMANDS.items():
        child = commands.add_parser(name, help=summary, description=summary.capitalize() + ".")
        if name == command:
            module = import_module(f".{name}", __package__)
            module.add_arguments(child)
            child.set_defaults(run=module.run)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit code is 0, or 2 for wrong usage, 3 failed clips, 4 damage."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    command = next((word for word in arguments if not word.startswith("-")), None)
    try:
        options = build_parser(command).parse_args(arguments)
        options.command_line = shlex.join(["exhubert", *arguments])  # for reports
        code = int(options.run(options))
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # `exhubert inspect STORE | head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for the flush at exit
        return 141  # what the shell calls a process that SIGPIPE ended
    except ExHuBERTError as error:
        print(f"exhubert: error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("exhubert: interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
