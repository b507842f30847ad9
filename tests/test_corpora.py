"""The 37 corpora and how they are recognised."""

from __future__ import annotations

import pytest

from exhubert_features.corpora import EMOSET_PLUS_PLUS, find_corpus, seen_in_training
from exhubert_features.spec import DEFAULT_SOURCE


def test_there_are_37_and_no_two_share_a_name() -> None:
    assert len(EMOSET_PLUS_PLUS) == 37
    names = [
        alias.lower() for name, aliases in EMOSET_PLUS_PLUS.items() for alias in (name, *aliases)
    ]
    assert len(names) == len(set(names))
    for name, aliases in EMOSET_PLUS_PLUS.items():
        assert all(find_corpus(alias) == name for alias in (name, *aliases))


@pytest.mark.parametrize(
    ("text", "corpus"),
    [
        ("emodb", "EMO-DB"),
        ("/data/EMO-DB_v1/wav/03a01Fa.wav", "EMO-DB"),
        ("IEMOCAP_full_release", "IEMOCAP"),
        ("crema_d", "CREMA-D"),
        ("C:\\corpora\\TESS\\OAF_angry", "TESS"),
        ("The Toronto emotional speech set (TESS)", "TESS"),
        ("des", "DES"),
        ("/home/anna/des histoires/clip.wav", None),
        ("/data/ad-hoc/recordings.csv", None),
        ("/data/MELD.Raw/train", "MELD"),
        ("TurEV-DB", None),
        ("EmoV-DB", None),
        ("MESD", "MESD"),
        ("mes", "MES"),
        ("", None),
    ],
)
def test_names_titles_and_paths(text: str, corpus: str | None) -> None:
    assert find_corpus(text) == corpus


@pytest.mark.parametrize(
    ("architecture", "source", "hints", "words"),
    [
        ("exhubert", DEFAULT_SOURCE, ["", "/data/RAVDESS"], "weights used here were fine-tuned on"),
        ("exhubert", "/models/mine", ["ravdess"], "may derive, was fine-tuned on"),
        ("exhubert", None, ["ravdess"], "may derive"),
        ("exhubert", DEFAULT_SOURCE, ["my recordings"], None),
        ("hubert", "facebook/hubert-large-ll60k", ["ravdess"], None),
    ],
)
def test_the_warning_depends_on_the_weights(
    architecture: str, source: str | None, hints: list[str], words: str | None
) -> None:
    warning = seen_in_training(hints, architecture=architecture, source=source)
    assert (warning is None) == (words is None)
    assert words is None or (words in str(warning) and "includes RAVDESS" in str(warning))
