"""FAU Aibo: children of two schools with a robot, German; chunks of the 2009 challenge."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from ...errors import CorpusError
from ..clips import Clip
from ..corpus import Corpus, NoClip, rule
from ..division import Division, given, one_out
from ..walking import Tree, read_text

LABELS = {
    "A": "anger",
    "E": "emphatic",
    "N": "neutral",
    "P": "positive",
    "R": "rest",
    "NEG": "negative",  # of the task with two classes, where only its labels are there
    "IDL": "idle",
}
TABLES = ("chunk_labels_5cl_corpus.txt", "chunk_labels_2cl_corpus.txt")
SPLITS = {"Ohm": "train", "Mont": "test"}


def load(tree: Tree) -> Mapping[str, str]:
    """Labels by chunk, of the task with five classes if they are there."""
    for table in TABLES:
        for name in tree.find(rf"(?:.*/)?{re.escape(table)}"):
            lines = read_text(tree.root / name).splitlines()
            return {words[0]: words[1] for words in map(str.split, lines) if len(words) > 1}
    raise CorpusError(
        f"{tree.root} has chunks, but no file with their labels",
        expected=f"{TABLES[0]}, as a rule in labels/IS2009EmotionChallenge",
        remedy="Give the folder that holds wav/ and labels/",
    )


def describe(match: re.Match[str], side: Mapping[str, str]) -> Iterable[Clip]:
    """``Ohm_01_015_00``: school, child, utterance, chunk."""
    label = side.get(match["name"])
    if label not in LABELS:
        raise NoClip(f"its label is {label!r}" if label else "no line of the labels is of it")
    yield Clip(
        id=match["name"],
        label=LABELS[label],
        speaker=f"{match['school']}_{match['child']}",
        session=match["school"],
        split=SPLITS[match["school"]],
        language="de",
    )


CORPUS = Corpus(
    name="aibo",
    layout="wav/ with files such as Ohm_01_015_00.wav, and labels/",
    rule=rule(r"(?P<name>(?P<school>Ohm|Mont)_(?P<child>\d{2})_\d{3}_\d{2})"),
    describe=describe,
    load=load,
    expected=lambda side: side,
    division=Division(
        words="the official split: train on the school Ohm, test on Mont; folds are the schools",
        folds=one_out(lambda clip: clip.session),
        split=given,
    ),
)
