"""CREMA-D: 91 actors, twelve sentences, English."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Mapping

from ..clips import Clip
from ..corpus import Corpus, rule
from ..division import Division, dealt, named
from ..walking import Tree, read_text

LABELS = {
    "ANG": "anger",
    "DIS": "disgust",
    "FEA": "fear",
    "HAP": "happiness",
    "NEU": "neutral",
    "SAD": "sadness",
}
INTENSITIES = {"LO": "low", "MD": "medium", "HI": "high"}  # XX: unspecified
DEV = "1049 1053 1054 1055 1058 1059 1061 1062 1063 1064 1065 1066 1067 1068 1070 1075 1080 1085"
TEST = "1048 1069 1071 1074 1076 1077 1078 1079 1082 1083 1084 1086 1087 1088 1089 1090 1091"


def load(tree: Tree) -> Mapping[str, str]:
    """Gender of each actor, where VideoDemographics.csv lies beside the audio."""
    genders = {}
    for name in tree.find(r"(?:.*/)?VideoDemographics\.csv")[:1]:
        text = read_text(tree.root / name)
        for row in csv.DictReader(io.StringIO(text, newline="")):
            genders[row.get("ActorID") or ""] = (row.get("Sex") or "").strip().lower()
    return genders


def describe(match: re.Match[str], side: Mapping[str, str]) -> Iterable[Clip]:
    """``1001_DFA_ANG_XX``: actor, sentence, emotion, intensity."""
    yield Clip(
        id=match["name"],
        label=LABELS[match["emotion"]],
        speaker=match["speaker"],
        language="en",
        gender=side.get(match["speaker"], ""),
        sentence=match["sentence"],
        intensity=INTENSITIES.get(match["intensity"], ""),
    )


CORPUS = Corpus(
    name="crema-d",
    layout="AudioWAV/ with files such as 1001_DFA_ANG_XX.wav",
    # One file of the release is named with a single X: 1040_ITH_SAD_X.wav.
    rule=rule(
        r"(?P<name>(?P<speaker>1\d{3})_(?P<sentence>[A-Z]{3})_(?P<emotion>ANG|DIS|FEA|HAP|NEU|SAD)_"
        r"(?P<intensity>LO|MD|HI|XX?))"
    ),
    describe=describe,
    load=load,
    exceptions={"1076_MTI_SAD_XX": "it holds no signal"},
    division=Division(
        words="five folds of whole actors; the split has 56, 18 and 17 actors (audEERING's)",
        folds=dealt(),
        split=named(dev=DEV.split(), test=TEST.split()),
    ),
)
