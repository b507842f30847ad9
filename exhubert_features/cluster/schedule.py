"""Which block of clips is next, and what happens to one whose worker died."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice

from ..extraction import Entry
from ..records import ClipFailure

BLOCK_CLIPS = 256  # one shard; a worker that dies costs the others no more than this
# A lost worker is most often the machine's fault, not the clip's: once is no proof.
TRIES = 3


@dataclass(frozen=True)
class Block:
    """Clips that one worker does and commits together; ``losses`` counts workers lost on them."""

    entries: tuple[Entry | ClipFailure, ...]
    losses: int = 0


class Schedule:
    """Deals out blocks, so that each clip ends as done or as a named failure.

    A block whose worker died is tried again whole, once; if that worker dies, too, it is halved
    and its halves go on separately, so that a clip which kills its worker (a crash in a decoder,
    memory) is found in as many deaths as its block can be halved. Alone and ``TRIES`` deaths
    later it is given up.

    Parameters
    ----------
    entries
        What there is to do; taken as blocks are asked for, never all at once.
    clips
        In a block.
    """

    def __init__(self, entries: Iterable[Entry | ClipFailure], clips: int = BLOCK_CLIPS) -> None:
        self._new = _blocks(entries, clips)
        self._again: deque[Block] = deque()

    def next(self) -> Block | None:
        """Give the next block to do; None when there is none (now: one under way may come back)."""
        if self._again:
            return self._again.popleft()
        return next(self._new, None)

    def lost(self, block: Block, reason: str) -> ClipFailure | None:
        """Take back a block whose worker died; a clip that is given up comes as its failure."""
        losses = block.losses + 1
        if len(block.entries) == 1:
            if losses >= TRIES:
                return _given_up(block.entries[0], losses, reason)
            self._again.append(replace(block, losses=losses))
        elif losses < 2:
            self._again.append(replace(block, losses=losses))
        else:
            middle = len(block.entries) // 2
            # Once: a half that loses another worker is halved at once.
            self._again.append(Block(block.entries[:middle], 1))
            self._again.append(Block(block.entries[middle:], 1))
        return None


def _blocks(entries: Iterable[Entry | ClipFailure], clips: int) -> Iterator[Block]:
    remaining = iter(entries)
    while chunk := tuple(islice(remaining, clips)):
        yield Block(chunk)


def _given_up(entry: Entry | ClipFailure, losses: int, reason: str) -> ClipFailure:
    if isinstance(entry, ClipFailure):
        return entry
    seconds = (0.0, None) if entry.in_samples else (entry.start, entry.end)
    return ClipFailure(
        id=entry.id,
        file=entry.file,
        start=seconds[0],
        end=seconds[1],
        kind="crash",
        reason=f"{entry.file} alone ended {losses} workers ({reason}). Check the file, or the "
        "memory that a worker has.",
    )
