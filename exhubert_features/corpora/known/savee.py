"""SAVEE: four men, British English."""

from __future__ import annotations

import re
from collections.abc import Iterable

from ..clips import Clip
from ..corpus import Corpus, Side, rule
from ..division import Division, one_out

LABELS = {
    "a": "anger",
    "d": "disgust",
    "f": "fear",
    "h": "happiness",
    "n": "neutral",
    "sa": "sadness",
    "su": "surprise",
}


def describe(match: re.Match[str], side: Side) -> Iterable[Clip]:
    """``DC/a01`` as released, ``DC_a01`` in flat copies."""
    speaker = match["speaker"] or match["folder"]
    yield Clip(
        id=f"{speaker}_{match['emotion']}{match['number']}",
        label=LABELS[match["emotion"]],
        speaker=speaker,
        language="en",
        gender="male",
    )


CORPUS = Corpus(
    name="savee",
    layout="AudioData/ with DC/a01.wav, JE, JK and KL (flat copies: DC_a01.wav)",
    rule=rule(
        r"(?:(?P<folder>DC|JE|JK|KL)/|(?P<speaker>DC|JE|JK|KL)_)"
        r"(?P<emotion>sa|su|a|d|f|h|n)(?P<number>\d{2})"
    ),
    describe=describe,
    division=Division(
        words="folds leave one speaker out; train DC JE, dev JK, test KL", folds=one_out()
    ),
)
