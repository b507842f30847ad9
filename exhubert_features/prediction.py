"""Audio to class probabilities, by the model's own classifier or by a trained head."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np

from .errors import UsageError
from .extraction import Extraction
from .fingerprint import Fingerprint
from .heads import Head, check_fingerprint
from .records import ClipFailure, ClipFeatures
from .spec import AROUSAL, VALENCE, ExtractionSpec

ROWS_AT_ONCE = 16  # for a head: few, so that frames of long clips do not pile up


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What was heard in one clip, or in one window of it.

    ``scores`` is (C,) probabilities of ``classes``, or (1,) a value of ``target`` when there
    are no classes.
    """

    id: str
    file: str
    start: float
    end: float
    classes: tuple[str, ...]
    scores: np.ndarray
    target: str = ""
    is_window: bool = False
    warnings: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """The most likely class; empty for a value."""
        return self.classes[int(self.scores.argmax())] if self.classes else ""

    @property
    def marginals(self) -> dict[str, dict[str, float]]:
        """Arousal and valence, where the classes are the released six."""
        return marginals(dict(zip(self.classes, self.scores.tolist(), strict=False)))


def marginals(probabilities: Mapping[str, float]) -> dict[str, dict[str, float]]:
    """``{"arousal": {"low": p, "high": p}, "valence": {"negative": p, ...}}`` of class
    probabilities; empty unless each class has an arousal and a valence.
    """
    if not probabilities or not set(probabilities) <= set(AROUSAL):
        return {}
    summed: dict[str, dict[str, float]] = {}
    for name, levels in (("arousal", AROUSAL), ("valence", VALENCE)):
        summed[name] = dict.fromkeys(dict.fromkeys(levels.values()), 0.0)
        for label, probability in probabilities.items():
            summed[name][levels[label]] += probability
    return summed


def prediction_spec(head: Head | None, asked: ExtractionSpec, *, timeline: bool) -> ExtractionSpec:
    """The features that a prediction needs, and no more.

    Parameters
    ----------
    head
        Decides how audio is prepared, as it was for its training; None for the model's own
        classifier.
    asked
        How to prepare it without a head; its channel, and a timeline's hop, count in any case.
    timeline
        One prediction for each window.
    """
    if head is None:
        return replace(asked, layers=(0,), segments=timeline)
    pooled = bool(head.config.pools)
    trained = head.fingerprint.spec
    return replace(
        trained,
        layers=head.config.layers if pooled else (0,),
        pools=head.config.pools or ("mean",),
        frame_layers=() if pooled else head.config.layers,
        logits=False,
        segments=timeline or trained.segments,
        hop=min(asked.hop, trained.window) if timeline else trained.hop,
        channel=asked.channel,
    )


def predict(extraction: Extraction, head: Head | None = None) -> Iterator[Prediction | ClipFailure]:
    """Predictions of an extraction's rows, lazily; failures as they come."""
    if head is None:
        yield from _by_classifier(extraction)
        return
    fingerprint = _as_trained(head.fingerprint, extraction.fingerprint)
    check_fingerprint(head.fingerprint, fingerprint)  # before the encoder's work, not after
    rows = iter(extraction)
    while chunk := list(islice(rows, ROWS_AT_ONCE)):
        yield from (row for row in chunk if isinstance(row, ClipFailure))
        features = [row for row in chunk if isinstance(row, ClipFeatures)]
        found = head.predict_features(features, fingerprint=fingerprint)
        for row, scores in zip(features, found.scores, strict=True):
            yield _prediction(row, found.classes, scores, head.config.target)


def _by_classifier(extraction: Extraction) -> Iterator[Prediction | ClipFailure]:
    classes = extraction.encoder.classes
    if not classes:
        raise UsageError(
            "the model has no classifier", remedy="Use another --model, or a trained --head"
        )
    for row in extraction:
        if isinstance(row, ClipFailure):
            yield row
        elif row.logits is not None:
            odds = np.exp(row.logits.astype(np.float64) - row.logits.max())
            yield _prediction(row, classes, odds / odds.sum())


def _as_trained(trained: Fingerprint, found: Fingerprint) -> Fingerprint:
    """The fingerprint, but for how windows lie and which channel is heard.

    A window of a timeline is a clip of its own to the head, and the channel is the user's choice.
    """
    free = {name: getattr(trained.spec, name) for name in ("segments", "hop", "channel")}
    return replace(found, spec=replace(found.spec, **free))


def _prediction(
    row: ClipFeatures, classes: tuple[str, ...], scores: np.ndarray, target: str = ""
) -> Prediction:
    return Prediction(
        id=row.id,
        file=row.file,
        start=row.start,
        end=row.end,
        classes=tuple(classes),
        scores=np.asarray(scores),
        target=target,
        is_window=row.id != row.clip_id,
        warnings=row.warnings,
    )
