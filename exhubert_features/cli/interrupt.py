"""How a long run is stopped."""

from __future__ import annotations

import signal
import sys
from types import FrameType


class Interrupt:
    """The first Ctrl-C asks for an orderly end, the second ends at once."""

    def __init__(self) -> None:
        self.requested = False

    def __enter__(self) -> Interrupt:
        self._before = signal.signal(signal.SIGINT, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGINT, self._before)

    def check(self, *_: object) -> None:
        """Raise KeyboardInterrupt if an end was asked for; whatever is passed is ignored."""
        if self.requested:
            raise KeyboardInterrupt

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.requested = True
        signal.signal(signal.SIGINT, signal.default_int_handler)
        print(
            "\nFinishing what is under way. Ctrl-C again stops at once.",
            file=sys.stderr,
            flush=True,
        )
