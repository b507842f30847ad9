"""The table of all rows of a store, out of those of its shards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from .opening import ShardFile, ShardTable, split_words
from .shard import NUMBERS, TEXT


@dataclass
class Catalog:
    """All rows of all shards, in shard order; ``live`` are those not replaced since.

    Text columns stay joined by NUL until somebody asks: 100,000 ids decode in milliseconds,
    but most readers never look at most columns.
    """

    tables: tuple[ShardTable, ...]
    live: np.ndarray
    shards: tuple[ShardFile, ...] = field(init=False)
    first: np.ndarray = field(init=False)  # (shards + 1,) first row of each shard
    numbers: dict[str, np.ndarray] = field(init=False)
    _words: dict[str, list[str]] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self.shards = tuple(table.place for table in self.tables)
        self.first = np.cumsum([0, *(shard.rows for shard in self.shards)], dtype=np.int64)
        self.numbers = {
            name: np.concatenate([np.empty(0, dtype), *(t.numbers[name] for t in self.tables)])
            for name, (dtype, *_) in NUMBERS.items()
        }

    def joined(self, name: str) -> bytes:
        """One text column, all rows, words joined by NUL."""
        return b"\0".join(table.text[name] for table in self.tables if table.place.rows)

    def text(self, name: str) -> list[str]:
        """One text column, all rows."""
        if name not in self._words:
            self._words[name] = split_words(self.joined(name), int(self.first[-1]))
        return self._words[name]

    def column(self, name: str) -> list[Any]:
        """One column of the rows that count."""
        if name in self.numbers:
            return self.numbers[name][self.live].tolist()
        words = self.text(name)
        return words[:] if len(words) == len(self.live) else [words[row] for row in self.live]

    @cached_property
    def rows(self) -> dict[str, int]:
        """Where each row that counts stands among all, by id."""
        return dict(zip(self.column("id"), self.live.tolist(), strict=True))

    def frame_counts(self) -> np.ndarray:
        """How many frames each row that counts has, (N,)."""
        ends = self.numbers["frame_end"]
        counts = np.diff(ends, prepend=0)
        firsts = self.first[:-1][np.diff(self.first) > 0]
        counts[firsts] = ends[firsts]  # ends count from the beginning of each shard
        return counts[self.live]

    def __getstate__(self) -> dict[str, Any]:
        # The lookup table is quicker to build than to send.
        return {key: value for key, value in self.__dict__.items() if key != "rows"}

    def equals(self, other: Catalog) -> bool:
        """Whether two catalogs say the same."""
        return (
            self.shards == other.shards
            and np.array_equal(self.live, other.live)
            and all(self.joined(name) == other.joined(name) for name in TEXT)
            and all(np.array_equal(self.numbers[name], other.numbers[name]) for name in NUMBERS)
        )


def join_tables(tables: Sequence[ShardTable]) -> Catalog:
    """One catalog out of shards; the newest shard that holds a clip wins."""
    catalog = Catalog(tuple(tables), np.empty(0, np.int64))
    clips = catalog.text("clip_id")
    owners = np.repeat(np.arange(len(tables)), np.diff(catalog.first)).tolist()
    newest = dict(zip(clips, owners, strict=True))  # the last one stays
    live = [newest[clip] == owner for clip, owner in zip(clips, owners, strict=True)]
    catalog.live = np.flatnonzero(live)
    return catalog
