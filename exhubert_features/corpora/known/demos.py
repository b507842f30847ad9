"""DEMoS: 68 students whose moods were induced, Italian."""

from __future__ import annotations

import re
from collections.abc import Iterable

from ..clips import Clip
from ..corpus import Corpus, Side, gender, rule
from ..division import Division, dealt

LABELS = {
    "rab": "anger",  # rabbia
    "tri": "sadness",
    "gio": "happiness",  # gioia
    "pau": "fear",  # paura
    "dis": "disgust",
    "col": "guilt",  # colpa
    "sor": "surprise",
    "neu": "neutral",
}
PROTOTYPICAL = {"PR": "yes", "NP": "no"}  # the authors' subset of 1,564 clips; neutral has none


def describe(match: re.Match[str], side: Side) -> Iterable[Clip]:
    """``PR_f_01_rab01a``: prototypical, gender, speaker, emotion, number and part."""
    yield Clip(
        id=match["name"],
        label=LABELS[match["emotion"]],
        speaker=match["speaker"],
        language="it",
        gender=gender(match["gender"]),
        extra={"prototypical": PROTOTYPICAL.get(match["kind"] or "", "")},
    )


CORPUS = Corpus(
    name="demos",
    layout="DEMOS/ and NEU/ with files such as PR_f_01_rab01a.wav",
    rule=rule(
        r"(?P<name>(?:(?P<kind>NP|PR)_)?(?P<gender>[fm])_(?P<speaker>\d{2})_"
        r"(?P<emotion>rab|tri|gio|pau|dis|col|sor|neu)\d{2}[a-z])"
    ),
    describe=describe,
    division=Division(
        words="five folds of whole speakers; test on the fifth, develop on the fourth",
        folds=dealt(),
    ),
)
