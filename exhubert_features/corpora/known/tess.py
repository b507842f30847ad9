"""TESS: two actresses, 200 words in seven emotions, English."""

from __future__ import annotations

import re
from collections.abc import Iterable

from ..clips import Clip
from ..corpus import Corpus, Side, rule
from ..division import Division, one_out

LABELS = {
    "angry": "anger",
    "disgust": "disgust",
    "fear": "fear",
    "happy": "happiness",
    "neutral": "neutral",
    "ps": "pleasant surprise",
    "sad": "sadness",
}
SPEAKERS = {"OAF": "OAF", "OA": "OAF", "YAF": "YAF"}  # OA_bite_neutral.wav is one of OAF


def describe(match: re.Match[str], side: Side) -> Iterable[Clip]:
    """``OAF_back_angry``. Folders are spelled in several ways and are not asked."""
    speaker = SPEAKERS[match["speaker"]]
    yield Clip(
        id=f"{speaker}_{match['word']}_{match['emotion']}",
        label=LABELS[match["emotion"]],
        speaker=speaker,
        language="en",
        gender="female",
        sentence=match["word"],
    )


CORPUS = Corpus(
    name="tess",
    layout="folders with files such as OAF_back_angry.wav",
    rule=rule(
        r"(?P<speaker>OAF|OA|YAF)_(?P<word>[a-z]+)_"
        r"(?P<emotion>angry|disgust|fear|happy|neutral|ps|sad)"
    ),
    describe=describe,
    division=Division(words="two speakers: train on one, test on the other", folds=one_out()),
)
