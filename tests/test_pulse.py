"""A Ray that dies: found in seconds, also by who waits for one of its answers."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator

import pytest

from exhubert_features.cluster.pulse import End, Pulse
from exhubert_features.errors import StoreError


@pytest.fixture
def server() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening


def end(server: socket.socket, patience: float = 0.0) -> End:
    return End("raylet", server.getsockname(), patience)


def test_one_that_is_there_and_gone(server: socket.socket) -> None:
    pulse = Pulse([end(server)])
    pulse.check()
    _, port = server.getsockname()
    server.close()
    with pytest.raises(StoreError, match=rf"its raylet at 127\.0\.0\.1:{port} is gone.*goes on"):
        pulse.check()
    Pulse().check()  # of a Ray whose processes are out of reach


def test_a_gcs_may_be_silent_for_a_while(server: socket.socket) -> None:
    pulse = Pulse([end(server, patience=0.3)])
    address = server.getsockname()
    server.close()
    pulse.check()
    time.sleep(0.4)
    with socket.create_server(address):
        pulse.check()  # it is back: what was before does not count
    pulse.check()
    time.sleep(0.4)
    with pytest.raises(StoreError):
        pulse.check()


def test_what_is_called_gives_its_answer_or_error(server: socket.socket) -> None:
    pulse = Pulse([end(server)])
    assert pulse.call(lambda: 1) == 1
    with pytest.raises(ZeroDivisionError):
        pulse.call(lambda: 1 // 0)
    assert pulse.call(lambda: time.sleep(1.2)) is None, "slow is not dead"


def test_what_never_returns_from_a_dead_ray_is_left(server: socket.socket) -> None:
    begun, called = time.monotonic(), threading.Event()

    def never() -> None:
        called.set()
        server.close()
        threading.Event().wait(60)

    with pytest.raises(StoreError, match="Ray died"):
        Pulse([end(server)]).call(never)
    assert called.is_set()
    assert time.monotonic() - begun < 10
