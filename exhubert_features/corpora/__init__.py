"""The 37 corpora of EmoSet++, on which the released ExHuBERT was fine-tuned.

A score of the released weights on one of them is no score on unseen data: the encoder has
been fitted to that corpus' labels, very likely to its test speakers too.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from ..spec import DEFAULT_SOURCE

# Name as the authors list it -> other names in use. The names are those of the paper's
# supplement and model card; the aliases are ours.
EMOSET_PLUS_PLUS: dict[str, tuple[str, ...]] = {
    "ABC": ("Airplane Behaviour Corpus", "Airplane Behavior Corpus"),
    "AD": ("Anger Detection",),
    "BES": ("Burmese Emotional Speech",),
    "CASIA": ("CASIA Chinese Emotional Corpus",),
    "CREMA-D": ("Crowd-sourced Emotional Multimodal Actors Dataset", "CREMA"),
    "CVE": ("Chinese Vocal Emotions",),
    "DEMoS": ("Database of Elicited Mood in Speech",),
    "DES": ("Danish Emotional Speech",),
    "EA-ACT": (),
    "EA-BMW": (),
    "EA-WSJ": (),
    "EMO-DB": ("Berlin Database of Emotional Speech", "Berlin EmoDB"),
    "EmoFilm": (),
    "EmotiW-2014": ("EmotiW", "AFEW", "Acted Facial Expressions in the Wild"),
    "EMOVO": (),
    "eNTERFACE": ("eNTERFACE'05", "eNTERFACE 2005"),
    "ESD": ("Emotional Speech Dataset", "Emotional Speech Data"),
    "EU-EmoSS": ("EU-Emotion Stimulus Set",),
    "EU-EV": ("EU-Emotion Voice Database", "EU-Emotion Voice"),
    "FAU Aibo": ("AIBO", "FAU Aibo Emotion Corpus", "IS2009 Emotion Challenge"),
    "GEMEP": ("Geneva Multimodal Emotion Portrayals",),
    "GVESS": ("Geneva Vocal Emotion Stimulus Set", "Geneva Vocal Emotion Expression Stimulus Set"),
    "IEMOCAP": ("Interactive Emotional Dyadic Motion Capture",),
    "MELD": ("Multimodal EmotionLines Dataset",),
    "MES": ("Mandarin Emotional Speech",),
    "MESD": ("Mexican Emotional Speech Database",),
    "PPMMK": ("PPMK-EMO", "PPMMK-EMO"),
    "RAVDESS": ("Ryerson Audio-Visual Database of Emotional Speech and Song",),
    "SAVEE": ("Surrey Audio-Visual Expressed Emotion",),
    "ShEMO": ("Sharif Emotional Speech Database", "Sharif Emotional Speech Dataset"),
    "SIMIS": ("Speech in Minimal Invasive Surgery",),
    "SmartKom": (),
    "SUBESCO": ("SUST Bangla Emotional Speech Corpus",),
    "SUSAS": ("Speech Under Simulated and Actual Stress",),
    "TESS": ("Toronto Emotional Speech Set",),
    "TurkishEmo": ("TurkishEmoBUEE", "BUEMODB"),
    "Urdu": ("Urdu Dataset", "Urdu Language Speech Dataset", "Urdu Emotions"),
}
SHORT = 3  # names of so few letters are also words: only a whole path component counts


def _plain(text: str) -> str:
    return re.sub(r"[^a-z0-9]", "", text.lower())


_BY_PLAIN_NAME = {
    _plain(alias): name for name, aliases in EMOSET_PLUS_PLUS.items() for alias in (name, *aliases)
}
_LONGEST = max(
    len(re.findall(r"[a-z0-9]+", alias.lower()))
    for name, aliases in EMOSET_PLUS_PLUS.items()
    for alias in (name, *aliases)
)


def find_corpus(text: str) -> str | None:
    """The corpus out of the 37 that a name, title or path speaks of, or None.

    ``emodb``, ``/data/EMO-DB_v1/wav`` and ``The Toronto emotional speech set (TESS)`` are
    recognised; short names such as ``DES`` only when they are the whole text or a whole path
    component.
    """
    for component in re.split(r"[/\\]", text):
        whole = _BY_PLAIN_NAME.get(_plain(component))
        if whole:
            return whole
        words = re.findall(r"[a-z0-9]+", component.lower())
        for length in range(min(_LONGEST, len(words)), 0, -1):
            for start in range(len(words) - length + 1):
                candidate = "".join(words[start : start + length])
                if len(candidate) > SHORT and candidate in _BY_PLAIN_NAME:
                    return _BY_PLAIN_NAME[candidate]
    return None


def seen_in_training(
    hints: Iterable[str], *, architecture: str | None, source: str | None
) -> str | None:
    """A warning when the encoder may have been fine-tuned on the corpus at hand.

    Parameters
    ----------
    hints
        The corpus' name as the user gave it; else names and paths that may speak of it.
    architecture, source
        Of the model, as a store's fingerprint and provenance have them.
    """
    if architecture == "hubert":
        return None  # plain HuBERT was pre-trained without emotion labels
    corpus = next((found for found in map(find_corpus, hints) if found), None)
    if corpus is None:
        return None
    if source == DEFAULT_SOURCE:
        weights = "The released ExHuBERT weights used here were"
    else:
        weights = "The released ExHuBERT, from which these weights may derive, was"
    return (
        f"{weights} fine-tuned on EmoSet++, which includes {corpus}: "
        "this is not a score on unseen data"
    )
