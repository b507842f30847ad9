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


def test_the_warning_depends_on_the_weights() -> None:
    released = {"architecture": "exhubert", "source": DEFAULT_SOURCE}
    other = {"architecture": "exhubert", "source": "/models/mine"}
    plain = {"architecture": "hubert", "source": "facebook/hubert-large-ll60k"}
    assert "includes RAVDESS" in (seen_in_training(released, ["", "/data/RAVDESS"]) or "")
    assert "may derive" in (seen_in_training(other, ["ravdess"]) or "")
    assert seen_in_training(plain, ["ravdess"]) is None
    assert seen_in_training(released, ["my recordings"]) is None
