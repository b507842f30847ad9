"""Urdu: clips of talk shows, 29 speakers in the names."""

from __future__ import annotations

import re
from collections.abc import Iterable

from ..clips import Clip
from ..corpus import Corpus, Side, gender, rule
from ..division import Division, dealt

LABELS = {"A": "anger", "H": "happiness", "N": "neutral", "S": "sadness"}


def describe(match: re.Match[str], side: Side) -> Iterable[Clip]:
    """``SM1_F2_A1``: speaker, show, emotion and number. The F stands for a file, not a woman."""
    yield Clip(
        id=match["name"],
        label=LABELS[match["emotion"]],
        speaker=match["speaker"],
        session=match["show"],
        language="ur",
        gender=gender(match["speaker"][1]),
    )


CORPUS = Corpus(
    name="urdu",
    layout="Angry, Happy, Neutral and Sad with files such as SM1_F1_A01.wav",
    rule=rule(r"(?P<name>(?P<speaker>S[MF]\d+)_(?P<show>F\d+)_(?P<emotion>[AHNS])\d+)"),
    describe=describe,
    division=Division(
        words="five folds of whole speakers; test on the fifth, develop on the fourth",
        folds=dealt(),
    ),
)
