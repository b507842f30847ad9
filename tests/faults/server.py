"""Runs ``exhubert`` commands with one system call failing; see ``inject.c`` and ``commands.py``.

Started with ``inject.so`` preloaded, it imports the package once and forks for each run, so that
a run costs milliseconds. Run by hand for every call of every command::

    python tests/faults/server.py                 # thousands of runs; ends with a table
    python tests/faults/server.py merge pack      # of these commands
    python tests/faults/server.py --kinds=power   # of these faults
    python tests/faults/server.py --sample=20     # at so many places of each command
    python tests/faults/server.py --done=FILE     # those in FILE are done, and more are added
"""

from __future__ import annotations

import argparse
import ctypes
import errno
import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from commands import Command
    from power import Image

HERE = Path(__file__).parent
READS = {"open", "read"}
ROOM = {"create", "write", "truncate", "mkdir"}
CHANGES = ROOM | {"fsync", "rename", "link", "unlink", "rmdir", "chmod"}
# What happens instead of a call, with which error, and to which calls: between two calls that
# change something a kill finds what it finds at the second.
KINDS = {
    "kill": (1, 0, CHANGES),
    "EIO": (3, errno.EIO, CHANGES | READS),
    "ENOSPC from there on": (4, errno.ENOSPC, ROOM),
    "EMFILE": (3, errno.EMFILE, {"open", "create"}),
    "short write": (5, 0, {"write"}),
    "power cut": (1, 0, CHANGES),  # what was not flushed is lost
    "power cut, names first": (1, 0, CHANGES),  # the same, but names were flushed
}
POWER = [kind for kind in KINDS if kind.startswith("power")]
KILLED, HUNG = -9, (-14, -27)
SECONDS, WORKING = 300, 60  # a run that takes longer, or computes longer, hangs


@dataclass(frozen=True)
class Run:
    """How one run ended: its exit code (negative: the signal) and what it said."""

    code: int
    calls: list[str]  # by name; of an undisturbed run
    output: str
    errors: str


@dataclass(frozen=True)
class Finding:
    """A promise that did not hold."""

    command: str
    kind: str
    call: int
    what: str

    def __str__(self) -> str:
        return f"{self.command}, {self.kind} at call {self.call}: {self.what}"


def build(folder: Path) -> Path:
    """Compile the injector; raises where there is no compiler."""
    library = folder / "inject.so"
    source = HERE / "inject.c"
    command = ["cc", "-shared", "-fPIC", "-O1", "-o", str(library), str(source), "-ldl"]
    subprocess.run(command, check=True, capture_output=True)
    return library


def run(
    command: Command, folder: Path, said: Path, *, kind: int = 0, error: int = 0, at: int = -1
) -> Run:
    """One command in a forked process, working in ``folder``, whose call ``at`` fails.

    What it says goes to files in the folder ``said``.
    """
    said.mkdir(exist_ok=True)
    child = os.fork()
    if child == 0:
        for number, name in ((1, "output"), (2, "errors")):
            os.dup2(os.open(said / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
        os.chdir(folder)
        os.environ["XDG_CACHE_HOME"] = str(said)
        library = ctypes.CDLL(None)
        calls = os.open(said / "calls", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        library.fault_arm(os.fsencode(folder), ctypes.c_long(at), kind, error, calls)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.alarm(SECONDS)
        signal.setitimer(signal.ITIMER_PROF, WORKING)
        try:
            code = command.program(list(command.arguments))
        except SystemExit as stopped:
            code = stopped.code if isinstance(stopped.code, int) else 1
        except BaseException:  # noqa: BLE001  what a user would see as a traceback
            import traceback

            traceback.print_exc()
            code = 99
        sys.stdout.flush()
        sys.stderr.flush()
        library.fault_disarm()
        close_hdf5()
        os._exit(code)  # exit() itself takes torch half a second
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    calls = [
        line.split()[1] for line in (said / "calls").read_text("utf-8", "replace").splitlines()
    ]
    texts = [(said / name).read_text(errors="replace") for name in ("output", "errors")]
    return Run(code, calls, *texts)


def close_hdf5() -> None:
    """Let HDF5 write what it still holds, as it does when a process exits."""
    maps = Path("/proc/self/maps").read_text().splitlines()
    for path in {line.split()[-1] for line in maps if "/libhdf5-" in line or "/libhdf5." in line}:
        ctypes.CDLL(path).H5close()


def draw_once() -> None:
    """Drawing is most of a report's time and calls nothing: every figure is the same here."""
    from matplotlib.figure import Figure

    drawn = {"png": io.BytesIO(), "svg": io.StringIO()}
    for form, stream in drawn.items():
        Figure().savefig(stream, format=form)
    content: dict[str, Any] = {form: stream.getvalue() for form, stream in drawn.items()}

    def savefig(figure: Figure, stream: Any, *, format: str, **options: Any) -> None:
        stream.write(content[format])

    Figure.savefig = savefig  # type: ignore[method-assign]


def prepare(command: Command, folder: Path) -> None:
    """A fresh copy of what the command works on, as far as its words name it."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for name in {word.split("/")[0] for word in command.arguments}:
        if (command.prepared / name).exists():
            shutil.copytree(command.prepared / name, folder / name, symlinks=True)


def check(
    command: Command, kind: str, call: int, scratch: Path, image: Image | None
) -> Iterator[Finding]:
    """Run a command with one failing call, then again undisturbed; yield what does not hold."""
    folder, said = (image.folder if image else scratch) / "work", scratch / "said"
    prepare(command, folder)
    if image:
        image.flush()
    number, error, _ = KINDS[kind]
    first = run(command, folder, said, kind=number, error=error, at=call)
    if image:
        image.cut(names_first=kind.endswith("names first"))

    def finding(what: str) -> Finding:
        return Finding(command.name, kind, call, what)

    last_words = "\n".join((first.output + first.errors).splitlines()[-6:])
    if "Traceback" in first.errors or first.code == 99:
        yield finding(f"a traceback: {last_words}")
    if first.code < 0 and first.code != KILLED:
        yield finding("hangs" if first.code in HUNG else f"dies of signal {-first.code}")
    if first.code == KILLED and not kind.startswith(("kill", "power")):
        yield finding("was killed, by nobody")
    if (
        first.code > 0
        and "error" not in first.errors.lower()
        and "failed" not in first.errors.lower()
    ):
        yield finding(f"ends with {first.code} and says no error: {last_words}")
    if first.code == 0:
        try:
            outcome = command.outcome(folder)
        except Exception as problem:  # noqa: BLE001  any problem is the finding
            outcome = repr(problem)
        if outcome != command.expected:
            yield finding(f"ends with 0 and another result: {outcome!s:.300}")
        return
    try:
        command.sound(folder, first.output)
    except Exception as problem:  # noqa: BLE001  any problem is the finding
        yield finding(f"leaves something broken ({problem!r}) after: {last_words}")
        return
    again = run(command, folder, said)
    try:
        outcome = command.outcome(folder)
    except Exception as problem:  # noqa: BLE001  any problem is the finding
        outcome = repr(problem)
    # What had failed after all was done, or named its failures (3), is not done over unasked.
    there = again.code in (1, 2) and ("exists" in again.errors or "already" in again.errors)
    done_already = there and (outcome == command.expected or first.code == 3)
    if done_already:
        return
    if again.code != 0:
        yield finding(f"the next run ends with {again.code}: {again.errors[-400:]}")
    elif outcome != command.expected:
        yield finding(f"the next run gives another result: {outcome!s:.300}")


def sweep(options: argparse.Namespace, scratch: Path, image: Image | None) -> list[Finding]:
    """The faults asked for at every call of some commands, or at a sample of places of each."""
    from commands import prepare_all

    draw_once()
    chance = random.Random(options.seed)
    findings: list[Finding] = []
    for command in prepare_all(scratch, options.names):
        prepare(command, scratch / "count")
        undisturbed = run(command, scratch / "count", scratch / "said")
        if undisturbed.code:
            raise RuntimeError(f"{command.name} fails by itself: {undisturbed.errors}")
        command.expected = command.outcome(scratch / "count")
        places = [
            (kind, call)
            for kind, (_, _, names) in KINDS.items()
            if kind.startswith(options.kinds) and (image or kind not in POWER)
            for call, name in enumerate(undisturbed.calls)
            if name in names
        ]
        # A power cut behind the last call: what ended well is on the disk.
        ends = [(kind, len(undisturbed.calls)) for kind in {kind for kind, _ in places} & {*POWER}]
        places += sorted(ends)
        if options.sample is not None:
            places = sample(places, options.sample, chance)
        here = []
        done = read_done(options.done, command)
        begun = time.monotonic()
        for kind, call in places:
            if (kind, call) in done:
                here += done[(kind, call)]
                continue
            found = list(check(command, kind, call, scratch, image if kind in POWER else None))
            if options.done:
                note_done(options.done, command, kind, call, found)
            for one in found:
                print(one, flush=True)
            here += found
        counts = Counter(kind for kind, _ in places)
        said = ", ".join(f"{count:,} {kind}" for kind, count in counts.items())
        print(
            f"{command.name}: {len(undisturbed.calls):,} calls, {len(places):,} runs ({said}), "
            f"{len(here):,} findings, {time.monotonic() - begun:.0f} s",
            flush=True,
        )
        findings += here
    return findings


def sample(
    places: list[tuple[str, int]], count: int, chance: random.Random
) -> list[tuple[str, int]]:
    """Some of the places, of each kind as many: most calls read, most that breaks is writing."""
    chance.shuffle(places)
    turns: Counter[str] = Counter()
    order = []
    for kind, call in places:
        order.append((turns[kind], kind, call))
        turns[kind] += 1
    return [(kind, call) for _, kind, call in sorted(order, key=lambda one: one[0])][:count]


def read_done(path: Path | None, command: Command) -> dict[tuple[str, int], list[Finding]]:
    """Places of a command that were tried before, with what was found there."""
    if path is None or not path.exists():
        return {}
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return {
        (kind, call): [Finding(name, kind, call, what) for what in found]
        for name, kind, call, found in rows
        if name == command.name
    }


def note_done(path: Path, command: Command, kind: str, call: int, found: list[Finding]) -> None:
    """Add a place that was tried."""
    with path.open("a") as stream:
        line = json.dumps([command.name, kind, call, [one.what for one in found]])
        stream.write(f"{line}\n")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="commands; all by default")
    parser.add_argument("--sample", type=int, help="places of each command; all by default")
    parser.add_argument("--done", type=Path, help="where places are noted, to go on another day")
    parser.add_argument("--seed", type=int, default=0, help="of the sample (default: 0)")
    parser.add_argument("--kinds", type=lambda word: tuple(word.split(",")), default=("",),
                        help="beginnings of the faults' names, such as kill,power")  # fmt: skip
    return parser.parse_args()


def preload() -> None:
    """Start this very process again, with the injector before the C library."""
    memory = Path("/dev/shm")  # where flushing takes no time
    roomy = memory.is_dir() and shutil.disk_usage(memory).free > 1 << 30
    scratch = tempfile.mkdtemp(dir=memory if roomy else None)
    paths = [str(HERE), str(HERE.parents[1]), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {
        "LD_PRELOAD": str(build(Path(scratch))),
        "FAULTS_SCRATCH": scratch,
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
    }
    os.execve(sys.executable, [sys.executable, *sys.argv], environment)


def main() -> int:
    options = parse()
    if "FAULTS_SCRATCH" not in os.environ:
        preload()
    scratch = Path(os.environ.pop("FAULTS_SCRATCH"))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # what is mounted is unmounted
    image = None
    try:
        from power import Image, missing

        lacking = missing(scratch)
        image = None if lacking else Image(scratch)
        findings = sweep(options, scratch, image)
    finally:
        if image:
            image.close()
        shutil.rmtree(scratch, ignore_errors=True)
    print(f"no power cuts: {lacking}" if lacking else "with power cuts")
    print(f"{len(findings)} findings")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
