"""Runs ``exhubert`` commands with one system call failing; see ``inject.c`` and ``commands.py``.

Started with ``inject.so`` preloaded, it imports the package once and forks for each run, so that
a run costs milliseconds. Run by hand for every call of every command::

    python tests/faults/server.py            # thousands of runs; ends with a table
    python tests/faults/server.py merge pack # of these commands
"""

from __future__ import annotations

import ctypes
import errno
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
KINDS = {
    "kill before": (1, 0),
    "kill after": (2, 0),
    "EIO": (3, errno.EIO),
    "ENOSPC from there on": (4, errno.ENOSPC),
    "EMFILE": (3, errno.EMFILE),
    "short write": (5, 0),
}
KILLED, HUNG = -9, -14
SECONDS = 60  # a run that takes longer hangs


@dataclass(frozen=True)
class Run:
    """How one run ended: its exit code (negative: the signal) and what it said."""

    code: int
    calls: int
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
    arguments: Sequence[str], folder: Path, *, kind: int = 0, error: int = 0, at: int = -1
) -> Run:
    """One command in a forked process, working in ``folder``, whose call ``at`` fails."""
    said = folder.with_name(folder.name + ".said")
    said.mkdir(exist_ok=True)
    child = os.fork()
    if child == 0:
        for number, name in ((1, "output"), (2, "errors")):
            os.dup2(os.open(said / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
        os.chdir(folder)
        os.environ["XDG_CACHE_HOME"] = str(said)
        library = ctypes.CDLL(None)
        library.fault_arm(os.fsencode(folder), ctypes.c_long(at), kind, error, -1)
        import signal

        signal.alarm(SECONDS)
        from exhubert_features.cli import main

        try:
            code = main(list(arguments))
        except SystemExit as stopped:
            code = stopped.code if isinstance(stopped.code, int) else 1
        except BaseException:  # noqa: BLE001  what a user would see as a traceback
            import traceback

            traceback.print_exc()
            code = 99
        sys.stdout.flush()
        sys.stderr.flush()
        library.fault_disarm()
        (said / "calls").write_text(str(library.fault_count()))
        library.exit(code)  # with libraries' own handlers, where HDF5 writes what it still holds
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    calls = int((said / "calls").read_text()) if code >= 0 else 0
    texts = [(said / name).read_text(errors="replace") for name in ("output", "errors")]
    return Run(code, calls, *texts)


def check(command: object, kind: str, call: int, scratch: Path) -> Iterator[Finding]:
    """Run a command with one failing call, then again undisturbed; yield what does not hold."""
    from commands import Command

    assert isinstance(command, Command)
    folder = scratch / "work"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(command.prepared, folder, symlinks=True)
    number, error = KINDS[kind]
    first = run(command.arguments, folder, kind=number, error=error, at=call)

    def finding(what: str) -> Finding:
        return Finding(command.name, kind, call, what)

    last_words = "\n".join((first.output + first.errors).splitlines()[-6:])
    if "Traceback" in first.errors or first.code == 99:
        yield finding(f"a traceback: {last_words}")
    if first.code < 0 and first.code != KILLED:
        yield finding("hangs" if first.code == HUNG else f"dies of signal {-first.code}")
    if first.code == KILLED and not kind.startswith("kill"):
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
        command.sound(folder)
    except Exception as problem:  # noqa: BLE001  any problem is the finding
        yield finding(f"leaves something broken ({problem!r}) after: {last_words}")
        return
    again = run(command.arguments_again, folder)
    try:
        outcome = command.outcome(folder)
    except Exception as problem:  # noqa: BLE001  any problem is the finding
        outcome = repr(problem)
    done_already = again.code in (1, 2) and "exists" in again.errors and outcome == command.expected
    if again.code != 0 and not done_already:
        yield finding(f"the next run ends with {again.code}: {again.errors[-400:]}")
    elif outcome != command.expected:
        yield finding(f"the next run gives another result: {outcome!s:.300}")


def sweep(
    names: Sequence[str], *, sample: int | None, scratch: Path, seed: int = 0
) -> list[Finding]:
    """Every kind of fault at every call of some commands, or at ``sample`` places of each."""
    from commands import prepare_all

    chance = random.Random(seed)
    findings: list[Finding] = []
    runs: Counter[str] = Counter()
    for command in prepare_all(scratch, names):
        folder = scratch / "count"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(command.prepared, folder, symlinks=True)
        undisturbed = run(command.arguments, folder)
        if undisturbed.code:
            raise RuntimeError(f"{command.name} fails by itself: {undisturbed.errors}")
        command.expected = command.outcome(folder)
        places = [(kind, call) for kind in KINDS for call in range(undisturbed.calls)]
        for kind, call in (
            places if sample is None else chance.sample(places, min(sample, len(places)))
        ):
            found = list(check(command, kind, call, scratch))
            runs[command.name] += 1
            findings += found
            for one in found:
                print(one, flush=True)
    for name, count in runs.items():
        broken = sum(one.command == name for one in findings)
        print(f"{name}: {count:,} runs, {broken:,} findings", flush=True)
    return findings


def main() -> int:
    names = [name for name in sys.argv[1:] if not name.startswith("--")]
    sample = next(
        (int(word.split("=")[1]) for word in sys.argv if word.startswith("--sample=")), None
    )
    with tempfile.TemporaryDirectory() as scratch:
        if "FAULTS_PRELOADED" not in os.environ:
            library = build(Path(scratch))
            paths = [str(HERE), str(HERE.parents[1]), os.environ.get("PYTHONPATH", "")]
            environment = os.environ | {
                "LD_PRELOAD": str(library),
                "FAULTS_PRELOADED": "1",
                "PYTHONPATH": os.pathsep.join(filter(None, paths)),
                "OMP_NUM_THREADS": "1",
                "HF_HUB_OFFLINE": "1",
            }
            return subprocess.run([sys.executable, *sys.argv], env=environment).returncode
        findings = sweep(names, sample=sample, scratch=Path(scratch))
    print(f"{len(findings)} findings")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
