"""``--engine ray`` on a real Ray of two machines in one: whatever dies, the store is the same.

``pip install 'exhubert-features[ray]'`` installs it; without it these tests are skipped.
"""

from __future__ import annotations

import json
import math
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from ray_runs import CLIPS, OPTIONS, ROOT, require_same, write_corpus
from waves import noise

from exhubert_features import FeatureStore
from exhubert_features.cli import main
from exhubert_features.cluster import Cluster, Job, Tally, extract_on_ray
from exhubert_features.errors import AudioError, FingerprintMismatch, StoreError, UsageError

ray = pytest.importorskip("ray", reason="needs the extra [ray]")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("ray") / "audio")


@pytest.fixture(scope="module")
def options(two_layers: Path) -> list[str]:
    return ["--model", str(two_layers), *OPTIONS]


@pytest.fixture(scope="module")
def undisturbed(
    corpus: Path, options: list[str], tmp_path_factory: pytest.TempPathFactory
) -> FeatureStore:
    """What the plain command makes."""
    path = tmp_path_factory.mktemp("undisturbed") / "store"
    assert main(["extract", str(corpus), "-o", str(path), *options]) == 3
    return FeatureStore(path)


@pytest.fixture(scope="module")
def faults(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("faults") / "faults.json"


@pytest.fixture(scope="module")
def machines(faults: Path) -> Iterator[Any]:
    """A Ray of one machine with two processors, to which tests add others."""
    from ray.cluster_utils import Cluster as LocalCluster

    before = dict(os.environ)
    paths = [str(ROOT), str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")]
    os.environ |= {
        "PYTHONPATH": os.pathsep.join(paths),
        "EXHUBERT_FAULTS": str(faults),
        "RAY_worker_niceness": "0",
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    settings = {"num_cpus": 2, "object_store_memory": 100 << 20, "include_dashboard": False}
    local = LocalCluster(initialize_head=True, head_node_args=settings)
    ray.init(address=local.address, log_to_driver=False, logging_level="ERROR")
    yield local
    ray.shutdown()
    local.shutdown()
    os.environ.clear()
    os.environ |= before


class Run:
    """A run with faults, and what is known of its workers."""

    def __init__(self, corpus: Path, model: Path, store: Path, faults: Path, **happen: Any) -> None:
        self.corpus, self._faults = corpus, faults
        self.job = Job(
            store=store,
            model={"source": str(model), "device": "cpu"},
            batch_size=1,
            threads=1,
        )
        self.log = Path(f"{store}.pids")
        self.happen = {"pids": str(self.log), **happen}

    def __call__(
        self, *, actors: int = 2, stuck_seconds: float = 600, block_clips: int = 8, **options: Any
    ) -> Tally:
        self._faults.write_text(json.dumps(self.happen), encoding="utf-8")
        cluster = Cluster(actors=actors, stuck_seconds=stuck_seconds)
        return extract_on_ray(self.corpus, self.job, cluster, block_clips=block_clips, **options)

    @property
    def pids(self) -> list[int]:
        return [int(line) for line in self.log.read_text().split()] if self.log.exists() else []

    @property
    def deaths(self) -> int:
        return len(self.pids) - 2


@pytest.fixture
def run(
    corpus: Path,
    two_layers: Path,
    tmp_path: Path,
    faults: Path,
    machines: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> Run:
    from ray_workers import FaultyWorker

    monkeypatch.setattr("exhubert_features.cluster.crew.Worker", FaultyWorker)
    return Run(corpus, two_layers, tmp_path / "store", faults)


def ended(pids: list[int]) -> bool:
    """Whether processes are gone, or will be in a moment."""
    for _ in range(300):
        listed = subprocess.run(
            ["ps", "-ww", "-eo", "pid=,stat="], capture_output=True, text=True
        ).stdout
        living = {int(line.split()[0]) for line in listed.splitlines() if "Z" not in line}
        if not living & {*pids}:
            return True
        time.sleep(0.1)
    return False


def test_it_is_the_plain_command(
    corpus: Path,
    options: list[str],
    undisturbed: FeatureStore,
    machines: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)  # with relative paths, which actors take as they are meant
    (tmp_path / "audio").symlink_to(corpus)
    store = tmp_path / "store"
    command = ["extract", "audio", "-o", "store", *options, "--engine", "ray"]
    assert main([*command, "--actors", "2", "--shard-clips", "4"]) == 3
    assert FeatureStore(store).shard_count >= CLIPS / 4  # of blocks of 7
    require_same(store, undisturbed)
    said = capsys.readouterr()
    assert f"{CLIPS} rows" in said.out and "Failed: 1 of 49 clips" in said.err
    assert "49 of 49 clips, 1 failed, 12.1 s of audio" in said.err
    assert FeatureStore(store).fingerprint == undisturbed.fingerprint
    # Either engine goes on with the other's store, and finds nothing to do.
    before = sorted((store / "shards").iterdir())
    assert main(["extract", str(corpus), "-o", str(store), *options]) == 3
    assert main([*command, "--actors", "1"]) == 3
    assert sorted((store / "shards").iterdir()) == before
    assert "0.0 s of audio" in capsys.readouterr().err
    assert main([*command, "--dry-run"]) == 0
    assert main([*command, "--dry-run", "--pools", "std"]) == 1
    assert main([*command, "--pools", "max"]) == 1
    assert "other weights or settings" in capsys.readouterr().err


def test_killed_workers(run: Run, undisturbed: FeatureStore) -> None:
    run.happen["seconds"] = 0.1
    killed: set[int] = set()
    dice = random.Random(0)

    def kill() -> None:
        while len(killed) < 4:
            time.sleep(dice.uniform(0.5, 1.5))
            living = [pid for pid in run.pids[-2:] if pid not in killed]
            for pid in living[:1]:
                killed.add(pid)
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    threading.Thread(target=kill, daemon=True).start()
    tally = run()
    assert len(killed) >= 2
    assert tally.stored + tally.present == CLIPS and tally.failed == 1
    require_same(Path(run.job.store), undisturbed)


def test_clips_that_kill_or_raise(run: Run, undisturbed: FeatureStore) -> None:
    run.happen |= {"kills": ["10.wav"], "raises": ["11.wav", "40.wav"]}
    tally = run()
    assert tally.failed == 4
    assert run.deaths <= math.log2(8) + 3
    store = FeatureStore(run.job.store)
    reasons = {failure.id: failure.reason for failure in store.failures}
    kinds = {failure.id: failure.kind for failure in store.failures}
    assert kinds["10.wav"] == "killed" and "alone in work" in reasons["10.wav"]
    assert kinds["11.wav"] == "raised" and "no idea" in reasons["11.wav"]
    require_same(Path(run.job.store), undisturbed, without={"10.wav", "11.wav", "40.wav"})
    # The same command tries them again: the bad one costs one worker, the others are mended.
    before = len(run.pids)
    run.happen |= {"raises": []}
    assert run().failed == 2
    assert len(run.pids) - before <= 3
    require_same(Path(run.job.store), undisturbed, without={"10.wav"})
    run.happen |= {"kills": []}
    assert run().failed == 1
    require_same(Path(run.job.store), undisturbed)


def test_a_slow_clip_is_done_by_somebody_else(run: Run, undisturbed: FeatureStore) -> None:
    run.happen["slow"] = ["05.wav"]
    begun = time.monotonic()
    assert run().stored >= CLIPS
    assert time.monotonic() - begun < 300
    require_same(Path(run.job.store), undisturbed)


@pytest.mark.parametrize("fault", ["hangs", "waits"])
def test_a_clip_that_hangs_everywhere(fault: str, run: Run, undisturbed: FeatureStore) -> None:
    """Also where the worker cannot say anything any more."""
    run.happen[fault] = ["05.wav"]
    begun = time.monotonic()
    tally = run(block_clips=2, stuck_seconds=10)
    assert time.monotonic() - begun < 300
    assert tally.failed == 2
    (failure,) = [one for one in FeatureStore(run.job.store).failures if one.id == "05.wav"]
    assert failure.kind == "killed" and "it came to no end within 10 s" in failure.reason
    assert run.deaths <= math.log2(2) + 4  # one of them a second worker at the same block
    assert ended(run.pids)
    require_same(Path(run.job.store), undisturbed, without={"05.wav"})


def test_a_long_clip_is_no_hang(run: Run, tmp_path: Path) -> None:
    """It takes far longer than a worker may stand still, but window after window is encoded."""
    run.corpus = tmp_path / "long"
    run.corpus.mkdir()
    soundfile.write(run.corpus / "long.wav", noise(90 * 16_000, 0), 16_000)
    run.happen["pause"] = 1
    begun = time.monotonic()
    tally = run(actors=1, stuck_seconds=10)
    assert time.monotonic() - begun > 30
    assert (tally.stored, tally.failed, len(run.pids)) == (1, 0, 1)


def test_a_full_disk_on_one_machine(run: Run, machines: Any, undisturbed: FeatureStore) -> None:
    added = machines.add_node(num_cpus=2, object_store_memory=100 << 20)
    try:
        run.happen["full"] = added.node_id
        run(actors=4)
        assert Path(f"{run.log}full").exists(), "it never came to that machine"
        require_same(Path(run.job.store), undisturbed)
    finally:
        machines.remove_node(added)


def test_a_full_disk_everywhere(run: Run, undisturbed: FeatureStore) -> None:
    run.happen["full"] = ray.get_runtime_context().get_node_id()
    with pytest.raises(StoreError, match=r"No space left on device.*Free some space"):
        run()
    run.happen["full"] = None
    run()
    require_same(Path(run.job.store), undisturbed)


def test_a_machine_without_the_shared_folder_is_refused(run: Run, machines: Any) -> None:
    """It would write a store that nobody looks at."""
    added = machines.add_node(num_cpus=2, object_store_memory=100 << 20)
    try:
        run.happen |= {"elsewhere": added.node_id, "seconds": 2}  # not done before it is there
        # By where the first worker happens to be.
        words = r"store is (another folder on \S+ than here|not there on this machine)"
        with pytest.raises(UsageError, match=words):
            run(actors=4)
    finally:
        machines.remove_node(added)


def test_a_machine_goes_away(run: Run, machines: Any, undisturbed: FeatureStore) -> None:
    added = machines.add_node(num_cpus=2, object_store_memory=100 << 20)
    run.happen["seconds"] = 0.1
    gone = []

    def report(tally: Tally, workers: int) -> None:
        if tally.stored and not gone:
            gone.append(added)
            machines.remove_node(added, allow_graceful=False)

    run(actors=4, report=report)
    assert gone
    require_same(Path(run.job.store), undisturbed)


def test_what_ends_a_run_at_once(run: Run, tmp_path: Path) -> None:
    with pytest.raises(AudioError, match=r"broken\.wav"):
        run(strict=True)
    run.job = Job(store=run.job.store, model=run.job.model, settings={"pools": "max"})
    with pytest.raises(FingerprintMismatch):
        run()
    with pytest.raises(UsageError, match="audio in memory"):
        extract_on_ray({"a": np.zeros(16_000)}, run.job)


def test_rows_of_a_ray_dataset(
    corpus: Path, two_layers: Path, undisturbed: FeatureStore, machines: Any
) -> None:
    import ray.data

    from exhubert_features.integrations.ray_data import ExHuBERTActor

    names = ["00.wav", "01.wav", "broken.wav"]
    rows = [{"id": name, "bytes": (corpus / name).read_bytes()} for name in names]
    settings = {"source": str(two_layers), "device": "cpu", "layer": 1}
    mapped = ray.data.from_items(rows).map_batches(
        ExHuBERTActor, fn_constructor_kwargs=settings, batch_size=2, concurrency=1
    )
    found = {row["id"]: row for row in mapped.drop_columns(["bytes"]).take_all()}
    wanted = undisturbed.matrix(layer=1)
    for name in names[:2]:
        row = undisturbed.ids.index(name)
        np.testing.assert_allclose(found[name]["features"], wanted[row], atol=2e-3)
        assert found[name]["error"] == ""
    assert np.isnan(found["broken.wav"]["features"]).all()
    assert "could not be loaded" in found["broken.wav"]["error"]


def test_rows_of_samples(corpus: Path, two_layers: Path, undisturbed: FeatureStore) -> None:
    """The same without Ray: arrays, and a rate in each row."""
    from exhubert_features.integrations.ray_data import ExHuBERTActor

    actor = ExHuBERTActor(
        source=str(two_layers), device="cpu", layer=1, column="samples", rate="rate"
    )
    waves = [soundfile.read(corpus / name, dtype="float32")[0] for name in ("00.wav", "01.wav")]
    samples = np.empty(2, object)
    samples[:] = waves
    made = actor({"samples": samples, "rate": np.array([16_000, 16_000])})
    wanted = undisturbed.matrix(layer=1)[[undisturbed.ids.index(f"0{n}.wav") for n in (0, 1)]]
    np.testing.assert_allclose(made["features"], wanted, atol=2e-3)
    assert made["error"].tolist() == ["", ""]


def test_without_ray(corpus: Path, options: list[str], tmp_path: Path) -> None:
    (tmp_path / "ray.py").write_text("raise ModuleNotFoundError('no ray', name='ray')")
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}:{ROOT}"}
    command = ["extract", str(corpus), "-o", str(tmp_path / "s"), *options, "--engine", "ray"]
    done = subprocess.run(
        [sys.executable, "-m", "exhubert_features", *command],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert "pip install 'exhubert-features[ray]'" in done.stderr
    assert not (tmp_path / "s").exists()
