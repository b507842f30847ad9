"""The ``exhubert`` command: one file per sub-command in ``commands/``, loaded when asked for."""

from __future__ import annotations

import argparse
import errno
import shlex
import sys
from collections.abc import Sequence
from importlib import import_module

from ..errors import ExHuBERTError
from ..version import __version__
from .streams import safe_output

# Name and one-line help stand here so that `exhubert --help` imports no command at all.
COMMANDS = {
    "doctor": "what of this environment works, what does not, and what mends it",
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
    "export-onnx": "a checkpoint as an ONNX model, compared with the original",
    "expand": "block-extend a HuBERT checkpoint, the paper's way",
    "bench": "how fast this machine is at it, and which settings to use",
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
            module = import_module(f".{name.replace('-', '_')}", __package__)
            module.add_arguments(child)
            child.set_defaults(run=module.run)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit code is 0, or 2 for wrong usage, 3 failed clips, 4 damage."""
    with safe_output():
        return _run(list(sys.argv[1:] if argv is None else argv))


def _run(arguments: list[str]) -> int:
    command = next((word for word in arguments if not word.startswith("-")), None)
    try:
        options = build_parser(command).parse_args(arguments)
        options.command_line = shlex.join(["exhubert", *arguments])  # for reports
        code = int(options.run(options))
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # `exhubert inspect STORE | head` has seen enough
        return 141  # what the shell calls a process that SIGPIPE ended
    except ExHuBERTError as error:
        _complain(f"error: {error}")
        return error.exit_code
    except OSError as error:  # whatever a disk or the system refuses, wherever it does
        _complain(f"error: {_explain(error)}")
        return 1
    except MemoryError:
        _complain("error: out of memory. Use a smaller --batch-size, or cut long audio into parts.")
        return 1
    except KeyboardInterrupt:
        _complain("interrupted")
        return 130


def _complain(words: str) -> None:
    """Say on stderr what went wrong."""
    print(f"exhubert: {words}", file=sys.stderr, flush=True)


def _explain(error: OSError) -> str:
    """Name the file and what to do."""
    names = " -> ".join(str(name) for name in (error.filename, error.filename2) if name is not None)
    remedies = {
        errno.ENOSPC: "Free some space and run the same command again",
        errno.EDQUOT: "Free some space and run the same command again",
        errno.EACCES: "Check who may read and write there",
        errno.EPERM: "Check who may read and write there",
        errno.EROFS: "Choose a folder on a disk that can be written",
        errno.EMFILE: "Raise the limit of open files (`ulimit -n`) and run the same command again",
        errno.ENFILE: "Close other programs and run the same command again",
    }
    remedy = remedies.get(error.errno or 0, "Check the disk and run the same command again")
    return f"{names or 'a file'}: {error.strerror or error}. {remedy}."


if __name__ == "__main__":
    sys.exit(main())
