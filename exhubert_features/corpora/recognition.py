"""Which of the 37 corpora names, folders and files speak of.

A score of the released weights on one of them is no score on unseen data: the encoder has been
fitted to that corpus' labels, very likely to its test speakers too. Files are recognised by the
same rules that ``exhubert prepare`` reads them with.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from functools import cache

from ..spec import DEFAULT_SOURCE
from .corpus import Corpus, fits
from .emoset import emoset, facts_of, names_in_use, plain
from .known import CORPORA

SHORT = 3  # names of so few letters are also words
SEVERAL = 3  # files that must fit a corpus' rule: one or two may do so by chance
SHARE = 0.01  # of all files, for the same reason where there are many
DEPTH = 5  # of a path's last parts, rules look at no more
# Words of a language or a trade, and titles that describe many a corpus. Like short names they
# need a second hint.
COMMON = {
    *("urdu", "demos", "simis", "angerdetection", "urdudataset", "urduemotions"),
    *("emotionalspeechdataset", "emotionalspeechdata", "mandarinemotionalspeech"),
}
# Also words or names, but hardly so as the whole name of a folder, or in capitals.
WORDS = {"tess", "meld", "crema", "casia", "aibo"}
HINTS = {"emotion", "emotions", "emotional", "emoset", "ser"}
# What follows these in a path is the name of a person or a disk.
HOMES = {"home", "homes", "users", "user", "scratch", "media"}


def find_corpus(text: str) -> str | None:
    """Find the corpus out of the 37 that a name, title or path speaks of, or None.

    ``emodb``, ``/data/EMO-DB_v1/wav`` and ``The Toronto emotional speech set (TESS)`` are
    recognised; short and common names such as ``DES`` only when they are the whole text, or a
    folder in whose path another word speaks of emotions.
    """
    return next(iter(recognise([text])), None)


def recognise(hints: Iterable[str] = (), files: Iterable[str] = ()) -> dict[str, str]:
    """Find the corpora that names and files speak of, each with what gave it away.

    Parameters
    ----------
    hints
        What the corpus is called, titles, folders.
    files
        Paths of its files: all that there are, since several must fit a corpus' rule.
    """
    files = {file.replace("\\", "/") for file in files}
    found: dict[str, str] = {}
    named: dict[str, str] = {}
    folders = {file.rpartition("/")[0] + "/" for file in files if "/" in file}
    for hint in dict.fromkeys([*hints, *sorted(folders)]):
        for corpus, certain in _spoken_of(hint).items():
            (found if certain else named).setdefault(corpus, f"by the name {hint!r}")
    for corpus, fitting in _fitting(files).items():
        enough = len(fitting) >= max(SEVERAL, SHARE * len(files)) and _varied(corpus, fitting)
        if enough or corpus in named:
            example = min(fitting)
            reason = f"by {len(fitting):,} files named like {example.rsplit('/', 1)[-1]!r}"
            found.setdefault(corpus, reason)
    return found


def seen_in_training(
    hints: Iterable[str] = (),
    *,
    files: Iterable[str] = (),
    architecture: str | None,
    source: str | None,
) -> str | None:
    """Warn when the encoder may have been fine-tuned on a corpus at hand.

    Parameters
    ----------
    hints
        The corpus' name as the user gave it; else names and folders that may speak of it.
    files
        Paths of all files at hand, unless the user gave the corpus' name.
    architecture, source
        Of the model, as a store's fingerprint and provenance have them.
    """
    if architecture in ("hubert", "wav2vec2", "wavlm"):
        return None  # pre-trained without emotion labels
    corpora = list(recognise(hints, files))
    if not corpora:
        return None
    if source == DEFAULT_SOURCE:
        weights = "The released ExHuBERT weights used here were"
    else:
        weights = "The released ExHuBERT, from which these weights may derive, was"
    return (
        f"{weights} fine-tuned on EmoSet++, which includes {' and '.join(corpora)}: "
        "this is not a score on unseen data"
    )


def _spoken_of(text: str) -> dict[str, bool]:
    """Corpora that a name or path speaks of, and whether that is certain."""
    if not re.search(r"[/\\]", text) and plain(text) in names_in_use():
        return {names_in_use()[plain(text)]: True}  # somebody calls it so
    parts = _parts(text)
    hints = [set(_words(part.lower())) & HINTS for part in parts]
    found: dict[str, bool] = {}
    for index, part in enumerate(parts):
        hinted = any(hints[:index] + hints[index + 1 :])
        for corpus, certain in _in_component(part).items():
            found[corpus] = found.get(corpus, False) or certain or hinted
    return found


def _in_component(part: str) -> dict[str, bool]:
    """Corpora that one folder or title speaks of; uncertain ones need another hint.

    A weak name counts as the whole of it, or with a second name of the same corpus.
    """
    whole = names_in_use().get(plain(part))
    found = {whole: _is_clear(part, plain(part) in WORDS)} if whole else {}
    names: dict[str, set[str]] = defaultdict(set)
    words = _words(part)
    for length in range(min(_longest(), len(words)), 0, -1):
        for start in range(len(words) - length + 1):
            spelled = "".join(words[start : start + length])
            corpus = names_in_use().get(spelled.lower())
            if corpus is not None:
                names[corpus].add(spelled.lower())
                if len(names[corpus]) > 1 or _is_clear(spelled):
                    found[corpus] = True
    return found


def _is_clear(text: str, among_words: bool = False) -> bool:
    """Whether a name says enough by itself: ``DEMoS`` and ``MELD`` do, ``demos`` does not."""
    name = plain(text)
    if len(name) <= SHORT:
        return False
    own = text in emoset() and sum(map(str.isupper, text)) > 1
    return own or among_words or name not in COMMON | WORDS


def _parts(text: str) -> list[str]:
    """Folders of a path that say something: no drives, homes or users."""
    parts = [part for part in re.split(r"[/\\]", text) if part and not part.startswith("~")]
    named_after_people = {
        index + 1 for index, part in enumerate(parts[:-1]) if part.lower() in HOMES
    }
    return [part for index, part in enumerate(parts) if index not in named_after_people]


def _words(text: str) -> list[str]:
    return re.findall(r"[A-Za-z0-9]+", text)


@cache
def _longest() -> int:
    """Words in the longest name."""
    return max(
        len(_words(alias)) for facts in emoset().values() for alias in (facts.name, *facts.aliases)
    )


def _fitting(files: Iterable[str]) -> dict[str, set[str]]:
    """Files that fit the rule of each corpus; of those that say the same, one."""
    found: dict[str, dict[tuple[str | None, ...], str]] = defaultdict(dict)
    rules = [(corpus, _official(corpus)) for corpus in CORPORA.values() if corpus.distinctive]
    for file in files:
        tail = "/".join(file.split("/")[-DEPTH:])
        for corpus, name in rules:
            if match := fits(corpus.rule, tail):
                found[name].setdefault(match.groups(), tail)
    return {name: set(tails.values()) for name, tails in found.items()}


def _varied(corpus: str, fitting: Iterable[str]) -> bool:
    """Whether the files are of two emotions at least, where names tell them."""
    parser = CORPORA[emoset()[corpus].parser]
    emotions = [
        match.groupdict().get("emotion", file)
        for file in fitting
        if (match := fits(parser.rule, file))
    ]
    return len(set(emotions)) > 1


def _official(corpus: Corpus) -> str:
    facts = facts_of(corpus.name)
    if facts is None:
        raise LookupError(f"{corpus.name} is none of the 37")
    return facts.name
