"""RAVDESS: 24 actors, two sentences, English. Songs are left out by default."""

from __future__ import annotations

import re
from collections.abc import Iterable

from ..clips import Clip
from ..corpus import Corpus, Side, rule
from ..division import Division, listed, named

LABELS = {
    "01": "neutral",
    "02": "calm",
    "03": "happiness",
    "04": "sadness",
    "05": "anger",
    "06": "fear",
    "07": "disgust",
    "08": "surprise",
}
CHANNELS = {"01": "speech", "02": "song"}
INTENSITIES = {"01": "normal", "02": "strong"}
SPEAKERS = [f"{number:02d}" for number in range(1, 25)]
FOUR = 4  # actors in a fold: two women, two men


def describe(match: re.Match[str], side: Side) -> Iterable[Clip]:
    """``03-01-05-02-01-01-12``: modality, channel, emotion, intensity, sentence, take, actor."""
    speaker = match["speaker"]
    yield Clip(
        id=match["name"],
        label=LABELS[match["emotion"]],
        speaker=speaker,
        session=CHANNELS[match["channel"]],
        language="en",
        gender="male" if int(speaker) % 2 else "female",
        sentence=match["sentence"],
        intensity=INTENSITIES[match["intensity"]],
    )


CORPUS = Corpus(
    name="ravdess",
    layout="Actor_01 to Actor_24 with files such as 03-01-05-01-02-01-12.wav",
    rule=rule(
        r"(?P<name>0[123]-(?P<channel>0[12])-(?P<emotion>0[1-8])-(?P<intensity>0[12])-"
        r"(?P<sentence>0[12])-0[12]-(?P<speaker>0[1-9]|1\d|2[0-4]))"
    ),
    describe=describe,
    exceptions={r"\d\d-02-.*": "song, not speech"},
    division=Division(
        words="six folds of four actors; train 01 to 15 and 18, dev 16 17 19 20, test 21 to 24",
        folds=listed({name: index // FOUR + 1 for index, name in enumerate(SPEAKERS)}),
        split=named(dev=("16", "17", "19", "20"), test=("21", "22", "23", "24")),
    ),
)
