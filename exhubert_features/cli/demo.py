"""``exhubert demo``: the whole chain, offline, through the commands that a user would type."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

HONESTLY = """\
The weights are random and the speech is synthetic: this shows that the chain works, how long it
takes and what comes out of it. It says nothing about ExHuBERT or about people."""

YOUR_OWN = """\
The same with your own audio and the published weights (research use only, 2.7 GB). The manifest is
a CSV with the columns file, speaker and emotion; id, start and end are optional:

  exhubert extract corpus/manifest.csv -o features --model amiriparian/ExHuBERT
  exhubert verify features
  exhubert probe features --target emotion --group speaker -o probe
  exhubert train features --target emotion --group speaker --head linear -o head
  exhubert predict recording.wav --head head --model amiriparian/ExHuBERT"""

# Wider than the checkpoint of the tests: that many random filters tell voices apart well enough.
HIDDEN, CONV = 64, 128
SPEAKERS, SENTENCES = 10, 5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "-o",
        "--output",
        metavar="DIR",
        type=Path,
        default=Path("exhubert-demo"),
        help="a new folder, or that of an earlier demo (default: %(default)s)",
    )


def run(options: argparse.Namespace) -> int:
    """Run every step; stop at the first that fails, with its exit code."""
    started = time.monotonic()
    folder: Path = options.output
    claim(folder)
    print(f"{HONESTLY}\n")
    make_inputs(folder)
    for command in steps(folder):
        code = _run_command(command)
        if code:
            return code
    _summarise(folder, time.monotonic() - started)
    return 0


def claim(folder: Path) -> None:
    """Take a folder that is empty or holds this very demo, and no other."""
    from ..errors import UsageError
    from ..files import make_folder, publish
    from ..version import __version__

    note = folder / "demo.json"
    settings = {"exhubert demo": __version__, "hidden": HIDDEN, "conv": CONV,
                "speakers": SPEAKERS, "sentences": SENTENCES}  # fmt: skip
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file", expected="a folder", remedy="Choose another -o")
    if folder.is_dir() and any(not path.name.startswith(".") for path in folder.iterdir()):
        try:
            found = json.loads(note.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            found = None
        if found != settings:
            raise UsageError(
                f"{folder} holds files that this demo did not write",
                expected="an empty folder, a new one, or that of an earlier run of this version",
                remedy="Choose another -o",
            )
    make_folder(folder)
    publish(f"{json.dumps(settings, indent=1)}\n".encode(), note, replace=True)


def make_inputs(folder: Path) -> None:
    """Make what a user would bring along: a checkpoint, and audio with a manifest."""
    from ..checkpoint import write_random_checkpoint
    from ..synthetic import EMOTIONS, write_corpus

    checkpoint = folder / "checkpoint"
    if not checkpoint.exists():  # it appears whole or not at all
        write_random_checkpoint(checkpoint, hidden=HIDDEN, conv=CONV)
    print(f"{checkpoint}: a tiny ExHuBERT, 48 layers of random weights")
    # A second run writes the same bytes, so that the features of the first stay good.
    manifest = write_corpus(folder / "audio", speakers=SPEAKERS, sentences=SENTENCES)
    clips = SPEAKERS * len(EMOTIONS) * SENTENCES
    print(f"{manifest}: {clips} clips, {SPEAKERS} invented speakers, {', '.join(EMOTIONS)}")


def steps(folder: Path) -> list[list[str]]:
    """List the commands of the chain."""
    store, model, head = (str(folder / name) for name in ("store", "checkpoint", "head"))
    labelled = [store, "--target", "emotion", "--group", "speaker"]
    return [
        ["extract", str(folder / "audio/manifest.csv"), "-o", store, "--model", model],
        ["verify", store],
        ["probe", *labelled, "-o", str(folder / "probe")],
        ["train", *labelled, "--head", "linear", "-o", head],
        ["predict", str(folder / "audio/speaker01/anger_01.wav"), "--head", head,
         "--model", model],
    ]  # fmt: skip


def _run_command(command: list[str]) -> int:
    """Run ``exhubert`` as from a shell, so that each report names the command that made it."""
    print(f"\n$ exhubert {shlex.join(command)}", flush=True)
    # In a model as tiny as this, threads wait for each other longer than they work.
    environment = {"OMP_NUM_THREADS": "1", **os.environ}
    program = [sys.executable, "-m", "exhubert_features", *command]
    return subprocess.run(program, env=environment).returncode


def _summarise(folder: Path, seconds: float) -> None:
    """Print the result, where everything is, and how to go on."""
    result = json.loads((folder / "head/report.json").read_text(encoding="utf-8"))
    low, high = result["uar_interval"]
    print(f"""
UAR {result["uar"]:.2f} (95 % interval {low:.2f} to {high:.2f}) on speakers not heard in training; \
chance is {result["chance"]:.2f}. {seconds:.0f} s in all.

  {folder / "head/report.html"}   the report: open this first
  {folder / "probe/report.html"}  a probe on every layer
  {folder / "head"}   the trained head
  {folder / "store"}  the features
  {folder / "audio"}  the clips

{HONESTLY}

{YOUR_OWN}""")
