"""Where evaluated clips come from: what a report says of a store without opening it again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, is_dataclass
from typing import Any

import numpy as np

from ..corpora import recognise, seen_in_training
from ..store import FeatureStore, SeveralStores
from .labels import Labels


@dataclass(frozen=True, kw_only=True)
class Origin:
    """A store as a report speaks of it; ``files``, ``starts`` and ``ends`` (N,) of the labels."""

    path: str
    model: str  # where the encoder's weights came from
    fingerprint: Mapping[str, Any]
    files: np.ndarray
    starts: np.ndarray
    ends: np.ndarray
    failures: tuple[Mapping[str, Any], ...] = ()
    windows: bool = False  # each row is a window of a clip
    warnings: tuple[str, ...] = ()


def origin_of(store: FeatureStore, labels: Labels, corpus: str | None = None) -> Origin:
    """Describe the store that labels belong to.

    Parameters
    ----------
    corpus
        Its name, to warn when the released weights were fine-tuned on it; None: asked of the
        store's names and paths.
    """
    model = store.fingerprint.model
    return Origin(
        path=str(store.path),
        model=str(store.provenance.get("source") or model.architecture),
        fingerprint=store.fingerprint.to_dict(),
        files=np.array(store.column("file"))[labels.rows],
        starts=np.array(store.column("start"), dtype=float)[labels.rows],
        ends=np.array(store.column("end"), dtype=float)[labels.rows],
        failures=tuple(
            asdict(lost) if is_dataclass(lost) else dict(lost) for lost in store.failures
        ),
        windows=len(np.unique(labels.clips)) < len(labels) and store.fingerprint.spec.segments,
        warnings=tuple(_corpus_warnings(store, corpus)),
    )


def _corpus_warnings(store: FeatureStore, corpus: str | None) -> list[str]:
    """Was the encoder fine-tuned on this corpus? Its name tells, else names and paths do."""
    paths = store.paths if isinstance(store, SeveralStores) else [store.path]
    hints = [corpus] if corpus else [*(str(one.resolve()) for one in paths), *_meta_hints(store)]
    files = [] if corpus else store.column("file")
    note = seen_in_training(
        hints,
        files=files,
        architecture=store.fingerprint.model.architecture,
        source=store.provenance.get("source"),
    )
    if note and not corpus:
        reasons = " and ".join(
            f"{name} was recognised {why}" for name, why in recognise(hints, files).items()
        )
        note += f" ({reasons}; --corpus NAME says otherwise)"
    return [note] if note else []


def _meta_hints(store: FeatureStore) -> list[str]:
    """Collect what the rows' own columns say of the corpus, each saying once."""
    rows = [json.loads(meta) for meta in dict.fromkeys(store.column("meta"))]
    said = [row.get(key, "") for row in rows for key in ("corpus", "dataset", "database")]
    return list(dict.fromkeys(filter(None, said)))
