"""SmartKom: people before a dialog system, German; turns of long recordings.

User states and turns stand in BAS Partitur files. A turn has the user state that it overlaps most.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ...errors import CorpusError
from ..clips import Clip
from ..corpus import Corpus, NoClip, rule
from ..division import Division, dealt
from ..walking import Tree, read_text

LABELS = {
    "neutral": "neutral",
    "freude": "happiness",  # Freude/Erfolg
    "arger": "anger",  # Ärger/Mißerfolg
    "ratlosigkeit": "helplessness",
    "uberlegen": "pondering",  # Überlegen/Nachdenken
    "uberraschung": "surprise",  # Überraschung/Verwunderung
    "restklasse": "unknown",
}
SPEAKER = slice(8, 11)  # of w001_pk_AAA


@dataclass(frozen=True)
class Partitur:
    """Segments of one session: (start, stop) in samples."""

    name: str
    root: Path
    turns: list[tuple[int, int]] = field(default_factory=list)
    states: list[tuple[int, int, str]] = field(default_factory=list)


def load(tree: Tree) -> Mapping[str, Partitur]:
    """Read the Partitur of each session but those of gestures, which are called SMA."""
    found: dict[str, Partitur] = {}
    for name in tree.find(r"(?:.*/)?(?P<session>[^/]+)/(?P=session)_(?!SMA)[^/]{3}\.par"):
        path = tree.root / name
        found.setdefault(path.parent.name, _read(path, tree.root))
    return found


def describe(match: re.Match[str], side: Mapping[str, Partitur]) -> Iterable[Clip]:
    """``w001_pk/w001_pkd``: one recording of a whole session, cut where its turns are."""
    partitur = side.get(match["session"])
    if partitur is None:
        raise NoClip("no Partitur (.par) lies beside it")
    if not partitur.turns or not partitur.states:
        raise NoClip(f"{partitur.name}.par has no turns (TRN) or no user states (USH)")
    rate = _rate(partitur.root / match.string)
    for number, (start, stop) in enumerate(partitur.turns):
        yield Clip(
            id=f"{partitur.name}_{number:03d}",
            label=_label(start, stop, partitur.states),
            start=start / rate,
            end=stop / rate,
            speaker=partitur.name[SPEAKER],
            session=match["session"],
            language="de",
        )


def _label(start: int, stop: int, states: Sequence[tuple[int, int, str]]) -> str:
    shares: Counter[str] = Counter()
    for first, last, label in states:
        shares[label] += max(0, min(stop, last) - max(start, first))
    label, share = max(shares.items(), key=lambda item: item[1])
    return label if share else "unknown"


def _read(path: Path, root: Path) -> Partitur:
    partitur = Partitur(path.stem, root)
    for line in read_text(path).splitlines():
        words = line.split()
        if line.startswith("TRN:") and len(words) > 2:
            start, length = int(words[1]), int(words[2])
            partitur.turns.append((start, start + length + 1))
        elif line.startswith("USH:") and len(words) > 3:
            start, length = int(words[1]), int(words[2])
            partitur.states.append((start, start + length + 1, _state(words[3], path)))
    return partitur


def _state(word: str, path: Path) -> str:
    first = word.strip('"').split("/")[0].lower()
    letters = unicodedata.normalize("NFKD", first).encode("ascii", "ignore").decode()
    label = LABELS.get(letters) or LABELS.get(letters.replace("ue", "u").replace("ae", "a"))
    if label is None:
        raise CorpusError(
            f"{path} has the user state {word}", expected=f"one of {', '.join(LABELS)}"
        )
    return label


def _rate(path: Path) -> int:
    import soundfile

    try:
        return int(soundfile.info(path).samplerate)
    except (OSError, soundfile.LibsndfileError) as error:
        raise NoClip(f"cannot be read ({error})") from error


CORPUS = Corpus(
    name="smartkom",
    layout="SK-Public/ with w001_pk/w001_pkd.wav, w001_pk/w001_pk_AAA.par and the like",
    rule=rule(r"(?P<session>[^/]+)/(?P=session)[^/]"),
    describe=describe,
    load=load,
    spare=rule(r"(?P<session>[^/]+)/(?P=session)[^/d]"),  # d is the microphone taken first
    distinctive=False,
    division=Division(
        words="five folds of whole speakers; test on the fifth, develop on the fourth",
        folds=dealt(),
    ),
)
