"""ShEMO: 87 speakers of radio plays, Persian."""

from __future__ import annotations

import re
from collections.abc import Iterable

from ..clips import Clip
from ..corpus import Corpus, Side, gender, rule
from ..division import Division, dealt

LABELS = {
    "A": "anger",
    "S": "sadness",
    "H": "happiness",
    "W": "surprise",
    "F": "fear",
    "N": "neutral",
}


def describe(match: re.Match[str], side: Side) -> Iterable[Clip]:
    """``F03F02``: the first letter is the gender, the fourth the emotion."""
    yield Clip(
        id=match["name"],
        label=LABELS[match["emotion"]],
        speaker=match["speaker"],
        language="fa",
        gender=gender(match["speaker"][0]),
    )


CORPUS = Corpus(
    name="shemo",
    layout="male/ and female/ with files such as F03A02.wav",
    rule=rule(r"(?P<name>(?P<speaker>[FM]\d{2})(?P<emotion>[ASHWFN])\d{2,3})"),
    describe=describe,
    division=Division(
        words="five folds of whole speakers; test on the fifth, develop on the fourth",
        folds=dealt(),
    ),
)
