"""Audio to features: a plan's clips read ahead, encoded in batches, given back one by one."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..audio.memory import memory_limit
from ..errors import AudioError, UsageError
from ..fingerprint import Fingerprint
from ..inference import Inference
from ..records import ClipFailure, ClipFeatures, Item, PlannedClip
from ..register import NameSet
from ..spec import SAMPLE_RATE, ExtractionSpec, resolve_layers
from ..windows import expected_size, plan_windows
from .assembly import ClipAssembly
from .batching import Batches
from .dataframe import clip_table
from .decoding import Reader, decode_ahead
from .outlook import Outlook, look_ahead
from .planning import Plan, worker_count
from .pooling import parts_of
from .progress import Progress

if TYPE_CHECKING:
    import pandas as pd

    from ..store import FeatureStore, WriteProgress

MOST_UNFINISHED = 1 << 14  # clips that wait for one before them: mostly, those there already

Result = list[ClipFeatures] | ClipFailure | None  # None: it is there already


class Extraction:
    """A planned extraction; made by :meth:`exhubert_features.Encoder.extract`.

    Nothing is computed before it is iterated over, turned into a DataFrame or written to a
    store, and each of these computes anew.

    Attributes
    ----------
    fingerprint
        What decides the numbers. :meth:`outlook` and :meth:`write` set it to that of the store
        where they go on with one in which frames have gaps.
    provenance
        Where the weights were found and what ran them; decides no numbers.
    plan
        What to do: entries, one by one.
    failures
        Clips without features, of those tried so far, by id.
    """

    def __init__(
        self,
        plan: Plan,
        encoder: Inference,
        spec: ExtractionSpec,
        *,
        batch_size: int | None = None,
        workers: int | None = None,
        strict: bool = False,
    ) -> None:
        if batch_size is not None and batch_size < 1:
            raise UsageError(f"batch_size is {batch_size}", expected="at least 1")
        self.plan = plan
        self.encoder = encoder
        spec = replace(spec, preprocess=encoder.resolve_preprocess(spec.preprocess))
        self.fingerprint = self._asked = Fingerprint(model=encoder.identity, spec=spec)
        self.provenance = {**encoder.provenance, "device": str(encoder.device)}
        self._failed: dict[str, ClipFailure] = {}
        self.batch_size = batch_size
        self._workers = worker_count(workers)
        self._strict = strict
        self._progress = Progress(0, 0.0, shown=False)

    @property
    def spec(self) -> ExtractionSpec:
        """What to keep of each clip, with layers as ids."""
        return self.fingerprint.spec

    @property
    def failures(self) -> list[ClipFailure]:
        """Clips without features, of those tried so far."""
        return list(self._failed.values())

    def __iter__(self) -> Iterator[ClipFeatures | ClipFailure]:
        """Give rows and failures in the order of the source."""
        for _, result in self.results(self.plan):
            if isinstance(result, ClipFailure):
                yield result
            else:
                yield from result or ()

    def results(
        self, entries: Iterable[Item], has: Callable[[str, str], bool] | None = None
    ) -> Iterator[tuple[PlannedClip, Result]]:
        """Give each clip with its rows or its failure, lazily and in the order given.

        Entries are taken as they are needed, some hundred ahead, and each is read once: what is
        held in memory does not grow with their number.

        Parameters
        ----------
        entries
            Those of a plan, or some of them.
        has
            Tells by id and SHA-256 whether a clip is there already: it is then not decoded, and
            its result is None. Called in threads.
        """
        unfinished: deque[tuple[PlannedClip, ClipAssembly | ClipFailure | None]] = deque()
        batches = Batches(self.encoder, self.spec, self.batch_size)
        reader = Reader(self.spec.channel, has or (lambda name, audio: False), self._admit)
        for clip, wave in decode_ahead(entries, reader, self._workers):
            if isinstance(wave, ClipFailure):
                self._progress.update(clip.samples / SAMPLE_RATE)
            begun = self._begin(clip, wave, batches) if isinstance(wave, np.ndarray) else wave
            unfinished.append((clip, begun))
            while batches.plenty or (batches and len(unfinished) > MOST_UNFINISHED):
                self._progress.update(batches.encode_next())
                yield from self._finished(unfinished)
            yield from self._finished(unfinished)
        while batches:
            self._progress.update(batches.encode_next())
            yield from self._finished(unfinished)

    def outlook(self, path: str | Path | None = None) -> Outlook:
        """Judge what a run will come to, by names and by the headers of at most some thousand.

        Parameters
        ----------
        path
            The store that will be written to; clips whose ids it holds count as done, though
            only their hashes will tell.

        Raises
        ------
        FingerprintMismatch
            When the store was made with other weights or settings.
        """
        from ..store import FeatureStore

        stored = NameSet()
        if path is not None and self.go_on_with(path):
            for name in filter(self.plan.holds, FeatureStore(path).column("clip_id")):
                stored.add(name)
        return look_ahead(
            self.plan,
            self._size_of,
            channel=self.spec.channel,
            stored=stored,
            workers=self._workers,
        )

    def to_dataframe(
        self, *, layer: int | None = None, pool: str | None = None, progress: bool = False
    ) -> pd.DataFrame:
        """Extract one layer and pool of every clip into a DataFrame.

        Parameters
        ----------
        layer
            A hidden-state id of those asked for; the last of them by default. Layers above it
            do not run.
        pool
            One of those asked for; the first by default.
        progress
            Show on stderr how far it is.

        Returns
        -------
        pandas.DataFrame
            A row for each clip (or window, with segments), in the order of the source, on
            audformat's index (file, start, end): ``id``, ``error`` (None, or why a clip failed:
            its features are NaN) and ``feature_0``, ``feature_1``, ... (D of them, float32).
        """
        layers, pools = self.spec.layers or (), self.spec.pools
        chosen = layers[-1] if layer is None else resolve_layers(layer, self.encoder.num_states)[0]
        if chosen not in layers or pool not in (None, *pools):
            raise UsageError(
                f"layer {chosen}, pool {pool}",
                expected=f"a layer out of {list(layers)} and a pool out of {list(pools)}",
            )
        narrowed = self._narrowed(chosen, pool or pools[0])
        rows = list(narrowed.iterate(progress=progress))
        self._failed = narrowed._failed
        width = self.encoder.hidden_size
        missing = np.full(width, np.nan, np.float32)
        vectors = [missing if isinstance(row, ClipFailure) else row.pooled[0, 0] for row in rows]
        features = np.array(vectors, np.float32).reshape(len(rows), width)
        columns: dict[str, Any] = {
            "id": [row.id for row in rows],
            "error": [getattr(row, "reason", None) for row in rows],
        }
        columns |= {f"feature_{number}": features[:, number] for number in range(width)}
        return clip_table(rows, columns)

    def iterate(self, *, progress: bool = False) -> Iterator[ClipFeatures | ClipFailure]:
        """Iterate over the rows, showing on stderr how far it is if wanted."""
        with self._watched(self.outlook() if progress else None):
            yield from self

    def go_on_with(self, path: str | Path) -> bool:
        """Take the fingerprint of a store, if it is this one's but of an earlier version.

        Parameters
        ----------
        path
            Folder of the store, which need not be there.

        Returns
        -------
        bool
            Whether it is there.

        Raises
        ------
        FingerprintMismatch
            When the store was made with other weights or settings.
        """
        from ..store.journal import read_description, require_same

        path = Path(path)
        self.fingerprint = self._asked
        if not (path / "store.json").is_file():
            return False
        found = read_description(path)["fingerprint"]
        # A store with frames that version 0.1.0 began goes on with the windows of then.
        earlier = replace(self._asked, spec=replace(self._asked.spec, gapless=False))
        if not found.difference(earlier):
            self.fingerprint = earlier
        require_same(path, found, self.fingerprint)
        return True

    def write(
        self,
        path: str | Path,
        *,
        progress: bool = False,
        outlook: Outlook | None = None,
        shard_clips: int = 256,
        on_progress: Callable[[WriteProgress], None] | None = None,
    ) -> FeatureStore:
        """Extract what is missing into a store; see :meth:`FeatureStore.write`.

        Parameters
        ----------
        path
            Folder of the store; made when absent. Interrupted at any moment, the same call goes
            on where it stopped.
        progress
            Show on stderr how far it is.
        outlook
            What :meth:`outlook` told of this store, where that was asked already.
        shard_clips
            Clips in one file of the store.
        on_progress
            Called after each clip; what it raises ends the run, and what is done is kept.

        Returns
        -------
        FeatureStore
            The store, opened; clips that failed are its ``failures``.
        """
        from ..store import FeatureStore, ShardLimits

        def report(state: WriteProgress) -> None:
            self._progress.failed = state.failed  # the store refuses, too
            if state.failure is not None:
                self._failed[state.failure.id] = state.failure
            if on_progress is not None:
                on_progress(state)

        if outlook is None and progress:
            outlook = self.outlook(path)
        elif outlook is None:
            self.go_on_with(path)
        with self._watched(outlook if progress else None):
            limits = ShardLimits(clips=shard_clips)
            return FeatureStore.write(path, self, limits=limits, on_progress=report)

    @contextmanager
    def _watched(self, outlook: Outlook | None) -> Iterator[None]:
        """Show the progress of runs inside; None shows nothing."""
        self._failed = {}
        if outlook is not None:
            failing = len(outlook.failures)
            clips = None if outlook.clips is None else outlook.clips + failing
            self._progress = Progress(clips, outlook.seconds)
        try:
            yield
        finally:
            self._progress.close()
            self._progress = Progress(0, 0.0, shown=False)

    def _narrowed(self, layer: int, pool: str) -> Extraction:
        """Plan the same clips with one vector each."""
        spec = replace(self.spec, layers=(layer,), pools=(pool,), frame_layers=(), logits=False)
        options = {"batch_size": self.batch_size, "workers": self._workers}
        return Extraction(self.plan, self.encoder, spec, strict=self._strict, **options)

    def _size_of(self, clip: PlannedClip) -> tuple[int, int]:
        """Tell how many rows a clip will give, and at most how many frames."""
        return expected_size(clip.samples, self.spec, self.encoder.frame_count)

    def _admit(self, clip: PlannedClip) -> int:
        """Give the bytes that a clip's samples may take, unless what it becomes takes too many."""
        limit = memory_limit() // self._workers  # as many are decoded at a time
        rows, frames = self._size_of(clip) if clip.samples else (0, 0)  # 0: nobody knows yet
        kept = rows * len(self.spec.layers or ()) * len(parts_of(self.spec.pools))
        size = 4 * self.encoder.hidden_size * (kept + 2 * frames * len(self.spec.frame_layers))
        if size > limit:
            raise AudioError(
                f"{clip.file or clip.id} will give {rows:,} rows and {frames:,} frames, which take "
                f"{size / 1e6:,.0f} MB of memory",
                expected=f"at most {limit / 1e6:,.0f} MB for one clip",
                remedy="Cut it into parts with start and end columns in a manifest, or keep fewer "
                "layers",
                kind="memory",
            )
        return limit

    def _begin(self, clip: PlannedClip, wave: np.ndarray, batches: Batches) -> ClipAssembly:
        """Cut a decoded clip into windows and queue them."""
        windows = plan_windows(len(wave), self.spec, self.encoder.frame_count)
        assembly = ClipAssembly(clip, wave, windows, self.spec, batches.parts)
        batches.put(assembly)
        return assembly

    def _finished(
        self, unfinished: deque[tuple[PlannedClip, ClipAssembly | ClipFailure | None]]
    ) -> Iterator[tuple[PlannedClip, Result]]:
        """Hand out the clips at the head of the queue that are done."""
        while unfinished:
            clip, head = unfinished[0]
            result = head.result if isinstance(head, ClipAssembly) else head
            if result is None and head is not None:
                return
            unfinished.popleft()
            if result is not None:
                self._count(clip, result)
            yield clip, result

    def _count(self, clip: PlannedClip, result: list[ClipFeatures] | ClipFailure) -> None:
        failed = isinstance(result, ClipFailure)
        self._failed.pop(clip.id, None)
        if isinstance(result, ClipFailure):
            self._failed[clip.id] = result
            if self._strict:
                raise AudioError(result.reason, kind=result.kind)
        self._progress.update(clips=1, failed=failed)
