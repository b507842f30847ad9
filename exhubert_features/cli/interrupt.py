"""How a long run is stopped."""

from __future__ import annotations

import contextlib
import os
import signal
from types import FrameType

# SIGTERM is what schedulers send some seconds before they kill.
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def _at_once(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


class Interrupt:
    """The first Ctrl-C or SIGTERM asks for an orderly end, the second ends at once."""

    def __init__(self) -> None:
        self.requested = False

    def __enter__(self) -> Interrupt:
        self._before = {number: signal.signal(number, self._note) for number in _SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def check(self, *_: object) -> None:
        """Raise KeyboardInterrupt if an end was asked for; whatever is passed is ignored."""
        if self.requested:
            raise KeyboardInterrupt

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.requested = True
        signal.signal(number, _at_once)
        words = f"\nFinishing what is under way. {_name(number)} again stops at once.\n"
        with contextlib.suppress(OSError):
            os.write(2, words.encode())  # print() may be what was interrupted


def _name(number: int) -> str:
    return "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name
