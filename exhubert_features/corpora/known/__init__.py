"""One file for each corpus: its rule, its labels, its exceptions, its protocol."""

from __future__ import annotations

from ..corpus import Corpus
from . import (
    aibo,
    casia,
    crema_d,
    demos,
    emodb,
    emofilm,
    emovo,
    enterface,
    esd,
    iemocap,
    meld,
    mesd,
    ravdess,
    savee,
    shemo,
    smartkom,
    subesco,
    tess,
    urdu,
)

CORPORA: dict[str, Corpus] = {
    module.CORPUS.name: module.CORPUS
    for module in (
        emodb,
        ravdess,
        crema_d,
        iemocap,
        meld,
        esd,
        tess,
        savee,
        emovo,
        subesco,
        shemo,
        enterface,
        mesd,
        urdu,
        casia,
        aibo,
        demos,
        emofilm,
        smartkom,
    )
}
