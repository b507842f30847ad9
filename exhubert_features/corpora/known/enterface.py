"""eNTERFACE'05: 43 subjects, six emotions, five sentences each, English; released as videos."""

from __future__ import annotations

import re
from collections.abc import Iterable

from ..clips import Clip
from ..corpus import Corpus, Side, rule
from ..division import Division, dealt

EMOTIONS = ("anger", "disgust", "fear", "happiness", "sadness", "surprise")


def describe(match: re.Match[str], side: Side) -> Iterable[Clip]:
    """Folders are asked: the names of subject 3 lack its number, those of subject 11 say s12."""
    subject, emotion, sentence = match.group("subject", "emotion", "sentence")
    yield Clip(
        id=f"s{int(subject)}_{emotion}_{sentence or 'all'}",
        label=emotion,
        speaker=f"{int(subject):02d}",
        language="en",
        sentence=sentence or "",
    )


CORPUS = Corpus(
    name="enterface",
    layout="subject 1, subject 2, ... with anger/sentence 1/s1_an_1.avi (or .wav) and the like",
    rule=rule(
        rf"[Ss]ubject[ _]?(?P<subject>\d+)/(?P<emotion>{'|'.join(EMOTIONS)})/"
        r"(?:[Ss]entence[ _]?(?P<sentence>\d)/)?[^/]+"
    ),
    describe=describe,
    exceptions={r"s6_.*": "subject 6 was never cut into sentences"},
    videos=True,
    division=Division(
        words="five folds of whole subjects; test on the fifth, develop on the fourth",
        folds=dealt(),
    ),
)
