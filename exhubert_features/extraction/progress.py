"""What a long run shows of itself on stderr: how far it is, how fast, how long still."""

from __future__ import annotations

import shutil
import sys
import time
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from tqdm import tqdm

LINE_SECONDS = 30.0  # between lines where there is no terminal to draw a bar on
SETTLED_SECONDS = 10.0  # of measuring before a guess at the time left is worth showing
SETTLED_SHARE = 0.1  # of the work, the same
SLOWEST = 0.1  # clips a second; of less than that, seconds of audio tell more


class Progress:
    """A bar on a terminal, a line every 30 s elsewhere; time is judged by seconds of audio.

    Speed is measured from the first piece of audio that is done, as the model warms up on it.

    Parameters
    ----------
    clips, seconds
        How much there is to do; None and 0 where nobody knows.
    shown
        False for nothing at all.
    stream
        Where to show it; stderr by default.
    """

    def __init__(
        self, clips: int | None, seconds: float, *, shown: bool = True, stream: TextIO | None = None
    ) -> None:
        self.failed = 0
        self._clips, self._seconds = clips, seconds
        self._done = 0
        self._audio = 0.0
        self._shown = shown and clips != 0
        self._stream = stream or sys.stderr
        self._last_line = time.monotonic()
        self._begun: tuple[float, float, int] | None = None  # time, audio, clips
        self._bar = _open_bar(seconds, self._stream) if self._shown and clips else None

    def update(self, seconds: float = 0.0, *, clips: int = 0, failed: int = 0) -> None:
        """Count audio that the model is through with, and clips that are finished."""
        self._done += clips
        self.failed += failed
        self._audio += seconds
        if self._clips is not None:
            self._audio = min(self._audio, self._seconds)  # headers are not exact
        now = time.monotonic()
        if self._begun is None and self._audio:
            self._begun = (now, self._audio, self._done)
        if self._bar is not None:
            self._bar.set_description_str(self._state(), refresh=False)
            self._bar.update(self._audio - self._bar.n)
        elif self._shown and now - self._last_line >= LINE_SECONDS:
            self._last_line = now
            self._print()

    def close(self) -> None:
        """Leave the last state standing."""
        if self._bar is not None:
            self._bar.set_description_str(self._state())
            self._bar.close()
        elif self._shown and self._done:
            self._print()

    def _print(self) -> None:
        print(self._state(), file=self._stream, flush=True)

    def _state(self) -> str:
        of = "" if self._clips is None else f" of {self._clips:,}"
        parts = [f"{self._done:,}{of} clip{'' if self._clips == 1 else 's'}"]
        if self.failed:
            parts.append(f"{self.failed:,} failed")
        share = self._audio / self._seconds if self._seconds else 1.0
        if self._bar is None and self._clips == 1 and not self._done:
            parts.append(f"{100 * share:.0f} %")
        return ", ".join(parts + self._speed())

    def _speed(self) -> list[str]:
        """Clips and audio a second, and the time left; each only where it can be told."""
        if self._begun is None:
            return []
        begun, audio, clips = self._begun
        elapsed = time.monotonic() - begun
        heard = self._audio - audio
        if elapsed <= 0 or not heard:
            return []
        speed = heard / elapsed
        parts = [f"{speed:.1f}x real time"]
        pace = (self._done - clips) / elapsed
        if pace >= SLOWEST:
            parts.insert(0, f"{pace:.1f} clips/s")
        if self._clips is None:
            return parts
        settled = elapsed >= SETTLED_SECONDS or heard >= SETTLED_SHARE * self._seconds
        if settled and self._done < self._clips:
            parts.append(f"{_about((self._seconds - self._audio) / speed)} left")
        return parts


def _about(seconds: float) -> str:
    """Say how long, as people do.

    Examples
    --------
    >>> _about(20), _about(150), _about(7200)
    ('about 20 s', 'about 2 min', 'about 2.0 h')
    """
    if seconds < 55:
        step = 1 if seconds < 10 else 10
        return f"about {max(1, step * round(seconds / step))} s"
    minutes = round(seconds / 60)
    return f"about {minutes} min" if minutes < 100 else f"about {seconds / 3600:.1f} h"


def _open_bar(seconds: float, stream: TextIO) -> tqdm[Any] | None:
    """Open a bar where the stream is a terminal."""
    if not stream.isatty():
        return None
    from tqdm import tqdm

    # Not tqdm's own measure, which takes a terminal of unknown size for one of none.
    columns, lines = shutil.get_terminal_size()
    return tqdm(
        total=seconds,
        file=stream,
        bar_format="{percentage:3.0f}% |{bar}| {desc}",
        ncols=columns,
        nrows=lines,
    )
