"""ESD: ten speakers of Mandarin and ten of English, 350 sentences in five emotions."""

from __future__ import annotations

import re
from collections.abc import Iterable

from ..clips import Clip
from ..corpus import Corpus, NoClip, Side, rule
from ..division import Division, listed

# In the order of the numbers: 1 to 350 are neutral, 351 to 700 angry and so on.
LABELS = {
    "Neutral": "neutral",
    "Angry": "anger",
    "Happy": "happiness",
    "Sad": "sadness",
    "Surprise": "surprise",
}
SENTENCES = 350
FIRST_ENGLISH = 11
MEN = {4, 5, 6, 8, 10, 11, 12, 13, 14, 20}
# Four speakers each, as EmoBox has them. The parts in the release's own folders (train,
# evaluation, test) share all speakers and are not used.
FOLDS = ((5, 11, 16, 18), (12, 14, 15, 19), (3, 4, 6, 9), (7, 8, 13, 20), (1, 2, 10, 17))


def describe(match: re.Match[str], side: Side) -> Iterable[Clip]:
    """``0011/Angry/0011_000351``: the number gives the emotion once more."""
    speaker, emotion, number = match["speaker"], match["emotion"], int(match["number"])
    expected = list(LABELS)[(number - 1) // SENTENCES]
    if emotion != expected:
        raise NoClip(f"lies in {emotion}, but its number is one of {expected}")
    yield Clip(
        id=f"{speaker}_{match['number']}",
        label=LABELS[emotion],
        speaker=speaker,
        language="en" if int(speaker) >= FIRST_ENGLISH else "zh",
        gender="male" if int(speaker) in MEN else "female",
        sentence=f"{(number - 1) % SENTENCES + 1:03d}",
    )


CORPUS = Corpus(
    name="esd",
    layout="0001 to 0020 with Angry/0001_000351.wav and the like (older: Angry/train/...)",
    rule=rule(
        r"(?P<speaker>00(?:0[1-9]|1\d|20))/(?P<emotion>Neutral|Angry|Happy|Sad|Surprise)/"
        r"(?:(?:train|evaluation|test)/)?(?P=speaker)_(?P<number>00(?:0(?!000)\d{3}|1[0-6]\d\d|17[0-4]\d|1750))"
    ),
    describe=describe,
    division=Division(
        words="five folds of four speakers; the last is the test part, the fourth for development",
        folds=listed(
            {f"{name:04d}": fold for fold, names in enumerate(FOLDS, 1) for name in names}
        ),
    ),
)
