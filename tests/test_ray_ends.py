"""The command with ``--engine ray`` comes to an end, or its Ray does: the same command goes on."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest
import soundfile
from ray_runs import (
    OPTIONS,
    extract,
    gone,
    kill_one,
    members,
    require_an_error,
    require_same,
    wait_for_shards,
    write_corpus,
)
from waves import noise

from exhubert_features import FeatureStore
from exhubert_features.cli import main
from exhubert_features.store.verify import verify

pytest.importorskip("ray", reason="needs the extra [ray]")
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


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_an_end_of_the_command(
    number: int, corpus: Path, options: list[str], undisturbed: FeatureStore, tmp_path: Path
) -> None:
    """With a Ray of its own: Ctrl-C is for all of its processes, other ends for the command."""
    store = tmp_path / "store"
    process = extract(corpus, store, options)
    wait_for_shards(store, 2, process)
    if number == signal.SIGINT:
        os.killpg(process.pid, number)
    else:
        process.send_signal(number)
    _, said = process.communicate(timeout=120)
    if number != signal.SIGKILL:
        assert process.returncode == 130, said
        assert "Run the same command again" in said and "Traceback" not in said
    assert gone(process.pid), members(process.pid)
    again = extract(corpus, store, options)
    _, said = again.communicate(timeout=300)
    assert again.returncode == 3, said
    require_same(store, undisturbed)


@pytest.mark.parametrize(
    ("name", "words", "shards"),
    [
        ("raylet", "raylet/raylet", 0),
        ("raylet", "raylet/raylet", 2),
        ("GCS", "gcs_server", 0),
        ("GCS", "gcs_server", 2),
    ],
)
def test_an_end_of_its_ray(
    name: str,
    words: str,
    shards: int,
    corpus: Path,
    options: list[str],
    undisturbed: FeatureStore,
    tmp_path: Path,
) -> None:
    """Ray dies under the command, before the first worker is there or later."""
    store = tmp_path / "store"
    process = extract(corpus, store, options)
    if shards:
        wait_for_shards(store, shards, process)
    else:
        while not any("ray::Worker" in line for line in members(process.pid)):
            assert process.poll() is None, process.communicate()
            time.sleep(0.1)
    kill_one(process.pid, words)
    require_an_error(process, 45, name)
    assert gone(process.pid), members(process.pid)
    again = extract(corpus, store, options)
    _, said = again.communicate(timeout=300)
    assert again.returncode == 3, said
    require_same(store, undisturbed)


def test_an_end_of_the_head(options: list[str], tmp_path: Path) -> None:
    """The same with a cluster that others run, and more to do than while Ray waits for its GCS."""
    from ray.cluster_utils import Cluster as LocalCluster

    corpus, store = tmp_path / "audio", tmp_path / "store"
    corpus.mkdir()
    for index in range(2_000):
        soundfile.write(corpus / f"{index}.wav", noise(4_000, index), 16_000)
    settings = {"num_cpus": 2, "object_store_memory": 100 << 20, "include_dashboard": False}
    local = LocalCluster(initialize_head=True, head_node_args=settings)
    try:
        process = extract(corpus, store, options, "--address", local.address)
        wait_for_shards(store, 1, process)
        local.head_node.kill_gcs_server()
        require_an_error(process, 60, "GCS")
    finally:
        local.shutdown()
    assert verify(store, deep=True).problems == ()
    assert FeatureStore(store).ids
