"""Files with something changed, by the thousand: each is read, or refused by a named error.

Every kind of file that comes from elsewhere: audio, manifests, JSON beside stores and heads,
packed stores (half of them with a stamp that is right again), heads and checkpoints. A child
reads hundreds of them in turn and is replaced when it dies, hangs or grows; what breaks is kept::

    python tests/fuzz.py                     # 100,000 inputs; ends with a table
    python tests/fuzz.py 5000 --kinds=packed,heads --seed=3
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from mutants import mutants

from exhubert_features.errors import ExHuBERTError

DATA = Path(__file__).parent / "data"
WRITTEN = DATA / "written_by_0.1.0"
BATCH = 500  # inputs that one child reads
WORKING = 20  # seconds of computing for one of them
SECONDS = 120  # the same by the clock: ffmpeg, a process of its own, is slow on a busy machine
ROOM = 3 << 30  # bytes of address space beyond what the child begins with
SHARES = {"manifests": 34, "json": 20, "heads": 5, "packed": 8, "checkpoints": 3, "audio": 30}


@dataclass(frozen=True)
class Seed:
    """An original to change, and where the change is put: ``at`` inside a copy of ``folder``."""

    kind: str
    original: Path
    folder: Path | None = None
    at: str = ""


def read_audio_file(path: Path) -> None:
    from exhubert_features.audio import planned_samples, probe_audio, read_audio

    planned_samples(probe_audio(str(path)))
    read_audio(str(path), limit=64 << 20)


def read_manifest_file(path: Path) -> None:
    from exhubert_features.extraction.manifest import read_manifest

    for row in read_manifest(path, data_root="/nowhere"):
        repr(row).encode("utf-8", "backslashreplace")


def read_store(path: Path) -> None:
    from exhubert_features import FeatureStore
    from exhubert_features.store import verify

    verify(path, deep=True)
    store = FeatureStore(path)
    for _ in store.blocks():
        pass
    repr((store.failures, store.pending, store.provenance))


def read_head(path: Path) -> None:
    from exhubert_features import load_head

    load_head(path)


def read_checkpoint(path: Path) -> None:
    from exhubert_features.checkpoint import load_model

    load_model(path)


def read_report(path: Path) -> None:
    from exhubert_features.evaluation.runs import read_run

    read_run(path)


READERS: dict[str, Callable[[Path], None]] = {
    "audio": read_audio_file,
    "manifests": read_manifest_file,
    "packed": read_store,
    "stores": read_store,
    "heads": read_head,
    "checkpoints": read_checkpoint,
    "reports": read_report,
}


def seeds(scratch: Path) -> dict[str, list[Seed]]:
    """What is changed: files in tests/data, and some made here."""
    from exhubert_features.checkpoint import write_random_checkpoint
    from exhubert_features.stamps import write_json

    model = write_random_checkpoint(scratch / "model", layers=2)
    release = write_random_checkpoint(scratch / "release", layers=2, layout="release")
    (scratch / "report").mkdir()
    clips = {"id": ["a"], "group": ["x"], "truth": [1.0], "prediction": [1.0]}
    report = {"task": "regression", "ccc": 0.5, "ccc_interval": [0.1, 0.9], "classes": [],
              "clips": clips, "folds": []}  # fmt: skip
    write_json(scratch / "report" / "report.json", report)
    head, store = WRITTEN / "heads" / "linear", WRITTEN / "store"
    weights = next(head.glob("*.safetensors"))
    slow = {".m4a", ".mkv", ".mov", ".aac", ".webm", ".wma", ".amr"}  # a process of ffmpeg each
    audio = [path for path in (DATA / "audio").iterdir() if path.suffix not in {".md", ".npz"}]
    audio += list((WRITTEN / "audio").glob("*.wav")) * 8
    jsons = [Seed("stores", path, store, path.name) for path in store.glob("*.json*")]
    jsons += [Seed("stores", path, store, f"failures/{path.name}")
              for path in (store / "failures").iterdir()]  # fmt: skip
    jsons += [Seed("reports", scratch / "report/report.json", scratch / "report", "report.json")]
    manifests = sorted((DATA / "hostile" / "manifests").iterdir())
    manifests = [path for path in manifests if 0 < path.stat().st_size < 10_000]
    found = {
        "audio": [Seed("audio", path) for path in sorted(audio) if path.suffix not in slow] * 100
        + [Seed("audio", path) for path in sorted(audio) if path.suffix in slow],
        "manifests": [Seed("manifests", path) for path in manifests],
        "json": jsons,
        "packed": [Seed("packed", WRITTEN / "packed.h5")],
        "heads": [Seed("heads", head / "head.json", head, "head.json"),
                  Seed("heads", weights, head, weights.name)],
        "checkpoints": [Seed("checkpoints", folder / name, folder, name)
                        for folder in (model, release)
                        for name in ("config.json", "model.safetensors", "pytorch_model.bin")
                        if (folder / name).exists()],
    }  # fmt: skip
    return found


def stamped_again(content: bytes) -> bytes:
    """A packed store whose stamp is right: what lies behind it reaches HDF5."""
    from exhubert_features.store.shard import USER_BLOCK, stamp

    body = content[USER_BLOCK:]
    return stamp(len(content), hashlib.sha256(body).hexdigest()) + body


def place(seed: Seed, content: bytes, folder: Path) -> Path:
    """Write a changed file where it is read from; what to read."""
    if seed.folder is None:
        path = folder / f"input{seed.original.suffix}"
        path.write_bytes(content)
        return path
    copy = folder / seed.folder.name
    if not copy.exists():
        shutil.copytree(seed.folder, copy)
    (copy / seed.at).write_bytes(content)
    return copy


def read_all(inputs: list[tuple[Seed, bytes]], folder: Path, told: int) -> None:
    """In a child: tell of each input its number, then how it ended."""
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    begun = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (begun + ROOM, hard))
    for number, (seed, content) in enumerate(inputs):
        path = place(seed, content, folder)
        os.write(told, f"{number} ".encode())
        signal.setitimer(signal.ITIMER_PROF, WORKING)
        signal.alarm(SECONDS)
        try:
            READERS[seed.kind](path)
            end = "read"
        except ExHuBERTError:
            end = "refused"
        except BaseException:  # noqa: BLE001  what a user would see as a traceback
            end = "broken"
            (folder / "traceback").write_text(traceback.format_exc())
        signal.alarm(0)
        signal.setitimer(signal.ITIMER_PROF, 0)
        if seed.folder is not None:
            shutil.copy(seed.original, path / seed.at)
        os.write(told, f"{end}\n".encode())
        if end == "broken":
            os._exit(1)
    os._exit(0)


def try_all(inputs: list[tuple[Seed, bytes]], scratch: Path) -> Iterator[tuple[Seed, bytes, str]]:
    """How each input ended; one that ends the child is the last that it was told of."""
    while inputs:
        folder = scratch / "child"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        reading, writing = os.pipe()
        child = os.fork()
        if not child:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            read_all(inputs, folder, writing)
        os.close(writing)
        with os.fdopen(reading) as stream:
            lines = stream.read().splitlines()
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        for line in lines:
            number, _, end = line.partition(" ")
            if end == "broken":
                end = (folder / "traceback").read_text()
            yield *inputs[int(number)], end or f"the process ended with {status}"
        inputs = inputs[len(lines) :]


def make_inputs(kind: str, count: int, seed: int, found: list[Seed]) -> list[tuple[Seed, bytes]]:
    chance = random.Random(f"{kind} {seed}")
    inputs = []
    for number in range(count):
        one = chance.choice(found)
        content = one.original.read_bytes()
        for _ in range(chance.choice([1, 1, 2, 5])):
            (content,) = mutants(content or b" ", 1, seed=chance.getrandbits(32))
        if kind == "packed" and number % 2:
            content = stamped_again(content)
        inputs.append((one, content))
    return inputs


def warm_up(found: dict[str, list[Seed]]) -> None:
    """Import what reading takes, pandas above all, once: children begin with it."""
    for seed in {one for seeds in found.values() for one in seeds}:
        with contextlib.suppress(ExHuBERTError):
            READERS[seed.kind](seed.folder or seed.original)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("count", nargs="?", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", type=lambda word: word.split(","), default=list(SHARES))
    parser.add_argument("--keep", type=Path, default=Path("broken"), help="for what breaks")
    options = parser.parse_args()
    total, broken = sum(SHARES[kind] for kind in options.kinds), 0
    with tempfile.TemporaryDirectory() as scratch:
        found = seeds(Path(scratch))
        warm_up(found)
        for kind in options.kinds:
            ends: Counter[str] = Counter()
            wanted = options.count * SHARES[kind] // total
            for batch, first in enumerate(range(0, wanted, BATCH)):
                size = min(BATCH, wanted - first)
                inputs = make_inputs(kind, size, options.seed + batch, found[kind])
                for seed, content, end in try_all(inputs, Path(scratch)):
                    ends[end if end in ("read", "refused") else "broken"] += 1
                    if end not in ("read", "refused"):
                        options.keep.mkdir(exist_ok=True)
                        name = f"{kind}-{batch}-{ends.total()}{seed.original.suffix}"
                        (options.keep / name).write_bytes(content)
                        print(f"{name} ({seed.original.name}): {end}", flush=True)
            broken += ends["broken"]
            print(f"{kind}: {ends.total():,} inputs, {dict(ends)}", flush=True)
    print(f"{broken} broken")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
