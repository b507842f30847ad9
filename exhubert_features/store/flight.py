"""What a writer has in hand, for the next to know should it be killed: one bad clip kills once.

A clip that takes more memory than there is, or crashes a decoder, kills the process without a
word, and would again. So what was in hand at a kill is left to the end and done one by one; a
clip that was alone in hand at a kill is the one, and is left out.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import TypeVar

from ..errors import StoreError
from ..files import abandoned_files, temporary_file
from ..records import ClipFailure, Item, PlannedClip
from .journal import IN_HAND

Result = TypeVar("Result")
KILLED = "killed"  # the kind of a failure
_MOST = 1000  # clips noted: an extraction holds some hundred; another source may take all at once


class Flight:
    """Clips in hand, noted in a file that outlasts its writer only when that is killed.

    Such a file stays until a writer that was asked for its clips is through them: writers of other
    parts, which begin meanwhile, let it be.

    Parameters
    ----------
    store
        Folder of the store.

    Attributes
    ----------
    suspects
        Ids of clips that were in hand at a kill.
    guilty
        Ids of clips that were alone in hand at a kill.
    hand
        Ids in hand, in the order in which they were taken.
    """

    def __init__(self, store: Path) -> None:
        self._path = store / IN_HAND
        self._descriptor = -1
        self.hand: dict[str, None] = {}
        self._alone = ""
        self._left: dict[Path, set[str]] = {}  # by killed writers, and the clips to try again
        accused = Counter[str]()
        for path, dead in abandoned_files(self._path).items():
            alone, hand = _read(path)
            if not (dead or alone or hand):
                continue  # it may be alive, and has just begun
            self._left[path] = {*hand, alone} - {""}
            # One that may be alive is no proof. Where two left it, one has died of it.
            accused[alone] += 2 if dead else 1
        self.settle("")  # where nothing was in hand
        self.guilty = {name for name, count in accused.items() if name and count > 1}
        self.suspects = set[str]().union(*self._left.values()) - self.guilty

    @contextlib.contextmanager
    def begun(self) -> Iterator[None]:
        """Keep the file meanwhile, where one can be written: it helps, and nothing rests on it."""
        held = contextlib.ExitStack()
        with contextlib.suppress(StoreError):
            self._descriptor, _ = held.enter_context(temporary_file(self._path))
        self._note()
        try:
            yield
        finally:  # not told of errors of the work that went on: they are none of this file's
            held.close()

    def watch(self, entries: Iterable[Item]) -> Iterator[Item]:
        """Hand entries on, each noted before it is begun."""
        for entry in entries:
            self.hand[entry.id] = None
            self._note()
            yield entry

    def alone(self, entry: Item) -> Iterator[Item]:
        """Hand on one entry, while no other is in hand."""
        self.hand[entry.id] = None
        self._alone = entry.id
        self._note()
        yield entry

    def through(
        self, results: Iterable[tuple[PlannedClip, Result]]
    ) -> Iterator[tuple[PlannedClip, Result]]:
        """Hand results on, and forget each clip that is through; the next note leaves it out."""
        for clip, result in results:
            yield clip, result
            self.hand.pop(clip.id, None)
            self.suspects.discard(clip.id)
            self.settle(clip.id)
            if self._alone:
                self._alone = ""
                self._note()

    def settle(self, name: str) -> None:
        """Take a clip off the lists: it is stored, or a failure by now."""
        for path, names in [*self._left.items()]:
            names.discard(name)
            if not names:
                del self._left[path]
                with contextlib.suppress(OSError):
                    path.unlink(missing_ok=True)

    def _note(self) -> None:
        # Of this run alone: what earlier ones had in hand is in their own files still.
        hand = [*islice(reversed(self.hand), _MOST)]
        text = json.dumps({"alone": self._alone, "hand": hand}).encode()
        with contextlib.suppress(OSError):
            os.pwrite(self._descriptor, text.ljust(os.fstat(self._descriptor).st_size), 0)


def left_out(clip: PlannedClip) -> ClipFailure:
    """Give the failure of a clip that killed the process."""
    return clip.failure(
        KILLED,
        f"{clip.file or clip.id} was alone in work when the process was killed, most likely for "
        "want of memory, and is left out. Cut it into parts with start and end columns in a "
        "manifest, or run the same command again to try it once more.",
    )


def _read(path: Path) -> tuple[str, list[str]]:
    try:
        noted = json.loads(path.read_bytes())
        return str(noted["alone"]), [str(name) for name in noted["hand"]]
    except (OSError, ValueError, KeyError, TypeError):  # killed while it noted
        return "", []
