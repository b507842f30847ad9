"""Standard output and error as commands write to them: a terminal obeys nothing out of a file."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import sys
from collections.abc import Iterator
from typing import Any, TextIO

from ..tables import harmless


class _SafeStream:
    """A text stream that passes on only harmless text, and whose errors say its name.

    Parameters
    ----------
    stream
        What to write to.
    name
        What errors call it.
    quiet
        Drop what cannot be written, instead of raising.
    """

    def __init__(self, stream: TextIO, name: str, *, quiet: bool = False) -> None:
        self._stream = stream
        self._name = name
        self._quiet = quiet

    def write(self, text: str) -> int:
        """Write text; how much of it that was."""
        start = text[: text.startswith("\r")]  # where progress bars have it
        encoding = self._stream.encoding or "utf-8"
        shown = harmless(text[len(start) :]).encode(encoding, "backslashreplace").decode(encoding)
        with self._errors():
            self._stream.write(start + shown)
        return len(text)

    def flush(self) -> None:
        """Pass on what is still held."""
        with self._errors():
            self._stream.flush()

    def drop(self) -> None:
        """Forget what nobody takes: the flush at exit must not fail again."""
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self.drop()
            if not self._quiet:
                error.filename = self._name
                raise

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class _Closed(io.StringIO):
    """Standard output that was closed before we were started."""

    def write(self, text: str) -> int:
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))


@contextlib.contextmanager
def safe_output() -> Iterator[None]:
    """Let standard output and error be safe meanwhile.

    Where they were closed, their numbers are taken by nothing: a file opened later must not
    have what libraries tell the user written into it.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gives the lowest number that is free
    before = sys.stdout, sys.stderr
    output = _SafeStream(sys.stdout or _Closed(), "standard output")
    errors = _SafeStream(sys.stderr or io.StringIO(), "standard error", quiet=True)
    sys.stdout, sys.stderr = output, errors
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before
