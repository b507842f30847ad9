"""IEMOCAP: five sessions of two actors each, English. Labels stand in files of their own."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ...errors import CorpusError
from ..clips import Clip
from ..corpus import Corpus, NoClip, gender, rule
from ..division import Division, one_out
from ..walking import Tree, read_text

LABELS = {
    "ang": "anger",
    "hap": "happiness",
    "exc": "excitement",
    "sad": "sadness",
    "neu": "neutral",
    "fru": "frustration",
    "fea": "fear",
    "sur": "surprise",
    "dis": "disgust",
    "oth": "other",
    "xxx": "undecided",  # the raters did not agree
}
LAYOUT = "Session1 to Session5 with sentences/wav and dialog/EmoEvaluation"
NUMBER = r"(-?\d+(?:\.\d+)?)"
LINE = re.compile(rf"\[{NUMBER} - {NUMBER}\]\s+(\w+)\s+(\w+)\s+\[{NUMBER}, {NUMBER}, {NUMBER}\]\s*")


@dataclass(frozen=True)
class Rated:
    """What the raters said of one turn; the ratings are means of 1 to 5."""

    label: str
    valence: str
    arousal: str
    dominance: str


def load(tree: Tree) -> Mapping[str, Rated]:
    """Label lines by turn, of the files directly in EmoEvaluation."""
    files = tree.find(r"(?:.*/)?dialog/EmoEvaluation/[^/]+\.txt")
    if not files:
        raise CorpusError(
            f"{tree.root} has turns, but no dialog/EmoEvaluation/*.txt with their labels",
            expected=LAYOUT,
            remedy="Give the folder that holds Session1",
        )
    turns = {}
    for name in files:
        for line in read_text(tree.root / name).splitlines():
            if match := LINE.fullmatch(line):
                _, _, turn, label, valence, arousal, dominance = match.groups()
                turns[turn] = Rated(label, valence, arousal, dominance)
    return turns


def describe(match: re.Match[str], side: Mapping[str, Rated]) -> Iterable[Clip]:
    """``Ses01F_impro01_M003``: the last letter is who speaks; the first is who wore the markers."""
    turn, session = match["turn"], match["session"]
    rated = side.get(turn)
    if rated is None:
        raise NoClip("no line in dialog/EmoEvaluation is of this turn")
    if rated.label not in LABELS:
        raise NoClip(f"its label is {rated.label!r}")
    yield Clip(
        id=turn,
        label=LABELS[rated.label],
        speaker=f"Ses0{session}{match['gender']}",
        session=f"Session{session}",
        language="en",
        gender=gender(match["gender"]),
        extra={
            "valence_rating": rated.valence,
            "arousal_rating": rated.arousal,
            "dominance_rating": rated.dominance,
            "elicitation": "improvised" if "impro" in turn else "scripted",
        },
    )


CORPUS = Corpus(
    name="iemocap",
    layout=LAYOUT,
    rule=rule(
        r"sentences/wav/(?P<dialog>Ses0(?P<session>[1-5])[FM]_(?:impro\d{2}|script\d{2}_\d)[ab]?)/"
        r"(?P<turn>(?P=dialog)_(?P<gender>[FM])\d{3})"
    ),
    describe=describe,
    load=load,
    expected=lambda side: side,
    beside=re.compile(r"(?:.*/)?dialog/(?:wav|avi)/.*"),  # whole dialogs
    division=Division(
        words="folds leave one session out (official); train sessions 1 to 3, dev 4, test 5",
        folds=one_out(lambda clip: clip.session),
    ),
)
