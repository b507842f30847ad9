"""Whether the Ray under a run is alive: calls of a dead one may never return."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from typing import NamedTuple, TypeVar

from ..errors import StoreError

Given = TypeVar("Given")
LOOK_SECONDS = 1.0  # between looks
ANSWER_SECONDS = 2.0  # for a machine to take a connection
# A GCS may be restarted, and Ray waits for it. After 60 s Ray ends the whole process, so before.
PATIENCE_SECONDS = 20.0
GO_ON = "Run the same command again: it goes on where it stopped"


class End(NamedTuple):
    """A process of Ray, and for how many seconds it may be silent."""

    name: str
    address: tuple[str, int]
    patience: float = 0.0


class Pulse:
    """Looks whether those processes of Ray are there without which a run comes to no end.

    Ray does not tell when the raylet on this machine dies, and of a dead GCS it says nothing for
    a minute, to end the whole process then.

    Parameters
    ----------
    ends
        The processes.
    """

    def __init__(self, ends: Sequence[End] = ()) -> None:
        self._ends = ends
        self._silent: dict[End, float] = {}  # since when
        self._looked = time.monotonic()

    def check(self) -> None:
        """Raise a StoreError when Ray has died."""
        self._looked = time.monotonic()
        for end in self._ends:
            if answers(end):
                self._silent.pop(end, None)
                continue
            now = time.monotonic()
            if now - self._silent.setdefault(end, now) >= end.patience:
                host, port = end.address
                raise StoreError(
                    f"Ray died during the run: its {end.name} at {host}:{port} is gone",
                    expected="one that lives until the end",
                    remedy=f"{GO_ON}. Ray's logs may say why it died; often memory ran out",
                )

    def look(self) -> None:
        """Check, unless that was just done."""
        if time.monotonic() - self._looked >= LOOK_SECONDS:
            self.check()

    def call(self, do: Callable[[], Given]) -> Given:
        """Have something done that never returns when Ray dies meanwhile; then raise instead.

        Parameters
        ----------
        do
            Runs in a thread, which is left behind when Ray has died.
        """
        self.look()
        task = in_background(do)
        while not wait([task], timeout=LOOK_SECONDS).done:
            self.check()
        return task.result()


def answers(end: End) -> bool:
    """Tell whether a process takes connections.

    Parameters
    ----------
    end
        The process.
    """
    try:
        socket.create_connection(end.address, timeout=ANSWER_SECONDS).close()
    except OSError:
        return False
    return True


def in_background(do: Callable[[], Given]) -> Future[Given]:
    """Have something done in a thread that holds up nothing, not even the end of the process.

    Parameters
    ----------
    do
        What it returns or raises, the future gives.
    """
    task: Future[Given] = Future()

    def run() -> None:
        try:
            task.set_result(do())
        except BaseException as error:  # noqa: BLE001  (raised where somebody waits for it)
            task.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return task
