"""Kill what works on Ray at random moments, and compare with an undisturbed run.

    python tests/faults/ray_kills.py --kills 100

Workers mostly; also the raylet (a machine), the GCS (the head) and the command itself (the
driver), after each of which the same command is run again. When a run comes to its end the next
one writes to a new store. Prints how many kills of each kind there were and what was lost, doubled
or wrong; ends with 1 if anything was. Needs the extra [ray]; takes half an hour on two processors.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import numpy as np
import soundfile

from exhubert_features import FeatureStore
from exhubert_features.checkpoint import write_random_checkpoint
from exhubert_features.store.verify import verify

ROOT = Path(__file__).parents[2]
# What to look for in a command line, and how often.
VICTIMS = {"worker": ("ray::", 88), "raylet": ("raylet/raylet", 4), "gcs": ("gcs_server", 4)}
VICTIMS |= {"driver": ("exhubert_features", 4)}


def processes(session: int) -> dict[int, str]:
    """Command lines of the living processes of a session, by id."""
    listed = subprocess.run(
        ["ps", "-ww", "-eo", "sid=,pid=,stat=,args="], capture_output=True, text=True
    )
    rows = [line.split(None, 3) for line in listed.stdout.splitlines()]
    return {
        int(pid): args for sid, pid, stat, args in rows if sid == str(session) and stat[0] != "Z"
    }


def begin(corpus: Path, model: Path, store: Path, *engine: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "exhubert_features", "extract", str(corpus), "-o", str(store)]
    command += ["--model", str(model), "--device", "cpu", "--batch-size", "1", "--workers", "1"]
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{os.environ.get('PYTHONPATH', '')}"}
    return subprocess.Popen(
        [*command, *engine],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def end(process: subprocess.Popen[str], seconds: float) -> None:
    """Wait until all of a session are gone; what stays is killed, and told of."""
    limit = time.monotonic() + seconds
    while (left := processes(process.pid)) and time.monotonic() < limit:
        process.poll()
        time.sleep(0.5)
    for pid, args in left.items():
        print(f"   stayed {seconds:.0f} s: {args[:70]}", flush=True)
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.wait()


def strike(process: subprocess.Popen[str], kind: str) -> bool:
    """Kill one process of a run, as soon as there is one of that kind."""
    while process.poll() is None:
        for pid, args in processes(process.pid).items():
            if VICTIMS[kind][0] in args and "Agent" not in args and "IDLE" not in args:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                    return True
        time.sleep(0.1)
    return False


def compare(path: Path, expected: FeatureStore) -> Counter[str]:
    """Count what is lost, doubled and wrong."""
    store, wrong = FeatureStore(path), Counter[str]()
    problems = verify(path, deep=True).problems
    wrong["damaged"] = len(problems)
    wrong["lost"] = len({*expected.ids} - {*store.ids})
    wrong["doubled"] = len(store.ids) - len({*store.ids})
    wrong["failed"] = len(store.failures)
    mine, theirs = store.matrix(layer=2), expected.matrix(layer=2)
    row = {name: number for number, name in enumerate(store.ids)}
    for number, name in enumerate(expected.ids):
        if name in row and not np.array_equal(mine[row[name]], theirs[number]):
            wrong["wrong"] += 1
    return wrong


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--clips", type=int, default=4000)
    parser.add_argument("--pause", type=float, default=10.0, help="most seconds between kills")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    dice, kills, found = random.Random(options.seed), Counter[str](), Counter[str]()
    with tempfile.TemporaryDirectory() as scratch:
        home = Path(scratch)
        model = write_random_checkpoint(home / "model", layers=2)
        corpus = home / "audio"
        corpus.mkdir()
        noise = np.random.default_rng(0)
        for number in range(options.clips):
            soundfile.write(corpus / f"{number}.wav", noise.normal(0, 0.1, 4_000 + number), 16_000)
        begin(corpus, model, home / "undisturbed").communicate()
        expected = FeatureStore(home / "undisturbed")
        assert len(expected) == options.clips
        runs = stores = 0
        while kills.total() < options.kills:
            stores += 1
            store = home / f"store-{stores}"
            finished = False
            while not finished:
                runs += 1
                process = begin(
                    corpus, model, store, "--engine", "ray", "--actors", "2", "--shard-clips", "16"
                )
                kind = "worker"
                while process.poll() is None and kind == "worker":
                    time.sleep(dice.uniform(0.1, options.pause))
                    weights = [weight for _, weight in VICTIMS.values()]
                    kind = dice.choices([*VICTIMS], weights)[0]
                    if kills.total() >= options.kills or not strike(process, kind):
                        kind = "worker"
                        continue
                    kills[kind] += 1
                    print(f"{kills.total():4} {kind}", flush=True)
                if kind != "worker":
                    end(process, 180)
                else:
                    _, said = process.communicate()
                    finished = process.returncode == 0
                    print(f"   run {runs} ended with {process.returncode}", flush=True)
                    if not finished:
                        print(said[-2000:], flush=True)
                    end(process, 60)
            wrong = compare(store, expected)
            print(f"   store {stores}: {options.clips} clips, {dict(wrong)}", flush=True)
            found += wrong
    print(f"{kills.total()} kills ({dict(kills)}), {runs} runs, {stores} stores: {dict(found)}")
    return 1 if found.total() else 0


if __name__ == "__main__":
    sys.exit(main())
