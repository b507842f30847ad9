"""CASIA, the part of four speakers that circulates: 50 sentences in six emotions, Mandarin."""

from __future__ import annotations

import re
from collections.abc import Iterable

from ..clips import Clip
from ..corpus import Corpus, Side, rule
from ..division import Division, one_out

LABELS = {
    "angry": "anger",
    "fear": "fear",
    "happy": "happiness",
    "neutral": "neutral",
    "sad": "sadness",
    "surprise": "surprise",
}


def describe(match: re.Match[str], side: Side) -> Iterable[Clip]:
    """``wangzhe/angry/201``: names repeat across folders, so the id is the path."""
    speaker, emotion, sentence = match.group("speaker", "emotion", "sentence")
    yield Clip(
        id=f"{speaker}_{emotion}_{sentence}",
        label=LABELS[emotion],
        speaker=speaker,
        language="zh",
        sentence=sentence,
    )


CORPUS = Corpus(
    name="casia",
    layout="liuchanhg, wangzhe, zhaoquanyin and zhaozuoxiang with angry/201.wav and the like",
    rule=rule(
        r"(?P<speaker>liuchanhg|wangzhe|zhaoquanyin|zhaozuoxiang)/"
        r"(?P<emotion>angry|fear|happy|neutral|sad|surprise)/(?P<sentence>2\d{2})"
    ),
    describe=describe,
    division=Division(words="folds leave one speaker out", folds=one_out()),
)
