"""Where a write stands, and how it is shown."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tqdm import tqdm

from ..records import ClipFailure, PlannedClip


@dataclass(frozen=True, kw_only=True)
class WriteProgress:
    """Where a write stands after one more clip."""

    total: int  # clips tried so far
    present: int  # of these, in the store already
    stored: int  # of these, done in this run
    failed: int  # in this run
    clip: PlannedClip | None  # the one just done; None for plain rows
    failure: ClipFailure | None = None  # why it was not stored, where it failed


Report = Callable[[WriteProgress], None]


@contextlib.contextmanager
def bar(shown: bool) -> Iterator[Report]:
    """Give what draws progress on stderr, or nothing."""
    with tqdm(unit="clip", disable=not shown) as drawn:

        def report(state: WriteProgress) -> None:
            drawn.set_postfix(failed=state.failed, refresh=False)
            drawn.update(state.total - state.present - drawn.n)

        yield report
