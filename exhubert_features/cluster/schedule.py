"""Which block of clips is next, and what happens to one whose worker died."""

from __future__ import annotations

from collections import deque
from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice

from ..records import ClipFailure, Entry, Item
from ..store.flight import KILLED

# A lost worker is most often the machine's fault, not the clip's: once is no proof.
TRIES = 3


@dataclass(frozen=True, eq=False)
class Block:
    """Clips that one worker does and commits; ``losses`` counts workers that died of them."""

    entries: tuple[Item, ...]
    losses: int = 0


class Schedule:
    """Deals out blocks, so that each clip ends as done or as a named failure.

    A block whose worker died is tried again whole, once; if that worker dies, too, it is halved
    and its halves go on separately, so that a clip which kills its worker (a crash in a decoder,
    memory) is found within log2(clips) + 3 deaths. Alone and ``TRIES`` deaths later it is given up.

    Parameters
    ----------
    entries
        What there is to do; taken as blocks are asked for, never all at once.
    clips
        In a block.
    suspects
        Ids of clips that killed workers in an earlier run: they come last, each alone, once.
    """

    def __init__(
        self,
        entries: Iterable[Item],
        clips: int,
        suspects: Container[str] = (),
    ) -> None:
        self._late: deque[Block] = deque()
        self._again: deque[Block] = deque()
        self._new = _blocks(self._innocent(entries, suspects), clips)
        self._ahead = next(self._new, None)  # one read ahead tells whether there are more

    def __bool__(self) -> bool:
        """Whether there is a block to do; one under way may still come back."""
        return bool(self._again or self._ahead or self._late)

    def next(self) -> Block | None:
        """Give the next block to do, None when there is none now."""
        if self._again:  # before new ones: a bad clip is found while workers are alive
            return self._again.popleft()
        if self._ahead:
            block, self._ahead = self._ahead, next(self._new, None)
            return block
        return self._late.popleft() if self._late else None

    def back(self, block: Block) -> None:
        """Take back a block that is not to blame for its worker's end."""
        self._again.append(block)

    def lost(self, block: Block, reason: str) -> ClipFailure | None:
        """Take back a block whose worker died; a clip that is given up comes as its failure."""
        losses = block.losses + 1
        if len(block.entries) == 1:
            if losses >= TRIES:
                return _given_up(block.entries[0], reason)
            self._again.append(replace(block, losses=losses))
        elif losses < 2:
            self._again.append(replace(block, losses=losses))
        else:
            middle = len(block.entries) // 2
            # One loss: a half that loses another worker is halved at once.
            self._again.append(Block(block.entries[:middle], 1))
            self._again.append(Block(block.entries[middle:], 1))
        return None

    def _innocent(self, entries: Iterable[Item], suspects: Container[str]) -> Iterator[Item]:
        for entry in entries:
            if isinstance(entry, Entry) and entry.id in suspects:
                self._late.append(Block((entry,), TRIES - 1))
            else:
                yield entry


def _blocks(entries: Iterable[Item], clips: int) -> Iterator[Block]:
    remaining = iter(entries)
    while chunk := tuple(islice(remaining, clips)):
        yield Block(chunk)


def _given_up(entry: Item, reason: str) -> ClipFailure:
    if isinstance(entry, ClipFailure):  # its own reason is the better one
        return entry
    start, end = (0.0, None) if entry.in_samples else (entry.start, entry.end)
    return ClipFailure(
        id=entry.id,
        file=entry.file,
        start=start,
        end=end,
        kind=KILLED,
        reason=f"{entry.file} was alone in work when its worker ended ({reason}), and is left "
        "out. Cut it into parts with start and end columns in a manifest, give workers more "
        "memory, or run the same command again to try it once more.",
    )
