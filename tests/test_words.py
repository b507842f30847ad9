"""What a command says, and leaves, where it may not write: one error with the path, no more."""

from __future__ import annotations

import ctypes
import os
import resource
import shutil
import sys
import tempfile
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from exhubert_features import files
from exhubert_features.checkpoint import write_random_checkpoint
from exhubert_features.cli import main
from exhubert_features.store import verify

LABELS = "--target mood --group speaker"
MODEL = "--model model --device cpu"
# Every command that writes, into the folder `out`.
WRITING = {
    "extract": f"extract manifest.csv -o out/store {MODEL}",
    "merge": "merge store -o out/merged",
    "pack": "pack store out/packed.h5",
    "export": "export store --to csv -o out/table.csv",
    "convert": "convert model out/converted",
    "expand": "expand plain out/expanded",
    "probe": f"probe store {LABELS} -o out/probe",
    "train": f"train store {LABELS} --layers 1 -o out/head",
    "evaluate": f"evaluate head store {LABELS} -o out/evaluated",
    "compare": "compare head head -o out/table",
    "predict": f"predict . {MODEL} -o out/predicted.csv",
    "plot": f"predict 1.wav {MODEL} --plot out/line.png",
    "demo": "demo -o out/demo",
}


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    output: str
    errors: str


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """What commands work on, in a folder that everybody may enter."""
    path = Path(tempfile.mkdtemp())
    path.chmod(0o755)
    chance = np.random.default_rng(0)
    rows = ["file,speaker,mood"]
    for number in range(6):
        tone = np.sin(np.arange(8_000) * (0.05 if number % 2 else 0.2))
        wave = (0.2 * tone + 0.01 * chance.normal(size=8_000)).astype("f4")
        soundfile.write(path / f"{number}.wav", wave, 16_000)
        rows.append(f"{number}.wav,s{number % 3},{'sad' if number % 2 else 'glad'}")
    (path / "manifest.csv").write_text("\n".join(rows) + "\n")
    write_random_checkpoint(path / "model", layers=2)
    write_random_checkpoint(path / "plain", layers=2, gated=False)
    before = Path.cwd()
    os.chdir(path)
    try:
        assert main(f"extract manifest.csv -o store {MODEL}".split()) == 0
        assert main(f"train store {LABELS} --layers 1 -o head".split()) == 0
        yield path
    finally:
        os.chdir(before)
        shutil.rmtree(path)


def run(words: str, *, redirected: dict[int, str | None] | None = None, **limits: Any) -> Ended:
    """A command in a child; ``redirected`` tells where its output goes, None for closed."""
    with tempfile.TemporaryDirectory() as said:
        child = os.fork()
        if not child:
            code = 98  # whatever happens, this child must not go on as a second pytest
            try:
                torch.set_num_threads(1)  # OpenMP's others did not come along
                _become(Path(said), redirected or {}, **limits)
                code = main(words.split())
                for stream in (sys.stdout, sys.stderr):  # as Python does at its end
                    if stream is not None:
                        stream.flush()
            except SystemExit as stopped:
                code = int(stopped.code or 0)
            except BaseException:  # noqa: BLE001  what a user would see as a traceback
                code = 99
                with (Path(said) / "traceback").open("w") as file:
                    traceback.print_exc(file=file)
            finally:
                os._exit(code)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        texts = [
            path.read_text() if (path := Path(said) / name).exists() else ""
            for name in ("1", "2", "traceback")
        ]
    return Ended(code, texts[0], texts[1] + texts[2])


def _become(
    said: Path, redirected: dict[int, str | None], *, powerless: bool = False, largest: int = 0
) -> None:
    said.chmod(0o777)
    os.environ["XDG_CACHE_HOME"] = os.environ["HOME"] = str(said)
    for number, stream in ((1, "stdout"), (2, "stderr")):
        target = redirected.get(number, str(said / str(number)))
        if target is None:
            os.close(number)
            setattr(sys, stream, None)
        else:
            os.dup2(os.open(target, os.O_WRONLY | os.O_CREAT, 0o666), number)
            setattr(sys, stream, os.fdopen(number, "w", closefd=False))
    if powerless and os.geteuid() == 0:
        # Without its capabilities root is held to the bits of files like everybody else.
        header, none = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
        assert ctypes.CDLL(None).capset(header, none) == 0
    if largest:
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest, largest))


def told(ended: Ended, *words: str) -> bool:
    """Whether it ended with one error of one line that says these words."""
    last = ended.errors.splitlines()[-1:] or [""]
    return (
        ended.code in (1, 2)
        and ended.errors.count("exhubert: error: ") == 1
        and last[0].startswith("exhubert: error: ")
        and "Traceback" not in ended.errors
        and all(word in last[0] for word in words)
    )


@pytest.fixture
def out(folder: Path) -> Iterator[Path]:
    path = folder / "out"
    path.mkdir()
    yield path
    path.chmod(0o755)
    shutil.rmtree(path)


@pytest.mark.slow
@pytest.mark.parametrize("command", WRITING)
def test_a_folder_that_may_not_be_written(out: Path, command: str) -> None:
    out.chmod(0o555)
    ended = run(WRITING[command], powerless=True)
    assert told(ended, "out"), ended
    assert not list(out.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("command", WRITING)
def test_a_disk_without_room(out: Path, command: str) -> None:
    """No file may grow beyond a kilobyte: the error of a full disk, but for its number."""
    ended = run(WRITING[command], largest=1_000)
    assert told(ended, "out"), ended
    for path in out.rglob("*"):
        assert path.is_dir() or path.stat().st_size < 1_000 or path.suffix in (".json", ".jsonl")
        assert not path.name.endswith(".tmp")
    again = run(WRITING[command].replace("out/demo", "out/other"))
    assert again.code in (0, 2), again
    if command == "extract":
        assert verify(out / "store", deep=True).problems == ()


def test_standard_output_that_takes_nothing(folder: Path) -> None:
    for words in ("inspect store", "verify store", f"predict 1.wav {MODEL}"):
        for target in ("/dev/full", None):
            ended = run(words, redirected={1: target})
            assert told(ended, "standard output"), (words, ended)


def test_standard_error_that_takes_nothing(folder: Path, out: Path) -> None:
    for number, target in enumerate(("/dev/full", None)):
        words = f"extract manifest.csv gone.wav -o out/{number} {MODEL}"
        ended = run(words, redirected={2: target})
        assert ended.code == 3 and "6 rows" in ended.output
        assert verify(out / str(number), deep=True).problems == ()


def test_a_reader_that_has_seen_enough(folder: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    ended = run("inspect store", redirected={1: f"/proc/self/fd/{writing}"})
    assert ended.code == 141 and not ended.errors


@pytest.mark.parametrize(
    ("hidden", "words", "said"),
    [
        ("store/shards/000000.h5", "export store --to npz -o out/x.npz", "000000.h5"),
        ("store/store.json", f"probe store {LABELS} -o out/x", "store.json"),
        ("head/head.json", f"evaluate head store {LABELS} -o out/x", "head.json"),
        ("head/report.json", "compare head head -o out/x", "report.json"),
        ("manifest.csv", f"extract manifest.csv -o out/x {MODEL}", "manifest.csv"),
        ("model/config.json", f"predict 1.wav {MODEL}", "config.json"),
        ("model/model.safetensors", f"predict 1.wav {MODEL}", "model.safetensors"),
    ],
)
def test_a_file_that_may_not_be_read(
    folder: Path, out: Path, hidden: str, words: str, said: str
) -> None:
    out.chmod(0o777)
    (folder / hidden).chmod(0)
    try:
        ended = run(words, powerless=True)
    finally:
        (folder / hidden).chmod(0o644)
    assert told(ended, said), ended


@pytest.mark.parametrize(
    ("command", "leftover"),
    [
        ("pack", "packed.h5"),
        ("convert", "converted"),
        ("export", "table.csv"),
        ("predict", "predicted.csv"),
        ("compare", "table/comparison.md"),
    ],
)
def test_what_a_killed_run_left_goes_with_the_next(
    folder: Path, out: Path, command: str, leftover: str
) -> None:
    final = out / leftover
    ours = final.with_name(f".{final.name}.{files._machine()}-00000000.tmp")
    alive = final.with_name(f".{final.name}.{files._machine()}-11111111.tmp")
    final.parent.mkdir(exist_ok=True)
    if command == "convert":
        ours.mkdir()
        (ours / "model.safetensors").write_bytes(b"half")
    else:
        ours.write_bytes(b"half")
    alive.write_bytes(b"another writer is at it")
    with alive.open("rb") as held:
        files._lock(held.fileno())
        assert main(WRITING[command].split()) == 0
        assert not ours.exists() and alive.exists()
