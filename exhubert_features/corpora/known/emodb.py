"""EMO-DB: ten actors, ten sentences, German. The names say everything."""

from __future__ import annotations

import re
from collections.abc import Iterable

from ..clips import Clip
from ..corpus import Corpus, Side, rule
from ..division import Division, named, one_out

LABELS = {
    "W": "anger",  # Wut
    "L": "boredom",  # Langeweile
    "E": "disgust",  # Ekel
    "A": "fear",  # Angst
    "F": "happiness",  # Freude
    "T": "sadness",  # Trauer
    "N": "neutral",
}
MEN = {"03", "10", "11", "12", "15"}
WOMEN = {"08", "09", "13", "14", "16"}


def describe(match: re.Match[str], side: Side) -> Iterable[Clip]:
    """``03a01Fa``: speaker 03, sentence a01, happiness, version a."""
    speaker, sentence, emotion, version = match.group("speaker", "sentence", "emotion", "version")
    yield Clip(
        id=f"{speaker}{sentence}{emotion}{version}",
        label=LABELS[emotion],
        speaker=speaker,
        sentence=sentence,
        language="de",
        gender="male" if speaker in MEN else "female" if speaker in WOMEN else "",
    )


CORPUS = Corpus(
    name="emodb",
    layout="wav/ with files such as 03a01Fa.wav",
    # Version 2.0 came with an xx at the end of its names.
    rule=rule(
        r"(?P<speaker>\d{2})(?P<sentence>[ab]\d{2})(?P<emotion>[WLEAFTN])(?P<version>[a-z])(?:xx)?"
    ),
    describe=describe,
    beside=re.compile(r"(?:.*/)?laryngo/[^/]*"),  # laryngograms of version 2.0, by equal names
    division=Division(
        words="folds leave one speaker out; the split holds out speakers 12 14 15 16, unofficial",
        folds=one_out(),
        split=named(test=("12", "14", "15", "16")),
    ),
)
