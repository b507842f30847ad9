"""EMOVO: six actors, fourteen sentences, Italian."""

from __future__ import annotations

import re
from collections.abc import Iterable

from ..clips import Clip
from ..corpus import Corpus, Side, gender, rule
from ..division import Division, one_out

LABELS = {
    "dis": "disgust",
    "gio": "happiness",  # gioia
    "neu": "neutral",
    "pau": "fear",  # paura
    "rab": "anger",  # rabbia
    "sor": "surprise",
    "tri": "sadness",
}


def describe(match: re.Match[str], side: Side) -> Iterable[Clip]:
    """``rab-f1-b1``: emotion, speaker, sentence."""
    yield Clip(
        id=match["name"],
        label=LABELS[match["emotion"]],
        speaker=match["speaker"],
        language="it",
        gender=gender(match["speaker"][0]),
        sentence=match["sentence"],
    )


CORPUS = Corpus(
    name="emovo",
    layout="folders f1 to m3 with files such as rab-f1-b1.wav",
    rule=rule(
        r"(?P<name>(?P<emotion>dis|gio|neu|pau|rab|sor|tri)-(?P<speaker>[fm][123])-"
        r"(?P<sentence>b[123]|l[1-4]|n[1-5]|d[12]))"
    ),
    describe=describe,
    division=Division(words="folds leave one speaker out; dev m2, test m3", folds=one_out()),
)
