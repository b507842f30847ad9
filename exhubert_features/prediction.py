"""Audio to class probabilities, by the model's own classifier or by a trained head."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import UsageError
from .extraction import Extraction
from .extraction.dataframe import clip_table
from .fingerprint import Fingerprint
from .heads import Head, check_fingerprint
from .records import ClipFailure, ClipFeatures
from .spec import DEFAULT_PREPROCESS, ExtractionSpec, Preprocess, arousal_and_valence

if TYPE_CHECKING:
    import pandas as pd

ROWS_AT_ONCE = 16  # for a head: few, so that frames of long clips do not pile up
WINDOW = 3.0  # seconds; what the released model was trained on
WINDOWS_HOP = 1.0  # seconds between the windows of a timeline; three of them hear each second

NOTHING = np.empty((0, 0, 0), np.float32)
COMMON = {"label", "id", "warnings", "error_kind", "error"}  # columns whatever the classes

Scored = tuple[ClipFeatures | ClipFailure, np.ndarray | None]


def prediction_spec(
    head: Head | None,
    *,
    preprocess: Preprocess | None = None,
    window: float | None = None,
    hop: float | None = None,
    windows: bool = False,
    channel: int | None = None,
) -> ExtractionSpec:
    """Choose the features that a prediction needs, and no more.

    Parameters
    ----------
    head
        Decides how audio is prepared, as it was for its training; None for the model's own
        classifier.
    preprocess, window
        How to prepare audio without a head.
    hop
        Seconds between windows: every second in a timeline, else the window.
    windows
        One prediction for each window.
    channel
        The channel to hear; None for the mean of all.
    """
    if head is None:
        length = WINDOW if window is None else window
        return ExtractionSpec(
            layers=(0,),
            preprocess=preprocess or DEFAULT_PREPROCESS,
            window=length,
            hop=_choose_hop(hop, length, windows=windows),
            segments=windows,
            channel=channel,
        )
    if preprocess is not None or window is not None:
        raise UsageError(
            "preprocess and window with a head", expected="what the head was trained with"
        )
    pooled = bool(head.config.pools)
    trained = head.fingerprint.spec
    return replace(
        trained,
        layers=head.config.layers if pooled else (0,),
        pools=head.config.pools or ("mean",),
        frame_layers=() if pooled else head.config.layers,
        logits=False,
        segments=windows or trained.segments,
        hop=_choose_hop(hop, trained.window, windows=True) if windows else trained.hop,
        channel=channel,
    )


def _choose_hop(hop: float | None, window: float, *, windows: bool) -> float:
    if hop is not None:
        return hop
    return min(WINDOWS_HOP, window) if windows else window


def predict(
    extraction: Extraction, head: Head | None = None, *, progress: bool = False
) -> pd.DataFrame:
    """Predict from the rows of an extraction; see :meth:`exhubert_features.Encoder.predict`.

    Parameters
    ----------
    extraction
        Of the features that :func:`prediction_spec` names.
    head
        In place of the model's own classifier.
    progress
        Show on stderr how far it is.
    """
    scored = (
        _by_classifier(extraction, progress)
        if head is None
        else _by_head(extraction, head, progress)
    )
    classes = extraction.encoder.classes if head is None else head.config.classes
    # Without the features: frames of many clips would fill the memory.
    light = [(_without_arrays(row), found) for row, found in scored]
    return _table(light, classes, () if head is None else head.config.targets)


def _by_classifier(extraction: Extraction, progress: bool) -> Iterator[Scored]:
    if not extraction.encoder.classes:
        raise UsageError(
            "the model has no classifier", remedy="Use another --model, or a trained --head"
        )
    for row in extraction.iterate(progress=progress):
        if isinstance(row, ClipFailure) or row.logits is None:
            yield row, None
        else:
            odds = np.exp(row.logits.astype(np.float64) - row.logits.max())
            yield row, odds / odds.sum()


def _by_head(extraction: Extraction, head: Head, progress: bool) -> Iterator[Scored]:
    fingerprint = _as_trained(head.fingerprint, extraction.fingerprint)
    check_fingerprint(head.fingerprint, fingerprint)  # before the encoder's work, not after
    rows = extraction.iterate(progress=progress)
    while chunk := list(islice(rows, ROWS_AT_ONCE)):
        features = [row for row in chunk if isinstance(row, ClipFeatures)]
        scores = iter(head.predict_features(features, fingerprint=fingerprint).scores)
        for row in chunk:
            yield row, next(scores) if isinstance(row, ClipFeatures) else None


def _as_trained(trained: Fingerprint, found: Fingerprint) -> Fingerprint:
    """Take the fingerprint, but for how windows lie and which channel is heard.

    A window of a timeline is a clip of its own to the head, and the channel is the user's choice.
    """
    free = {name: getattr(trained.spec, name) for name in ("segments", "hop", "channel")}
    return replace(found, spec=replace(found.spec, **free))


def _without_arrays(row: ClipFeatures | ClipFailure) -> ClipFeatures | ClipFailure:
    return row if isinstance(row, ClipFailure) else replace(row, pooled=NOTHING, frames=None)


def class_columns(classes: Iterable[str]) -> tuple[str, ...]:
    """Name the columns of class probabilities: as the classes, but for names that are taken."""
    return tuple(f"class_{name}" if name in COMMON else name for name in classes)


def _table(
    scored: list[Scored], classes: tuple[str, ...], targets: tuple[str, ...]
) -> pd.DataFrame:
    """Build the table that :meth:`exhubert_features.Encoder.predict` returns."""
    rows = [row for row, _ in scored]
    names = class_columns(classes) or targets
    nothing = np.full(len(names), np.nan)
    scores = np.array([nothing if found is None else found for _, found in scored], np.float64)
    columns: dict[str, Any] = dict(zip(names, scores.reshape(-1, len(names)).T, strict=True))
    if classes:
        label = [None if found is None else classes[found.argmax()] for _, found in scored]
        columns |= {"label": label} | arousal_and_valence({name: columns[name] for name in names})
    columns["id"] = [row.id for row in rows]
    columns["warnings"] = [", ".join(getattr(row, "warnings", ())) for row in rows]
    columns["error_kind"] = [getattr(row, "kind", None) for row in rows]
    columns["error"] = [getattr(row, "reason", None) for row in rows]
    return clip_table(rows, columns)
