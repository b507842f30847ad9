"""Where workers run: a Ray cluster, one that is there or one started here, and its machines."""

from __future__ import annotations

import contextlib
import math
import os
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import wait
from dataclasses import dataclass
from typing import Any

from ..errors import MissingDependency, StoreError, UsageError
from .pulse import GO_ON, PATIENCE_SECONDS, End, Pulse, answers, in_background

_OBJECT_STORE_BYTES = 100 << 20  # names of clips go through it, features never do
# A clip or a layer of the model takes seconds, decoding an hour of audio some of them, gigabytes on
# a slow network minutes: what takes longer comes to no end.
STUCK_SECONDS = 600.0
_END_SECONDS = 30.0  # that Ray may take to end; 2 to 8 where one of its processes is dead
# Of a Ray that is started here, unless the user says otherwise.
_SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",  # nothing is told to anybody
    "RAY_worker_niceness": "0",  # Ray's 15 leaves nothing beside another busy process
}


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """Where the workers run.

    Parameters
    ----------
    address
        Of a Ray cluster (``auto``, ``host:6379``); None starts one in this machine, or
        takes what ``RAY_ADDRESS`` names.
    actors
        Workers; None is one for each GPU, or without GPUs one for each machine.
    gpus_per_actor
        May be a fraction, for several workers on one GPU; None is 1 where there are GPUs.
    stuck_seconds
        A worker that in so many seconds is through no clip, and no batch through a layer of the
        model, counts as dead, so that a clip in which it hangs is found and left out.
    """

    address: str | None = None
    actors: int | None = None
    gpus_per_actor: float | None = None
    stuck_seconds: float = STUCK_SECONDS

    def __post_init__(self) -> None:
        share = self.gpus_per_actor or 0.0
        actors = 1 if self.actors is None else self.actors
        if not (isinstance(actors, int) and actors >= 1 and 0 <= share < math.inf):
            raise UsageError(
                f"{self.actors} actors with {self.gpus_per_actor} GPUs each",
                expected="a whole number of at least 1, and no negative share of a GPU",
            )


@dataclass(frozen=True, kw_only=True)
class Places:
    """How many actors there shall be, what Ray is told of each, and when one is stuck."""

    actors: int
    options: dict[str, Any]
    stuck_seconds: float


@contextlib.contextmanager
def connected(cluster: Cluster) -> Iterator[tuple[Places, Pulse]]:
    """Have Ray running, one that the caller has started or a new one, which is ended.

    Parameters
    ----------
    cluster
        Where.

    Yields
    ------
    tuple of Places and Pulse
        Where the workers run, and whether Ray lives.
    """
    try:
        import ray
    except ModuleNotFoundError as error:
        raise MissingDependency(
            "Ray is not installed",
            remedy="pip install 'exhubert-features[ray]', on all machines of a cluster",
        ) from error
    ours = not ray.is_initialized()
    address = cluster.address or os.environ.get("RAY_ADDRESS")
    if ours:
        with _own_signals():
            _start(ray, address)
    try:
        pulse, machines = _look_around(ray, own=ours and address is None)
        yield share_out(cluster, machines), pulse
    finally:
        if ours:
            wait([in_background(ray.shutdown)], timeout=_END_SECONDS)


def _look_around(ray: Any, *, own: bool) -> tuple[Pulse, list[dict[str, float]]]:
    """Find what must stay alive, and the resources of all machines."""
    context = ray.get_runtime_context()
    host, _, port = context.gcs_address.rpartition(":")
    ends = [End("GCS", (host.strip("[]"), int(port)), 0.0 if own else PATIENCE_SECONDS)]
    # Ray's client is outside the cluster, whose processes may be out of its reach.
    ends = [end for end in ends if own or answers(end)]
    nodes = [node for node in Pulse(ends).call(ray.nodes) if node["Alive"]]
    here = context.get_node_id()
    raylets = [
        End("raylet", (node["NodeManagerAddress"], node["NodeManagerPort"]))
        for node in nodes
        if node["NodeID"] == here
    ]
    ends += [end for end in raylets if own or answers(end)]
    return Pulse(ends), [node["Resources"] for node in nodes]


@contextlib.contextmanager
def _own_signals() -> Iterator[None]:
    """Keep a handler of SIGTERM that is there: Ray puts its own in its place."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if callable(before) and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)


def _start(ray: Any, address: str | None) -> None:
    if address is None:
        for name, value in _SETTINGS.items():
            os.environ.setdefault(name, value)
        try:
            ray.init(
                address="local",  # a new one, also where another runs
                include_dashboard=False,
                log_to_driver=False,
                logging_level="ERROR",
                object_store_memory=_OBJECT_STORE_BYTES,
            )
        except Exception as error:  # Ray raises this very class
            raise StoreError(
                f"Ray did not start ({type(error).__name__}: {error})",
                expected="a Ray of this run's own on this machine",
                remedy=f"{GO_ON}. Ray's logs in /tmp/ray/session_latest/logs may say more",
            ) from error
        return
    try:
        ray.init(address=address, log_to_driver=False, logging_level="ERROR")
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise UsageError(
            f"no Ray cluster answers at {address} ({type(error).__name__}: {error})",
            expected="auto on one of its machines, or host:6379",
            remedy="`ray start --head` starts one, `ray start --address host:6379` adds a machine; "
            "where Ray asks for a token, set RAY_AUTH_MODE=token here, or use auto on one of them",
        ) from error


def share_out(cluster: Cluster, machines: Sequence[Mapping[str, float]]) -> Places:
    """Spread actors over machines; each gets its share of the processors.

    Parameters
    ----------
    cluster
        What was asked for.
    machines
        Ray's resources of each: ``CPU``, ``GPU``, ...
    """
    cpus = [int(machine["CPU"]) for machine in machines if machine.get("CPU", 0) >= 1]
    gpus = [machine.get("GPU", 0.0) for machine in machines]
    share = cluster.gpus_per_actor
    if share is None:
        share = 1.0 if sum(gpus) else 0.0
    if share > max(gpus, default=0.0):
        raise UsageError(
            f"{share:g} GPUs for each actor, and no machine of the cluster has more than "
            f"{max(gpus, default=0.0):g}",
            remedy="Choose another --gpus-per-actor, 0 for processors alone",
        )
    fitting = sum(int(there / share) for there in gpus) if share else len(cpus)
    actors = cluster.actors or max(1, fitting)
    on_one = -(-actors // max(1, len(cpus)))  # when they are spread
    threads = max(1, min(cpus, default=1) // on_one)
    # Ray gives each OMP_NUM_THREADS=num_cpus. Two calls at a time: run() and stop().
    options = {
        "num_gpus": share,
        "num_cpus": 1 if share else threads,
        "max_concurrency": 2,
        "scheduling_strategy": "SPREAD",
    }
    return Places(actors=actors, options=options, stuck_seconds=cluster.stuck_seconds)
