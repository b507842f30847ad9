"""Work by name: what a source asks for, clip by clip, before anything of the audio is read."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sized
from dataclasses import replace
from itertools import islice
from math import prod
from pathlib import Path

from ..errors import AudioError, UsageError
from ..records import ClipFailure, Entry, Item
from ..register import NameSet
from .manifest import UNSTORABLE, storable
from .parts import Part
from .saved import SavedPlan, save_plan
from .sources import Inputs, Source, read_source

CHECKED = 4096  # entries named at once, so that most mistakes in a source show before any work


class Plan:
    """What to do, in the order of the source; made by :func:`plan`.

    Iterating over it reads the source as it goes, row by row or folder by folder, and opens no
    audio. It gives an :class:`Entry` for each clip, whose ids are unique, and a
    :class:`ClipFailure` for what cannot be one. Ids are told apart by 64 bits of a hash, in 12
    to 36 bytes each: among ten million, two are taken for one with a chance of 3 in a million,
    and the second is then among the failures, not lost in silence.

    Parameters
    ----------
    source
        The entries, anew each time it is iterated over.
    parts
        Only the clips in all of these.

    Examples
    --------
    >>> entries = [Entry(id=f"{name}.wav", file=f"audio/{name}.wav") for name in "abcd"]
    >>> [[entry.id for entry in plan(entries).part(number, 2)] for number in (1, 2)]
    [['a.wav', 'd.wav'], ['b.wav', 'c.wav']]
    """

    def __init__(self, source: Iterable[Item], parts: tuple[Part, ...] = ()) -> None:
        self._source, self._parts = source, parts

    def __iter__(self) -> Iterator[Item]:
        # Those of a saved plan were told apart when it was written.
        ids = None if isinstance(self._source, SavedPlan) else _Ids()
        for entry in self._source:
            if not self.holds(entry.id):
                continue
            yield entry if ids is None or isinstance(entry, ClipFailure) else ids.claim(entry)

    def holds(self, name: str) -> bool:
        """Tell whether a clip of this id would be in all its parts."""
        return all(part.holds(name) for part in self._parts)

    def count(self) -> int:
        """Count the clips and the failures, by naming them all."""
        return sum(1 for _ in self)

    def about(self) -> int | None:
        """Tell how many clips there are, about, in seconds; None where the source is an iterator.

        Lines of tables and files in folders are counted, and parts taken to be equal.
        """
        source = self._source
        sized = isinstance(source, Sized)  # in memory
        count = len(source) if sized else source.about()  # type: ignore[arg-type, attr-defined]
        for part in self._parts:
            count = None if count is None else -(-count // part.count)
        return count

    @property
    def once(self) -> bool:
        """Whether it can be iterated over once only."""
        return isinstance(self._source, Inputs) and self._source.once

    @property
    def left_out(self) -> int:
        """How many files in folders were passed over so far: their names are not those of audio."""
        return getattr(self._source, "left_out", 0)

    def part(self, number: int, count: int) -> Plan:
        """Keep part ``number`` of ``count`` (from 1): the clips whose ids fall into it.

        The id alone decides, so parts stay what they are when clips come or go. A part can be
        dealt into parts again, also once it was saved and loaded.

        Parameters
        ----------
        number, count
            Which, and of how many.

        Returns
        -------
        Plan
            The same source, of which the other clips are passed over.
        """
        return Plan(self._source, (*self._parts, Part(number, count, earlier=self._dealt)))

    @property
    def _dealt(self) -> int:
        """Among how many parts its clips were dealt, also before it was saved."""
        saved = self._source.dealt if isinstance(self._source, SavedPlan) else 1
        return saved * prod(part.count for part in self._parts)

    def save(self, path: str | Path) -> int:
        """Write it to a file, entry by entry; what is named stays where it is.

        The file appears when it is whole. Loading it names the same clips without walking
        folders or reading manifests again, on any machine that knows the files by these names.

        Parameters
        ----------
        path
            A file; one that is there is replaced.

        Returns
        -------
        int
            How many clips and failures are in it.

        Raises
        ------
        UsageError
            When a clip is in memory and not in a file.
        """
        return save_plan(self, Path(path), self._dealt)

    @staticmethod
    def load(path: str | Path) -> Plan:
        """Open a saved plan, once all its bytes have been compared with their checksum.

        Parameters
        ----------
        path
            What :meth:`save` wrote.

        Returns
        -------
        Plan
            Of the same entries, in their order.

        Raises
        ------
        UsageError
            When it is another file, cut off, or not as it was written.
        """
        return Plan(SavedPlan(Path(path)))


def plan(source: Source | Plan, *, data_root: str | Path | None = None) -> Plan:
    """Name the clips of a source, without opening any of them.

    Parameters
    ----------
    source
        See :meth:`exhubert_features.Encoder.predict`; or entries of another plan, a block of it
        for example. An iterator is read once, as the plan is.
    data_root
        Takes the place of ``{data_root}`` in manifests, and holds relative files that are not
        beside them.

    Returns
    -------
    Plan
        What :meth:`exhubert_features.Encoder.extract` takes in place of a source.

    Examples
    --------
    >>> from exhubert_features import load_encoder, plan
    >>> encoder = load_encoder()
    >>> store = encoder.extract(plan("audio/").part(3, 64)).write("part-3-of-64")
    """
    if isinstance(source, Plan):
        return source
    named = Plan(read_source(source, data_root))
    if not named.once:
        for _ in islice(named, CHECKED):
            pass
    return named


def worker_count(workers: int | None) -> int:
    """Choose how many threads: those asked for, or one for each processor up to eight."""
    if workers is None:
        return min(8, os.cpu_count() or 1)
    if workers < 1:
        raise UsageError(f"workers is {workers}", expected="at least 1")
    return workers


class _Ids:
    """Ids taken so far."""

    def __init__(self) -> None:
        self._seen = NameSet()
        self._again: Counter[str] = Counter()

    def claim(self, entry: Entry) -> Item:
        """Give the entry, or why its id can be no clip's: under a name that shadows no other."""
        name = entry.id
        if not isinstance(name, str) or not name or UNSTORABLE.search(name):
            error = AudioError(
                f"the id {name!r} cannot be stored",
                expected="text without control characters",
                remedy="Rename the file, or give ids in a manifest",
                kind="id",
            )
            return _refused(entry, storable(name), error)
        if self._seen.add(name):
            return entry
        self._again[name] += 1
        times = self._again[name] + 1
        error = AudioError(
            f"the id {name!r} is there {times} times",
            expected="one clip for each id",
            remedy="Give ids in a manifest, or the folder that holds all inputs",
            kind="duplicate",
        )
        return _refused(entry, f"{name} ({times})", error)


def _refused(entry: Entry, name: str, error: AudioError) -> ClipFailure:
    clip = replace(entry.clip(), id=name, file=storable(entry.file))
    return clip.failure(error.kind, str(error))
