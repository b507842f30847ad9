"""A small store whose features know the emotion, the speaker, and which layer knows what."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from exhubert_features.evaluation import Labels
from exhubert_features.fingerprint import Fingerprint, ModelIdentity
from exhubert_features.records import ClipFailure, ClipFeatures
from exhubert_features.spec import ExtractionSpec
from exhubert_features.store import FeatureStore

EMOTIONS = ("angry", "happy", "sad")
LAYERS, WIDTH, BEST = 5, 16, 3
STRENGTH = (0.0, 0.3, 0.6, 2.0, 0.6)  # how loudly each layer speaks of the emotion


def write_emotional_store(
    path: Path,
    *,
    speakers: int = 8,
    clips: int = 15,
    seed: int = 0,
    frame_layers: tuple[int, ...] = (),
    preprocess: str = "card",
    source: str = "here",
    audio: str = "",
    corpus: str = "",
    spec: ExtractionSpec | None = None,
) -> FeatureStore:
    """``speakers`` × ``clips`` rows with meta columns emotion, arousal, speaker; one failure.

    What an emotion looks like is the same for every seed: stores differ as corpora do. Ids are of
    the seed, so that two stores of one seed have the same; ``audio`` makes their audio differ.
    """
    model = ModelIdentity(
        weights_sha256="a" * 64,
        architecture="exhubert",
        num_states=LAYERS,
        hidden_size=WIDTH,
        classes=("x", "y"),
        precision="float32",
    )
    spec = spec or ExtractionSpec(frame_layers=frame_layers, preprocess=preprocess)  # type: ignore[arg-type]
    made = _rows(speakers, clips, seed, len(frame_layers))
    rows = _Rows(_of_corpus(row, audio, corpus, spec) for row in made)
    rows.provenance = {"source": source}
    return FeatureStore.write(path, rows, fingerprint=Fingerprint(model=model, spec=spec))


class _Rows(list):
    """Rows that say where their model lay, as an extraction does."""

    provenance: dict[str, str]


def _of_corpus(
    row: ClipFeatures | ClipFailure, audio: str, corpus: str, spec: ExtractionSpec
) -> ClipFeatures | ClipFailure:
    """The row with other audio, its corpus among its columns, and the layers asked for."""
    if isinstance(row, ClipFailure):
        return row
    digest = hashlib.sha256(f"{audio}{row.id}".encode()).hexdigest()
    meta = {**row.meta, "corpus": corpus} if corpus else row.meta
    pooled = row.pooled if spec.layers is None else row.pooled[list(spec.layers)]
    return replace(row, audio_sha256=digest, meta=meta, pooled=pooled)


def labels_of(store: FeatureStore, target: str = "emotion") -> Labels:
    return Labels.from_store(store, target=target)


def _rows(
    speakers: int, clips: int, seed: int, frame_layers: int
) -> Iterator[ClipFeatures | ClipFailure]:
    shape = np.random.default_rng(99).normal(size=(len(EMOTIONS) + 1, WIDTH))
    random = np.random.default_rng(seed)
    for speaker in range(speakers):
        voice = random.normal(size=WIDTH)
        for clip in range(clips):
            emotion, arousal = clip % len(EMOTIONS), random.normal()
            meaning = shape[emotion] + arousal * shape[-1]
            pooled = np.stack([s * meaning + voice + random.normal(size=WIDTH) for s in STRENGTH])
            name = f"{seed}-{speaker}-{clip:02d}"
            length = int(random.integers(3, 9))
            noise = random.normal(size=(frame_layers, length, WIDTH))
            yield ClipFeatures(
                id=name,
                clip_id=name,
                file=f"/audio/{name}.wav",
                start=0.0,
                end=1.0,
                samples=16_000,
                audio_sha256=hashlib.sha256(name.encode()).hexdigest(),
                pooled=pooled[:, None].astype(np.float16),
                logits=np.zeros(2, np.float32),
                frames=(2 * meaning + voice + noise).astype(np.float16) if frame_layers else None,
                meta={
                    "emotion": EMOTIONS[emotion],
                    "arousal": f"{arousal:.4f}",
                    "speaker": f"s{speaker}",
                },
            )
    yield ClipFailure(id="broken", file="/audio/broken.wav", kind="unreadable", reason="no audio")
