"""MESD: single words, Mexican Spanish. The names tell women, men and children, not speakers."""

from __future__ import annotations

import re
from collections.abc import Iterable

from ..clips import Clip
from ..corpus import Corpus, Side, rule
from ..division import Division, dealt

LABELS = {
    "Anger": "anger",
    "Disgust": "disgust",
    "Fear": "fear",
    "Happiness": "happiness",
    "Neutral": "neutral",
    "Sadness": "sadness",
}
VOICES = {"F": "female", "M": "male", "C": "child"}


def describe(match: re.Match[str], side: Side) -> Iterable[Clip]:
    """``Anger_F_A_abajo``: emotion, voice, list of words, word."""
    yield Clip(
        id=match["name"],
        label=LABELS[match["emotion"]],
        language="es",
        gender=VOICES[match["voice"]],
        sentence=match["word"],
    )


CORPUS = Corpus(
    name="mesd",
    layout="files such as Anger_F_A_abajo.wav",
    rule=rule(
        r"(?P<name>(?P<emotion>Anger|Disgust|Fear|Happiness|Neutral|Sadness)_(?P<voice>[FMC])_"
        r"[AB]_(?P<word>[^/]+))"
    ),
    describe=describe,
    division=Division(
        words="speakers are not known: five folds of single clips, so speakers stand in several",
        folds=dealt(),
    ),
)
