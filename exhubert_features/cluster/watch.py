"""Whether a worker gets on with its block: one that hangs is found here, whatever it hangs in."""

from __future__ import annotations

import time
from typing import Any

import ray
from ray.exceptions import RayError

_LOOKS = 10  # in that time


class Watch:
    """Asks a worker now and then how far it is; one that does not answer has not got on.

    So a worker that cannot answer, as a library in it hangs and lets no other thread run, or that
    the network has lost, is found as well. Looks are counted, not time: when this process stands
    still for a while, nobody is blamed for it.

    Parameters
    ----------
    actor
        The worker, which is in :meth:`Worker.run`.
    seconds
        After so many without a move it is stuck.
    """

    def __init__(self, actor: Any, seconds: float) -> None:
        self._actor, self._pause = actor, seconds / _LOOKS
        self._looked = time.monotonic()
        self._asked: Any = None  # what it is to answer
        self._moves = self._still = 0  # and looks in a row without a move

    def stuck(self) -> bool:
        """Tell whether the worker has not got on for too long."""
        now = time.monotonic()
        if now - self._looked < self._pause:
            return False
        self._looked = now
        moves = self._heard()
        self._still = self._still + 1 if moves in (None, self._moves) else 0
        if moves is not None:
            self._moves, self._asked = moves, None
        if self._asked is None:
            self._asked = self._actor.moves.remote()
        return self._still >= _LOOKS

    def _heard(self) -> int | None:
        """Give what it said; None when it said nothing."""
        if self._asked is None:
            return None
        try:
            return int(ray.get(self._asked, timeout=0))
        except RayError:  # not yet, or never: then its block tells that it died
            return None
