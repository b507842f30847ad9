"""Several stores read as one: rows of all, each knowing its corpus; nothing is copied."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from ..errors import FingerprintMismatch, StoreError, UsageError
from ..records import ClipFeatures
from .features import FeatureStore
from .journal import StoredFailure
from .rows import unknown_id
from .shard import ShardRows

CORPUS = "corpus"  # the column that says where a row comes from

Stores = FeatureStore | str | Path | Sequence[FeatureStore | str | Path]
NamedStores = Stores | Mapping[str, FeatureStore | str | Path]


def open_stores(stores: NamedStores) -> FeatureStore:
    """Open one store, or several as one.

    Parameters
    ----------
    stores
        A store or its path, or several; a mapping names the corpus of each, as does a path
        written ``NAME=PATH``.
    """
    if isinstance(stores, FeatureStore | str | Path):
        stores = [stores]
    pairs: list[tuple[str | None, FeatureStore | str | Path]] = (
        list(stores.items()) if isinstance(stores, Mapping) else [_named(one) for one in stores]
    )
    if not pairs:
        raise UsageError("no store at all", expected="at least one")
    opened = [
        (name, one if isinstance(one, FeatureStore) else FeatureStore(one)) for name, one in pairs
    ]
    if len(opened) == 1 and opened[0][0] is None:
        return opened[0][1]
    return SeveralStores(opened)


def _named(store: FeatureStore | str | Path) -> tuple[str | None, FeatureStore | str | Path]:
    name, equals, path = str(store).partition("=")
    if isinstance(store, FeatureStore) or not equals or not name or Path(store).exists():
        return None, store
    return name, path


class SeveralStores(FeatureStore):
    """Rows of several stores in turn; made by :func:`open_stores`.

    Each row's columns say its ``corpus``: the name given, else what all rows of its store say in
    that column, else the name of the store's folder. Ids that stand in two corpora are written
    ``corpus/id``.
    """

    def __init__(self, stores: Sequence[tuple[str | None, FeatureStore]]) -> None:
        self._stores = [store for _, store in stores]
        self.paths = [store.path for store in self._stores]
        self._require_comparable()
        self._corpora = _corpora(stores)
        self._names = {column: self._qualified(column) for column in ("id", "clip_id")}
        # One that knows its model's config leads: others may not know theirs.
        leader = min(self._stores, key=lambda one: one.fingerprint.model.config_sha256 is None)
        self.path = Path(" + ".join(map(str, self.paths)))  # to be shown, not to be opened
        self.fingerprint = leader.fingerprint
        self.provenance = dict(self._stores[0].provenance)

    def _require_comparable(self) -> None:
        first = self._stores[0]
        for other in self._stores:
            if not len(other):
                raise UsageError(f"{other.path} holds no clips", remedy="Leave it out")
            if differing := other.fingerprint.difference(first.fingerprint):
                raise FingerprintMismatch(
                    f"{other.path} and {first.path} are not of one kind: {'; '.join(differing)}",
                    expected="stores of one model and one setting",
                    remedy="Extract them alike",
                )

    def _qualified(self, column: str) -> list[str]:
        """Names of all rows; those in two corpora with the corpus in front."""
        each = [store.column(column) for store in self._stores]
        holders = Counter(  # in how many stores a name stands, corpus by corpus
            pair
            for names, corpora in zip(each, self._corpora, strict=True)
            for pair in {*zip(names, corpora, strict=True)}
        )
        corpora_of = Counter(name for name, _ in holders)
        self._refuse_twice(holders)
        found = [
            f"{corpus}/{name}" if corpora_of[name] > 1 else name
            for names, corpora in zip(each, self._corpora, strict=True)
            for name, corpus in zip(names, corpora, strict=True)
        ]
        if column == "id" and len(set(found)) < len(found):
            raise UsageError(
                "an id of one store is how another's is written with its corpus in front",
                expected="ids that tell clips apart",
                remedy="NAME=STORE names another corpus",
            )
        return found

    def _refuse_twice(self, holders: Mapping[tuple[str, str], int]) -> None:
        twice = [(name, corpus) for (name, corpus), count in holders.items() if count > 1]
        if twice:
            name, corpus = twice[0]
            raise UsageError(
                f"{len(twice)} ids stand in two stores of the corpus {corpus}, first {name!r}",
                expected="each clip once",
                remedy="`exhubert merge` keeps one of each; NAME=STORE names another corpus",
            )

    @property
    def failures(self) -> tuple[StoredFailure, ...]:
        """Clips of all stores that did not become features, and why."""
        return tuple(failure for store in self._stores for failure in store.failures)

    @property
    def pending(self) -> tuple[str, ...]:
        """Clips that are still to be extracted."""
        return tuple(name for store in self._stores for name in store.pending)

    @property
    def shard_count(self) -> int:
        """How many shard files there are."""
        return sum(store.shard_count for store in self._stores)

    @property
    def stored_bytes(self) -> int:
        """Size of all shards."""
        return sum(store.stored_bytes for store in self._stores)

    def column(self, name: str) -> list[Any]:
        """Give one column of the table of rows; ``meta`` says the corpus of each, too."""
        if name in self._names:
            return list(self._names[name])
        values = [value for store in self._stores for value in store.column(name)]
        if name != "meta":
            return values
        corpora = (corpus for names in self._corpora for corpus in names)
        return [
            json.dumps({**json.loads(meta), CORPUS: corpus})
            for meta, corpus in zip(values, corpora, strict=True)
        ]

    @cached_property
    def _places(self) -> dict[str, tuple[FeatureStore, str]]:
        owners = ((store, name) for store in self._stores for name in store.ids)
        return dict(zip(self.ids, owners, strict=True))

    def _place(self, name: str) -> tuple[FeatureStore, str]:
        if name not in self._places:
            raise unknown_id(name, self.ids, self.path)
        return self._places[name]

    def __len__(self) -> int:
        return sum(map(len, self._stores))

    def __contains__(self, name: object) -> bool:
        return name in self._places

    def __getitem__(self, name: str) -> ClipFeatures:
        """One row, its bytes compared with its checksums."""
        store, own = self._place(name)
        return replace(store[own], id=name)

    def vector(self, name: str, *, layer: int, pool: str = "mean") -> np.ndarray:
        """Read one layer of one row, (D,)."""
        store, own = self._place(name)
        return store.vector(own, layer=layer, pool=pool)

    def frames(self, name: str, *, layer: int) -> np.ndarray:
        """Read the frames of one layer of one row, (T, D)."""
        store, own = self._place(name)
        return store.frames(own, layer=layer)

    def matrix(self, *, layer: int, pool: str = "mean") -> np.ndarray:
        """Read one layer of all rows, (N, D)."""
        return np.concatenate([one.matrix(layer=layer, pool=pool) for one in self._stores])

    def logits(self) -> np.ndarray:
        """Read the class scores of all rows, (N, C)."""
        return np.concatenate([store.logits() for store in self._stores])

    def frame_counts(self) -> np.ndarray:
        """Tell how many frames each row has stored, (N,)."""
        return np.concatenate([store.frame_counts() for store in self._stores])

    def blocks(self) -> Iterator[ShardRows]:
        """Refuse: rows of several stores are copied by `exhubert merge`, under their own ids."""
        return self._refuse()

    def row(self, name: str) -> int:
        """Find where an id stands among all rows."""
        self._place(name)
        return self.ids.index(name)

    def _refuse(self) -> NoReturn:
        raise StoreError(
            f"{self.path} are several stores", remedy="`exhubert merge` makes one of them"
        )


def _corpora(stores: Sequence[tuple[str | None, FeatureStore]]) -> list[list[str]]:
    """Corpus of each row of each store."""
    found = [_corpus_column(name, store) for name, store in stores]
    called = Counter(
        store.path.stem for (_, store), said in zip(stores, found, strict=True) if said is None
    )
    alike = [name for name, count in called.items() if count > 1]
    if alike:
        raise UsageError(
            f"{called[alike[0]]} stores are called {alike[0]!r}",
            expected="names that tell their corpora apart",
            remedy="NAME=STORE names the corpus of a store",
        )
    return [
        [store.path.stem] * len(store) if said is None else said
        for (_, store), said in zip(stores, found, strict=True)
    ]


def _corpus_column(name: str | None, store: FeatureStore) -> list[str] | None:
    """As given, or as all rows say; None where not all do."""
    if name is not None:
        return [name] * len(store)
    said = [str(json.loads(meta).get(CORPUS) or "").strip() for meta in store.column("meta")]
    return said if said and all(said) else None
