"""Numbers and names for people."""

from __future__ import annotations

from collections.abc import Sequence

FORMULAS = (  # help of --formulas
    "leave names that a spreadsheet would run (=, +, -, @ first) as they are; in a CSV or TSV "
    "file an apostrophe is put before them otherwise"
)


def count(number: int, noun: str) -> str:
    """``1 clip``, ``2,000 clips``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def duration(seconds: float) -> str:
    """``12.3 s``, ``45.6 min``, ``7.89 h``."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 3600 else f"{seconds / 3600:.2f} h"


def size(count: float) -> str:
    """``12.3 MB``, in powers of a thousand."""
    for unit in ("bytes", "KB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} bytes" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def printable(text: object) -> str:
    """Text with escapes for what a terminal refuses, obeys or hides.

    Undecodable bytes of file names, control characters, marks that turn the writing direction.

    Examples
    --------
    >>> printable("caf\u00e9 \x1b[2J \u202e")
    'caf\xe9 \\\\x1b[2J \\\\u202e'
    """
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode()
        for letter in str(text)
    )


def some(names: Sequence[str], shown: int) -> str:
    """Give the first few names, quoted, and how many more there are."""
    more = f" and {len(names) - shown:,} more" if len(names) > shown else ""
    return printable(", ".join(map(repr, names[:shown]))) + more
