"""Many names in little memory: a set, and a map to numbers, at some bytes a name."""

from __future__ import annotations

from array import array
from collections.abc import Hashable

_FEWEST = 1 << 10  # places
_MASK = (1 << 64) - 1


class NameSet:
    """Names by 64 bits of their hash: 12 to 24 bytes each, and half as much again to grow.

    Two names are taken for one with a chance of 3e-6 in ten million names: what uses it must
    then say so, or do some work twice, but not lose anything. The hash is another in each
    process, so nobody can choose names that collide.

    Parameters
    ----------
    expected
        How many there will be, to grow less often.
    """

    def __init__(self, expected: int = 0) -> None:
        size = _FEWEST
        while 2 * size < 3 * expected:
            size *= 2
        self._count = 0
        self._columns = self._empty(size)

    def add(self, name: Hashable) -> bool:
        """Take a name; False when it is there already."""
        return self._put(_key(name))

    def __contains__(self, name: Hashable) -> bool:
        key, keys = _key(name), self._columns[0]
        return keys[_place(keys, key)] == key

    def __len__(self) -> int:
        return self._count

    def _empty(self, size: int) -> tuple[array[int], ...]:
        return (_zeros(size),)

    def _put(self, key: int) -> bool:
        keys = self._columns[0]
        place = _place(keys, key)
        if keys[place]:
            return False
        keys[place] = key
        self._count += 1
        if 3 * self._count > 2 * len(keys):
            self._grow()
        return True

    def _grow(self) -> None:
        columns = self._empty(2 * len(self._columns[0]))
        for row in zip(*self._columns, strict=True):
            if row[0]:
                place = _place(columns[0], row[0])
                for column, value in zip(columns, row, strict=True):
                    column[place] = value
        self._columns = columns  # in one step: other threads may be reading


class NameMap(NameSet):
    """Names with a number of 64 bits each: twice the memory of a :class:`NameSet`.

    Any thread may read while one writes.
    """

    def get(self, name: Hashable) -> int | None:
        """Give the number of a name; None when it is not there."""
        key = _key(name)
        keys, numbers = self._columns
        place = _place(keys, key)
        return numbers[place] if keys[place] == key else None

    def __setitem__(self, name: Hashable, number: int) -> None:
        key = _key(name)
        keys, numbers = self._columns
        numbers[_place(keys, key)] = number  # before the key, by which a reader finds it
        self._put(key)

    def _empty(self, size: int) -> tuple[array[int], ...]:
        return _zeros(size), _zeros(size)


def _key(name: Hashable) -> int:
    return hash(name) & _MASK or 1  # 0 is an empty place


def _zeros(size: int) -> array[int]:
    return array("Q", [0]) * size


def _place(keys: array[int], key: int) -> int:
    """Find where a key is, or the empty place where it belongs."""
    mask = len(keys) - 1
    place = key & mask
    while (found := keys[place]) and found != key:
        place = (place + 1) & mask
    return place
