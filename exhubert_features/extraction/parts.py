"""Shares of one source, for machines that work on it at the same time."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from numbers import Integral

from ..errors import UsageError


@dataclass(frozen=True)
class Part:
    """Part ``number`` of ``count`` (from 1): a clip's id alone tells which part it is in.

    So every machine finds its own clips without asking the others, a clip stays in its part when
    others come or go, and clips of one id meet in one part, where they are noticed.

    The part is the remainder of the id's hash by ``count``. Clips of one part share that
    remainder, so parts of a part are made of the quotient.

    Parameters
    ----------
    number, count
        Which part, and of how many.
    earlier
        Among how many parts the clips were dealt before.

    Examples
    --------
    >>> [Part(number, 3).holds("a.wav") for number in (1, 2, 3)]
    [True, False, False]
    """

    number: int
    count: int
    earlier: int = 1

    def __post_init__(self) -> None:
        for name in ("number", "count"):
            value = getattr(self, name)
            if not isinstance(value, Integral):
                raise UsageError(
                    f"the part is {self.number!r} of {self.count!r}",
                    expected="whole numbers, such as 3 of 64",
                )
            object.__setattr__(self, name, int(value))  # numpy's have no room for the hash
        if not 1 <= self.number <= self.count:
            raise UsageError(
                f"the part is {self.number} of {self.count}", expected="such as 3/64: from 1 to 64"
            )

    def holds(self, name: str) -> bool:
        """Tell whether the clip of this id is in this part."""
        digest = hashlib.sha256(str(name).encode("utf-8", "surrogatepass")).digest()
        left = int.from_bytes(digest[:8], "big") // self.earlier
        return left % self.count == self.number - 1


def parse_part(text: str) -> Part:
    """Read ``3/64``."""
    match = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text.strip())
    if match is None:
        raise UsageError(f"the part is {text!r}", expected="such as 3/64: the third of 64")
    return Part(int(match[1]), int(match[2]))
