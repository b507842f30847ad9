"""Labels and groups for the rows of a store, joined strictly: nothing is guessed or lost."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np

from ..errors import LabelError
from ..store import CORPUS, SeveralStores
from ..tables import clean, read_table
from .annotators import settle_annotators
from .duplicates import qualify_groups, unite_same_audio
from .joining import Matches, Row, Table, count_and_name, match_rows
from .targets import Sought, known_of, sought
from .values import Task, is_missing, target_names, unite_lookalikes

if TYPE_CHECKING:
    import pandas as pd

    from ..store import FeatureStore

    LabelSource = str | Path | Sequence[Mapping[str, str]] | pd.DataFrame


@dataclass(frozen=True, kw_only=True)
class LabelOptions:
    """How labels reach the clips, where the defaults do not fit."""

    task: Task | None = None  # None: regression where every label is a number, one with a fraction
    mapping: Mapping[str, str] = field(default_factory=dict)  # old: new; new "" leaves clips out
    drop_unlabelled: bool = False  # a clip without a label is a mistake more often than a wish
    id_column: str | None = None  # None: the first known id or file column that fits
    annotators: bool = False  # the table has a row per annotator: majority, or mean of numbers
    # labels are shares of classes: of the target's columns, one a class, or of annotators
    soft: bool = False
    columns: tuple[str, ...] = ()  # more columns to keep, such as gender, for scores by them


@dataclass(frozen=True, kw_only=True)
class Labels:
    """The labelled rows of a store, in the store's order.

    ``rows`` (N,) are positions in the store, ``values`` (N,) class indices or floats, or (N, T)
    floats of several targets, NaN where one is unknown. ``groups`` (N,) are speakers, ``clips``
    (N,) the clip each row is (a window) of, ``splits`` (N,) the given split or fold names, or
    None, ``audio`` (N,) hashes of the recordings, ``columns`` more columns (N,) by name. Soft
    labels have ``shares`` (N, C) of the classes; their ``values`` are the largest, and ``tied``
    (N,) says where two are as large.
    """

    target: str  # a column, or several with commas between
    task: Task
    classes: tuple[str, ...]  # empty for regression
    rows: np.ndarray
    ids: np.ndarray
    clips: np.ndarray
    values: np.ndarray
    groups: np.ndarray
    group: str | None  # the column; None: every clip is its own group
    splits: np.ndarray | None = None
    audio: np.ndarray | None = None
    columns: Mapping[str, np.ndarray] = field(default_factory=dict)
    shares: np.ndarray | None = None
    tied: np.ndarray | None = None
    warnings: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def targets(self) -> tuple[str, ...]:
        """Names of the numbers to predict; empty for classes."""
        return target_names(self.target) if self.task == "regression" else ()

    @property
    def wanted(self) -> np.ndarray:
        """(N, C) shares of the classes, one-hot where they are certain; or (N, T) numbers."""
        if self.task == "regression":
            return self.values.reshape(len(self), -1).astype(np.float32)
        known = np.eye(len(self.classes))[self.values] if self.shares is None else self.shares
        return known.astype(np.float32)

    @property
    def decided(self) -> np.ndarray:
        """(N,) Whether one class, or number, is known: False where two classes are as likely."""
        return np.ones(len(self), dtype=bool) if self.tied is None else ~self.tied

    @staticmethod
    def from_store(
        store: FeatureStore,
        *,
        target: str | Sequence[str],
        group: str | None = "speaker",
        labels: LabelSource | None = None,
        split: str | None = None,
        classes: Sequence[str] = (),
        options: LabelOptions | None = None,
    ) -> Labels:
        """Join labels to the rows of a store.

        Parameters
        ----------
        target, group, split
            Columns: what to predict (several as a sequence, or with commas between), who speaks
            (None: nobody is known), the given split.
        labels
            A table (CSV, TSV, JSON file; rows; DataFrame), joined on its id or file column.
            None: the columns of the manifest that the store was made from.
        classes
            Class names in index order, where a head dictates them.

        Raises
        ------
        LabelError
            When clips and labels do not fit, naming those concerned.
        """
        # Corpora that are kept apart have a score each, and speakers of their own.
        apart = isinstance(store, SeveralStores) or split == CORPUS
        if apart:
            options = options or LabelOptions()
            options = replace(options, columns=tuple(dict.fromkeys((*options.columns, CORPUS))))
        return join_labels(
            store_rows(store),
            None if labels is None else table_rows(labels),
            target=target,
            group=group,
            split=split,
            classes=classes,
            failed=[{"id": lost.id, "file": lost.file} for lost in store.failures],
            options=options,
            within=CORPUS if apart else None,
        )

    def take(self, positions: np.ndarray) -> Labels:
        """Return the labels at some positions (n,)."""
        arrays = ("rows", "ids", "clips", "values", "groups", "splits", "audio", "shares", "tied")
        taken = {
            name: None if getattr(self, name) is None else getattr(self, name)[positions]
            for name in arrays
        }
        columns = {name: column[positions] for name, column in self.columns.items()}
        return replace(self, **taken, columns=columns)  # type: ignore[arg-type]


def store_rows(store: FeatureStore) -> list[dict[str, str]]:
    """Return what :func:`join_labels` needs of each row of a store, in its order."""
    names = ("meta", "id", "clip_id", "file", "audio_sha256")
    return [
        {
            **{clean(key): clean(value) for key, value in json.loads(meta).items()},
            "id": name,
            "clip_id": clip,
            "file": file,
            "audio_sha256": audio,
        }
        for meta, name, clip, file, audio in zip(*map(store.column, names), strict=True)
    ]


def table_rows(source: LabelSource) -> list[dict[str, str]]:
    """Return rows of text out of a table's file, a DataFrame, or rows."""
    if isinstance(source, str | Path):
        return [dict(row.cells) for row in read_table(source).require_whole().rows]
    if isinstance(source, Sequence):
        rows = cast("Sequence[Mapping[str, str]]", source)
        return [{clean(key): clean(value) for key, value in row.items()} for row in rows]
    named = source.reset_index() if any(source.index.names) else source
    return [
        {clean(str(key)): "" if value != value else clean(str(value)) for key, value in row.items()}
        for row in named.to_dict("records")
    ]


def join_labels(
    clips: Table,
    table: Table | None = None,
    *,
    target: str | Sequence[str],
    group: str | None = "speaker",
    split: str | None = None,
    classes: Sequence[str] = (),
    failed: Table = (),
    options: LabelOptions | None = None,
    within: str | None = None,
) -> Labels:
    """Give every row of a store its label, group and split.

    Parameters
    ----------
    clips
        One mapping per row of the store: ``id``, ``clip_id``, ``file``, perhaps
        ``audio_sha256``, and its meta columns.
    table
        Label rows to join on their id or file column; None: the clips' own columns. A column
        other than the target that it lacks is taken from the clips.
    target, group, split, classes
        As for :meth:`Labels.from_store`.
    failed
        ``id`` and ``file`` of clips without features: a label for them is nothing odd.
    within
        A column: groups of one name are the same only where it says the same.
    """
    options = options or LabelOptions()
    aim = sought(
        target, soft=options.soft, mapping=options.mapping, task=options.task, classes=classes
    )
    settled: list[str] = []
    if table is not None and options.annotators:
        table, aim, settled = settle_annotators(table, aim, options.id_column)
    more = dict.fromkeys(name for name in (group, split, *options.columns) if name)
    columns = [*aim.columns, *(name for name in more if name not in aim.columns)]
    from_table, notes = _divide_columns(clips, table, columns, aim.columns)
    if table is None:
        rows: list[Row | None] = list(clips)
        matches = None
    else:
        matches = match_rows([*clips, *failed], table, from_table, options.id_column)
        rows = [
            None if row is None else {**clip, **{name: row.get(name, "") for name in from_table}}
            for clip, row in zip(clips, matches.rows[: len(clips)], strict=True)
        ]
        notes += [matches.note] if matches.note else []
    complete, dropped = _settle(clips, rows, matches, list(more), aim, options)
    found, left_out = _map_labels(complete, aim)
    if within and group:
        corpora = [clips[at].get(within) or row.get(within, "") for at, row in found]
        qualified, alike = qualify_groups([row[group] for _, row in found], corpora, group)
        pairs = zip(found, qualified, strict=True)
        found = [(position, {**row, group: name}) for (position, row), name in pairs]
        notes += alike
    labels = _labels(clips, found, aim, group, split, classes, options)
    return replace(labels, warnings=(*settled, *notes, *dropped, *left_out, *labels.warnings))


def _divide_columns(
    clips: Table, table: Table | None, columns: Sequence[str], targets: Sequence[str]
) -> tuple[list[str], list[str]]:
    """Columns that the table must give, and a note on those that the clips give instead."""
    if table is None:
        _require_columns(clips, columns)
        return list(columns), []
    lacking = [
        name
        for name in columns
        if name not in targets and not _has(table, name) and _has(clips, name)
    ]
    rest = [name for name in columns if name not in lacking]
    _require_columns(table, rest)
    if not lacking:
        return rest, []
    return rest, [
        f"The label table has no column {' or '.join(lacking)}: taken from the store's own"
    ]


def _labels(
    clips: Table,
    found: Sequence[tuple[int, Row]],
    aim: Sought,
    group: str | None,
    split: str | None,
    classes: Sequence[str],
    options: LabelOptions,
) -> Labels:
    positions, rows = [position for position, _ in found], [row for _, row in found]
    ids = [clips[position]["id"] for position in positions]
    owners = [clips[position].get("clip_id", clips[position]["id"]) for position in positions]
    audio = [clips[position].get("audio_sha256", "") for position in positions]
    known = known_of(aim, rows, ids, task=options.task, classes=classes)
    groups, notes = list(owners), list(known.notes)
    if group:
        groups, alike = unite_lookalikes([row[group] for row in rows], group)
        notes += alike
    united, doubled = unite_same_audio(groups, audio, ids, group or "clip")
    columns = {}
    for name in options.columns:
        column, alike = unite_lookalikes([row[name] for row in rows], name)
        columns[name] = np.array(column)
        notes += alike if name != group else []
    return Labels(
        target=aim.target,
        task=known.task,
        classes=known.classes,
        rows=np.array(positions),
        ids=np.array(ids),
        clips=unite_same_audio(owners, audio, ids, "clip")[0],
        values=known.values,
        groups=united,
        group=group,
        splits=np.array([row[split] for row in rows]) if split else None,
        audio=np.array(audio),
        columns=columns,
        shares=known.shares,
        tied=known.tied,
        warnings=(*notes, *doubled),
    )


def _map_labels(
    complete: Sequence[tuple[int, Row]], aim: Sought
) -> tuple[list[tuple[int, Row]], list[str]]:
    """Rows under their new labels, without those that the map leaves out."""
    renamed = [(position, aim.renamed(row)) for position, row in complete]
    kept = [(position, row) for position, row in renamed if aim.is_known(row)]
    if not kept:
        raise LabelError(f"no clip has a label in column {aim.target!r}")
    notes = aim.words_for_unused([row for _, row in complete])
    if len(kept) < len(renamed):
        left_out = len(renamed) - len(kept)
        notes.append(f"Left out by the label map: {left_out} of {len(renamed)} clips")
    return kept, notes


def _settle(
    clips: Table,
    rows: Sequence[Row | None],
    matches: Matches | None,
    columns: Sequence[str],
    aim: Sought,
    options: LabelOptions,
) -> tuple[list[tuple[int, Row]], list[str]]:
    """Clips (by position) that have all they need, and what was dropped; else raise."""
    complete = [
        (position, row)
        for position, row in enumerate(rows)
        if row is not None
        and aim.is_known(row)
        and not any(is_missing(row.get(name)) for name in columns)
    ]
    labelled = {position for position, _ in complete}
    missing = [clip["id"] for position, clip in enumerate(clips) if position not in labelled]
    if matches and matches.contradictory:
        raise LabelError(
            f"labels contradict each other for {count_and_name(matches.contradictory, 'clip')}",
            expected="one label for each",
            remedy="--annotators takes a table with a row per annotator",
        )
    problems = {
        "no label, group or split for": (missing, "clip"),
        "no clip in the store for": (matches.extra if matches else [], "label"),
        "more than one row for": (matches.repeated if matches else [], "label"),
    }
    found = [f"{what} {count_and_name(*names)}" for what, names in problems.items() if names[0]]
    words = aim.words_for_nothing([row for row in rows if row])
    if found and not options.drop_unlabelled:
        remedy = "--drop-unlabelled goes on without them"
        raise LabelError("; ".join([*found, *words]), remedy=remedy)
    return complete, [*(f"Dropped: {text}" for text in found), *words]


def _has(table: Table, column: str) -> bool:
    return any(column in row for row in table)


def _require_columns(table: Table, columns: Sequence[str]) -> None:
    for column in columns:
        if not _has(table, column):
            known = sorted({name for row in table[:100] for name in row} - {"audio_sha256"})
            raise LabelError(
                f"there is no column {column!r}",
                expected=f"one of {', '.join(known) or 'the columns of --labels'}",
                remedy="Name the columns with --target, --group and --split-column",
            )
