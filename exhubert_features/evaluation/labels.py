"""Labels and groups for the rows of a store, joined strictly: nothing is guessed or lost."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from ..errors import LabelError
from .joining import Matches, Row, Table, count_and_name, match_rows

if TYPE_CHECKING:
    from ..store import FeatureStore

MANY_CLASSES = 50  # more distinct numbers than this are hardly names of classes

Task = Literal["classification", "regression"]


@dataclass(frozen=True, kw_only=True)
class Labels:
    """The labelled rows of a store, in the store's order.

    ``rows`` (N,) are positions in the store, ``values`` (N,) class indices or floats,
    ``groups`` (N,) speakers, ``clips`` (N,) the clip each row is (a window) of, ``splits``
    (N,) the given split or fold names, or None.
    """

    target: str
    task: Task
    classes: tuple[str, ...]  # empty for regression
    rows: np.ndarray
    ids: np.ndarray
    clips: np.ndarray
    values: np.ndarray
    groups: np.ndarray
    group: str | None  # the column; None: every clip is its own group
    splits: np.ndarray | None = None
    warnings: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.rows)


def store_rows(store: FeatureStore) -> list[dict[str, str]]:
    """What :func:`join_labels` needs of each row of a store, in its order."""
    columns = (store.column(name) for name in ("meta", "id", "clip_id", "file"))
    return [
        {**json.loads(meta), "id": name, "clip_id": clip, "file": file}
        for meta, name, clip, file in zip(*columns, strict=True)
    ]


def failed_rows(store: FeatureStore) -> list[dict[str, str]]:
    """The clips of a store that have no features, for :func:`join_labels`."""
    return [{"id": lost.id, "file": lost.file} for lost in store.failures]


def read_table(path: str | Path) -> list[dict[str, str]]:
    """Rows of a CSV, TSV or JSON file as text.

    JSON is a list of objects, or one object of ``id: {column: value}`` as in SpeechBrain's
    manifests.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
        if path.suffix.lower() == ".json":
            return _json_rows(json.loads(text), path)
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise LabelError(
            f"cannot read labels from {path}: {error}", expected="a UTF-8 CSV, TSV or JSON file"
        ) from error
    header = text.split("\n", 1)[0]
    delimiter = max("\t;,", key=header.count)
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter)
    rows = list(reader)
    ragged = [index + 2 for index, row in enumerate(rows) if None in row or None in row.values()]
    if ragged:
        raise LabelError(
            f"{path} has {len(ragged)} rows with more or fewer cells than its header, "
            f"first in line {ragged[0]}"
        )
    return [{key.strip(): value.strip() for key, value in row.items()} for row in rows]


def _json_rows(data: object, path: Path) -> list[dict[str, str]]:
    if isinstance(data, dict) and all(isinstance(row, dict) for row in data.values()):
        data = [{"id": key, **row} for key, row in data.items()]
    if not isinstance(data, list) or not all(isinstance(row, dict) for row in data):
        raise LabelError(
            f"{path} is not a table", expected="a list of objects, or id: {column: value}"
        )
    return [
        {str(key): "" if value is None else str(value) for key, value in row.items()}
        for row in data
    ]


def join_labels(
    clips: Table,
    table: Table | None = None,
    *,
    target: str,
    group: str | None = "speaker",
    split: str | None = None,
    task: Task | None = None,
    classes: Sequence[str] = (),
    mapping: Mapping[str, str] | None = None,
    failed: Table = (),
    drop_unlabelled: bool = False,
) -> Labels:
    """Give every row of a store its label, group and split.

    Parameters
    ----------
    clips
        One mapping per row of the store: ``id``, ``clip_id``, ``file`` and its meta columns.
    table
        Label rows to join on their id or file column; None: the clips' own columns.
    target, group, split
        Columns. ``group`` None makes every clip its own group.
    task
        None: regression where every label is a number and one has a fraction.
    classes
        Class names in index order, where a head dictates them.
    mapping
        Label -> label before anything else; an empty new label leaves those clips out.
    failed
        ``id`` and ``file`` of clips without features: a label for them is nothing odd.
    drop_unlabelled
        Leave out clips without a label and labels without a clip, instead of raising.
    """
    columns = [name for name in (target, group, split) if name]
    _require_columns(clips if table is None else table, columns)
    matches = match_rows([*clips, *failed], table, columns) if table is not None else None
    rows = matches.rows[: len(clips)] if matches else list(clips)
    complete, warnings = _settle(clips, rows, matches, columns, drop_unlabelled)
    text = [(mapping or {}).get(row[target], row[target]) for _, row in complete]
    kept = [index for index, label in enumerate(text) if label]
    if len(kept) < len(text):
        warnings.append(f"Left out by the label map: {len(text) - len(kept)} of {len(text)} clips")
    if not kept:
        raise LabelError(f"no clip has a label in column {target!r}")
    found = [complete[index][1] for index in kept]
    positions = [complete[index][0] for index in kept]
    ids = [clips[position]["id"] for position in positions]
    task, names, values = _values([text[index] for index in kept], ids, target, task, classes)
    owners = [clips[position].get("clip_id", clips[position]["id"]) for position in positions]
    return Labels(
        target=target,
        task=task,
        classes=names,
        rows=np.array(positions),
        ids=np.array(ids),
        clips=np.array(owners),
        values=values,
        groups=np.array([row[group] for row in found] if group else owners),
        group=group,
        splits=np.array([row[split] for row in found]) if split else None,
        warnings=tuple(warnings),
    )


def _settle(
    clips: Table,
    rows: Sequence[Row | None],
    matches: Matches | None,
    columns: Sequence[str],
    drop: bool,
) -> tuple[list[tuple[int, Row]], list[str]]:
    """Clips (by position) that have all they need, and what was dropped; else raise."""
    complete = [
        (position, row)
        for position, row in enumerate(rows)
        if row is not None and all(_is_given(row.get(column)) for column in columns)
    ]
    labelled = {position for position, _ in complete}
    missing = [clip["id"] for position, clip in enumerate(clips) if position not in labelled]
    if matches and matches.contradictory:
        raise LabelError(
            f"labels contradict each other for {count_and_name(matches.contradictory, 'clip')}",
            expected="one label for each",
        )
    problems = {
        "no label, group or split for": (missing, "clip"),
        "no clip in the store for": (matches.extra if matches else [], "label"),
        "more than one row for": (matches.repeated if matches else [], "label"),
    }
    found = [f"{what} {count_and_name(*names)}" for what, names in problems.items() if names[0]]
    if found and not drop:
        raise LabelError("; ".join(found), remedy="--drop-unlabelled goes on without them")
    notes = [matches.note] if matches and matches.note else []
    return complete, [*notes, *(f"Dropped: {text}" for text in found)]


def _is_given(text: str | None) -> bool:
    return bool(text) and str(text).lower() != "nan"  # as pandas and JSON write what is missing


def _require_columns(table: Table, columns: Sequence[str]) -> None:
    for column in columns:
        if not any(column in row for row in table):
            known = sorted({name for row in table[:100] for name in row})
            raise LabelError(
                f"there is no column {column!r}",
                expected=f"one of {', '.join(known) or 'the columns of --labels'}",
                remedy="Name the columns with --target, --group and --split-column",
            )


def _values(
    text: Sequence[str],
    ids: Sequence[str],
    target: str,
    task: Task | None,
    classes: Sequence[str],
) -> tuple[Task, tuple[str, ...], np.ndarray]:
    """The task, the class names and the values (N,) of the labels' text."""
    numbers = [_number(label) for label in text]
    numeric = all(number is not None for number in numbers)
    if task is None and not classes:
        fractional = any(number % 1 for number in numbers if number is not None)
        if numeric and not fractional and len(set(text)) > MANY_CLASSES:
            raise LabelError(
                f"column {target!r} holds {len(set(text))} different whole numbers",
                remedy="Say --task regression or --task classification",
            )
        task = "regression" if fractional else "classification"
    if task == "regression":
        odd = [name for name, number in zip(ids, numbers, strict=True) if number is None]
        if odd:
            raise LabelError(
                f"no finite number in column {target!r} for {count_and_name(odd, 'clip')}"
            )
        return "regression", (), np.array(numbers, dtype=np.float64)
    names = tuple(classes) or tuple(sorted(set(text)))
    strange = sorted({label for label in text if label not in names})
    if strange:
        raise LabelError(
            f"{count_and_name(strange, 'label')} of column {target!r} outside the head's classes",
            expected=", ".join(names),
            remedy="--map OLD=NEW renames a label, --map OLD= leaves its clips out",
        )
    if len(names) < 2:
        raise LabelError(f"column {target!r} holds one class, {names[0]!r}", expected="two or more")
    index = {name: position for position, name in enumerate(names)}
    return "classification", names, np.array([index[label] for label in text])


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None
