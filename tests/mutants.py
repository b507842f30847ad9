"""Files with one thing changed: what rot, a bad copy or a hand would do to them."""

from __future__ import annotations

import random
from collections.abc import Iterator


def mutants(content: bytes, count: int, *, seed: int = 0) -> Iterator[bytes]:
    """``count`` variants of a file: bits flipped, bytes changed, parts cut, doubled or swapped."""
    chance = random.Random(seed)
    for number in range(count):
        changed = bytearray(content)
        place = chance.randrange(len(content))
        length = chance.choice([1, 2, 8, 64])
        match number % 6 if count > 1 else chance.randrange(6):
            case 0:
                changed[place] ^= 1 << chance.randrange(8)
            case 1:
                changed[place] = chance.choice(b'0123456789-."[]{},: aE\0\xff')
            case 2:
                del changed[place : place + length]
            case 3:
                changed[place:place] = changed[place : place + length]
            case 4:
                del changed[place:]
            case _:
                other = chance.randrange(len(content))
                changed[place], changed[other] = changed[other], changed[place]
        yield bytes(changed)
