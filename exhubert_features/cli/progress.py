"""What a long run shows of itself on stderr, and how it is stopped."""

from __future__ import annotations

import shutil
import signal
import sys
import time
from types import FrameType
from typing import TextIO

LINE_SECONDS = 30.0  # between lines where there is no terminal to draw a bar on


class Progress:
    """A bar on a terminal, a line every 30 s elsewhere; time is judged by seconds of audio.

    Parameters
    ----------
    clips, seconds
        How much there is to do.
    stream
        Where to show it; stderr by default.
    """

    def __init__(self, clips: int, seconds: float, *, stream: TextIO | None = None) -> None:
        self._clips, self._seconds = clips, seconds
        self._done = self._failed = 0
        self._audio = 0.0
        self._stream = stream or sys.stderr
        self._started = self._shown = time.monotonic()
        self._bar = None
        if self._stream.isatty():
            from tqdm import tqdm

            # Not tqdm's own measure, which takes a terminal of unknown size for one of none.
            columns, lines = shutil.get_terminal_size()
            self._bar = tqdm(
                total=seconds,
                file=self._stream,
                bar_format="{percentage:3.0f}% |{bar}| {desc}",
                ncols=columns,
                nrows=lines,
            )

    def update(self, seconds: float, *, failed: bool) -> None:
        """Count one clip of so many seconds."""
        self._done += 1
        self._failed += failed
        self._audio += seconds
        if self._bar is not None:
            self._bar.set_description_str(self._state(), refresh=False)
            self._bar.update(seconds)
        elif time.monotonic() - self._shown >= LINE_SECONDS:
            self._shown = time.monotonic()
            print(self._state(), file=self._stream, flush=True)

    def close(self) -> None:
        """Leave the last state standing."""
        if self._bar is not None:
            self._bar.close()
        elif self._done:
            print(self._state(), file=self._stream, flush=True)

    def _state(self) -> str:
        elapsed = max(time.monotonic() - self._started, 1e-9)
        speed = self._audio / elapsed
        left = (self._seconds - self._audio) / speed if speed else 0.0
        failed = f", {self._failed:,} failed" if self._failed else ""
        return (
            f"{self._done:,} of {self._clips:,} clips{failed}, {self._done / elapsed:.1f} clips/s, "
            f"{speed:.1f}x real time, {_clock(left)} left"
        )


class Interrupt:
    """The first Ctrl-C asks for an orderly end, the second ends at once."""

    def __init__(self) -> None:
        self.requested = False

    def __enter__(self) -> Interrupt:
        self._before = signal.signal(signal.SIGINT, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGINT, self._before)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.requested = True
        signal.signal(signal.SIGINT, signal.default_int_handler)
        print(
            "\nFinishing what is under way. Ctrl-C again stops at once.",
            file=sys.stderr,
            flush=True,
        )


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"
