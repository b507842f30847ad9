"""SUBESCO: twenty actors, ten sentences, five takes, Bangla."""

from __future__ import annotations

import re
from collections.abc import Iterable

from ..clips import Clip
from ..corpus import Corpus, Side, gender, rule
from ..division import Division, dealt, given

LABELS = {
    "ANGRY": "anger",
    "DISGUST": "disgust",
    "FEAR": "fear",
    "HAPPY": "happiness",
    "NEUTRAL": "neutral",
    "SAD": "sadness",
    "SURPRISE": "surprise",
}
DEV = {"SIMI", "ILIAS", "EVAN", "OISHI"}
TEST = {"DURANTO", "SIBLY", "TITHI", "MONIKA"}


def describe(match: re.Match[str], side: Side) -> Iterable[Clip]:
    """``F_02_MONIKA_S_2_SURPRISE_3``: a number counts within a gender."""
    name = match["actor"]
    yield Clip(
        id=match["name"],
        label=LABELS[match["emotion"]],
        speaker=f"{match['gender']}_{match['number']}",
        split="dev" if name in DEV else "test" if name in TEST else "train",
        language="bn",
        gender=gender(match["gender"]),
        sentence=match["sentence"],
    )


CORPUS = Corpus(
    name="subesco",
    layout="files such as F_02_MONIKA_S_1_NEUTRAL_5.wav",
    # One file of the release ends in a bracket: F_02_MONIKA_S_2_SURPRISE_3].wav.
    rule=rule(
        r"(?P<name>(?P<gender>[MF])_(?P<number>\d{2})_(?P<actor>[A-Z]+)_S_(?P<sentence>\d{1,2})_"
        r"(?P<emotion>ANGRY|DISGUST|FEAR|HAPPY|NEUTRAL|SAD|SURPRISE)_\d)\]?"
    ),
    describe=describe,
    division=Division(
        words="five folds of whole speakers; the split has 12, 4 and 4 speakers (audEERING's)",
        folds=dealt(),
        split=given,
    ),
)
