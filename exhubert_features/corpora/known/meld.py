"""MELD: utterances of a television series, English; videos, with their labels in CSV files."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Mapping

from ...errors import CorpusError
from ..clips import Clip
from ..corpus import Corpus, NoClip, rule
from ..division import Division, dealt, given
from ..walking import Tree, read_text

LABELS = {
    "neutral": "neutral",
    "joy": "happiness",
    "surprise": "surprise",
    "anger": "anger",
    "sadness": "sadness",
    "disgust": "disgust",
    "fear": "fear",
}
LAYOUT = (
    "train_splits, dev_splits_complete and output_repeated_splits_test with files such as "
    "dia0_utt0.mp4 (or .wav), and train_, dev_ and test_sent_emo.csv"
)
SPLITS = {"train": "train", "dev": "dev", "output": "test", "test": "test"}  # by first word
COLUMNS = {"Dialogue_ID", "Utterance_ID", "Emotion", "Speaker"}


def load(tree: Tree) -> Mapping[str, Mapping[str, str]]:
    """Rows of the three tables by ``train_dia0_utt0`` and the like."""
    rows = {}
    for name in tree.find(r"(?:.*/)?(?:train|dev|test)_sent_emo\.csv"):
        split = name.rsplit("/", 1)[-1].split("_")[0]
        for row in _table(tree, name):
            rows[f"{split}_dia{row['Dialogue_ID']}_utt{row['Utterance_ID']}"] = row
    return rows


def describe(match: re.Match[str], side: Mapping[str, Mapping[str, str]]) -> Iterable[Clip]:
    """``train_splits/dia0_utt0``: names repeat across splits, so the id has the split."""
    split = SPLITS[match["folder"].split("_")[0]]
    dialog, utterance = int(match["dialog"]), int(match["utterance"])
    name = f"{split}_dia{dialog}_utt{utterance}"
    row = side.get(name)
    if row is None and any(key.startswith(f"{split}_") for key in side):
        raise NoClip("the release has no label for it", known=True)
    if row is None:
        raise NoClip(f"{split}_sent_emo.csv is not there")
    emotion = row["Emotion"].strip().lower()
    if emotion not in LABELS:
        raise NoClip(f"its label is {emotion!r}")
    yield Clip(
        id=name,
        label=LABELS[emotion],
        speaker=row["Speaker"].strip(),
        session=f"{split}_dia{dialog}",
        split=split,
        language="en",
    )


def _table(tree: Tree, name: str) -> Iterable[dict[str, str]]:
    reader = csv.DictReader(io.StringIO(read_text(tree.root / name), newline=""))
    if not set(reader.fieldnames or ()) >= COLUMNS:
        raise CorpusError(f"{tree.root / name} lacks columns", expected=", ".join(sorted(COLUMNS)))
    return reader


CORPUS = Corpus(
    name="meld",
    layout=LAYOUT,
    rule=rule(
        r"(?P<folder>(?:train_splits|dev_splits_complete|output_repeated_splits_test)(?:_wav)?|"
        r"train|dev|test)/(?:final_videos_test)?dia(?P<dialog>\d+)_utt(?P<utterance>\d+)"
    ),
    describe=describe,
    load=load,
    expected=lambda side: side,
    exceptions={
        "train_dia125_utt3": "broken in the release",
        "dev_dia110_utt7": "missing in the release",
    },
    spare=rule(r"final_videos_test[^/]*"),
    videos=True,
    division=Division(
        words="the official split, of dialogs; folds are of whole speakers",
        folds=dealt(),
        split=given,
        shared=("split",),
    ),
)
