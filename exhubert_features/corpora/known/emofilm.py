"""EmoFilm: scenes of films, original and dubbed, in English, Italian and Spanish."""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from ..clips import Clip
from ..corpus import Corpus, gender, rule
from ..division import Division, dealt, united
from ..walking import Tree, read_text
from ..workbook import read_workbook

LABELS = {
    "ans": "fear",  # ansia
    "dis": "contempt",  # disprezzo
    "gio": "happiness",  # gioia
    "rab": "anger",  # rabbia
    "tri": "sadness",  # tristezza
}
FOLDS = 5
UNKNOWN = re.compile(r"\?*")

Legend = Mapping[str, tuple[str, str]]  # clip -> speaker, film


def load(tree: Tree) -> Legend:
    """Speaker and film of each clip, where the corpus' legend (or a CSV of it) is there."""
    legend = {}
    for name in tree.find(r"(?:.*/)?f_m_corpus_it_es_en_legend\.(?:xlsx|csv)"):
        path = tree.root / name
        rows: Iterable[Mapping[str, str]] = (
            csv.DictReader(io.StringIO(read_text(path), newline=""))
            if path.suffix == ".csv"
            else read_workbook(path)
        )
        for row in rows:
            clip = (row.get("file") or "").strip().removesuffix(".wav")
            words = [" ".join((row.get(key) or "").lower().split()) for key in ("speaker", "film")]
            legend[clip] = ("" if UNKNOWN.fullmatch(words[0]) else words[0], words[1])
    return legend


def describe(match: re.Match[str], side: Legend) -> Iterable[Clip]:
    """``f_ans001aen``: gender, emotion, scene 001, part a, language."""
    speaker, film = side.get(match["name"], ("", ""))
    scene = f"scene {match['scene']}"
    owners = [f"speaker {speaker}" if speaker else "", f"film {film}" if film else scene]
    yield Clip(
        id=match["name"],
        label=LABELS[match["emotion"]],
        speaker=speaker,
        session=film or scene,
        language=match["language"],
        gender=gender(match["gender"]),
        groups=tuple(filter(None, owners)),
    )


def _whole_films(clips: Sequence[Clip]) -> list[str]:
    """Folds of whole speakers and films, or of whole speakers where those hang together.

    A dubbing actor speaks in many films: with all of them united, one group may hold so much
    that no five parts can be made.
    """
    sizes = Counter(united(clips))
    if len(sizes) < FOLDS or max(sizes.values()) > len(clips) / 2:
        clips = [replace(clip, groups=()) if clip.speaker else clip for clip in clips]
    return dealt(FOLDS)(clips)


CORPUS = Corpus(
    name="emofilm",
    layout="wav_corpus/ with files such as f_ans001aen.wav, and the legend (.xlsx)",
    rule=rule(
        r"(?P<name>(?P<gender>[fm])_(?P<emotion>ans|dis|gio|rab|tri)(?P<scene>\d{3})[a-z]"
        r"(?P<language>it|es|en))(?:_16k)?"
    ),
    describe=describe,
    load=load,
    division=Division(
        words="five folds of whole speakers and, as far as these allow it, whole films; without "
        "the legend speakers are not known and scenes stay whole",
        folds=_whole_films,
    ),
)
