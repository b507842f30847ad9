"""Labels and groups for the rows of a store, joined strictly: nothing is guessed or lost."""

from __future__ import annotations

import csv
import io
import json
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Literal

import numpy as np

from .errors import LabelError

if TYPE_CHECKING:
    from .store import FeatureStore

ID_COLUMNS = ("id", "ID", "clip_id")  # SpeechBrain's CSV says ID
FILE_COLUMNS = ("file", "path", "wav", "audio")  # SpeechBrain's manifests say wav or path
MANY_CLASSES = 50  # more distinct numbers than this are hardly names of classes
NAMED = 5  # how many culprits an error names

Task = Literal["classification", "regression"]
Table = Sequence[Mapping[str, str]]


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
    failed: Iterable[str] = (),
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
        Ids of clips whose features failed: a label for them is nothing odd.
    drop_unlabelled
        Leave out clips without a label and labels without a clip, instead of raising.
    """
    columns = [name for name in (target, group, split) if name]
    join = _Join(clips, clips if table is None else table, columns, set(failed))
    warnings = join.settle(drop_unlabelled)
    text = [(mapping or {}).get(row[target], row[target]) for row in join.found]
    kept = [index for index, label in enumerate(text) if label]
    if len(kept) < len(text):
        warnings.append(f"Left out by the label map: {len(text) - len(kept)} of {len(text)} clips")
    if not kept:
        raise LabelError(f"no clip has a label in column {target!r}")
    found = [join.found[index] for index in kept]
    positions = [join.positions[index] for index in kept]
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


class _Join:
    """Label rows brought to clips, and everything that did not fit."""

    def __init__(self, clips: Table, table: Table, columns: list[str], failed: set[str]) -> None:
        for column in columns:
            if not any(column in row for row in table):
                known = sorted({name for row in table[:100] for name in row})
                raise LabelError(
                    f"there is no column {column!r}",
                    expected=f"one of {', '.join(known) or 'the columns of --labels'}",
                    remedy="Name the columns with --target, --group and --split",
                )
        self.columns = columns
        self.duplicates: list[str] = []
        self.conflicts: list[str] = []
        self.positions: list[int] = []
        self.found: list[Mapping[str, str]] = []
        if table is clips:
            matches: list[Mapping[str, str] | None] = list(clips)
            self.extra: list[str] = []
        else:
            matches, used, names = self._match(clips, table)
            self.extra = [name for name in names if name not in used and name not in failed]
        self.missing = [
            clip["id"]
            for clip, row in zip(clips, matches, strict=True)
            if row is None or not all(row.get(column) for column in columns)
        ]
        absent = set(self.missing)
        for position, (clip, row) in enumerate(zip(clips, matches, strict=True)):
            if clip["id"] not in absent and row is not None:
                self.positions.append(position)
                self.found.append(row)

    def _match(
        self, clips: Table, table: Table
    ) -> tuple[list[Mapping[str, str] | None], set[str], list[str]]:
        """The label row of each clip, the label names used, and all label names."""
        for column in (*ID_COLUMNS, *FILE_COLUMNS):
            if not any(row.get(column) for row in table):
                continue
            labels = self._by_name(table, column)
            if column in ID_COLUMNS:
                names = [
                    next((n for n in (c["id"], c.get("clip_id", "")) if n in labels), None)
                    for c in clips
                ]
            else:
                names = _match_files([clip.get("file", "") for clip in clips], labels)
            if any(names):
                matches = [labels[name] if name else None for name in names]
                return matches, {name for name in names if name}, list(labels)
            self.duplicates, self.conflicts = [], []
        raise LabelError(
            "no label fits any clip of the store",
            expected=f"a column {', '.join((*ID_COLUMNS, *FILE_COLUMNS))} with the clips' names",
            remedy=f"The first clip is {clips[0]['id']!r}, file {clips[0].get('file', '')!r}"
            if clips
            else "The store is empty",
        )

    def _by_name(self, table: Table, column: str) -> dict[str, Mapping[str, str]]:
        rows: dict[str, list[Mapping[str, str]]] = defaultdict(list)
        for row in table:
            rows[row.get(column, "")].append(row)
        if "" in rows:
            raise LabelError(f"{len(rows[''])} label rows have nothing in column {column!r}")
        for name, same in rows.items():
            if len(same) > 1:
                variants = {tuple(row.get(column, "") for column in self.columns) for row in same}
                (self.conflicts if len(variants) > 1 else self.duplicates).append(name)
        return {name: same[0] for name, same in rows.items()}

    def settle(self, drop: bool) -> list[str]:
        """Raise what is wrong with the labels, or say what was dropped."""
        if self.conflicts:
            raise LabelError(
                f"labels contradict each other for {_count(self.conflicts, 'clip')}",
                expected="one label for each",
            )
        problems = {
            "no label, group or split for": (self.missing, "clip"),
            "no clip in the store for": (self.extra, "label"),
            "more than one row for": (self.duplicates, "label"),
        }
        found = [f"{what} {_count(*names)}" for what, names in problems.items() if names[0]]
        if found and not drop:
            raise LabelError("; ".join(found), remedy="--drop-unlabelled goes on without them")
        return [f"Dropped: {text}" for text in found]


def _count(names: Sequence[str], noun: str) -> str:
    """``12 clips (a, b, c, d, e, ...)``."""
    shown = ", ".join(names[:NAMED]) + (", ..." if len(names) > NAMED else "")
    return f"{len(names)} {noun}{'' if len(names) == 1 else 's'} ({shown})"


def _match_files(files: Sequence[str], labels: Iterable[str]) -> list[str | None]:
    """Label name of each file: equal paths, else the one path that ends like the other.

    Label tables often say ``wav/a.wav`` where the store was made from ``/data/wav/a.wav``.
    """
    by_base: dict[str, list[tuple[tuple[str, ...], str]]] = defaultdict(list)
    for name in labels:
        parts = _parts(name)
        by_base[parts[-1] if parts else ""].append((parts, name))
    matches: list[str | None] = []
    ambiguous: list[str] = []
    owners: dict[str, set[str]] = defaultdict(set)
    for file in files:
        parts = _parts(file)
        fitting = [
            (other, name)
            for other, name in by_base.get(parts[-1] if parts else "", [])
            if other[-len(parts) :] == parts or parts[-len(other) :] == other
        ]
        exact = [name for other, name in fitting if other == parts]
        names = exact or [name for _, name in fitting]
        if len(names) > 1:
            ambiguous.append(file)
        matches.append(names[0] if len(names) == 1 else None)
        if len(names) == 1:
            owners[names[0]].add(file)
    ambiguous += [name for name, group in owners.items() if len(group) > 1]
    if ambiguous:
        raise LabelError(
            f"several labels or clips fit the names of {_count(ambiguous, 'file')}",
            expected="paths that tell them apart, or an id column",
        )
    return matches


def _parts(path: str) -> tuple[str, ...]:
    parts = PurePosixPath(path.replace("\\", "/")).parts
    return tuple(part for part in parts if part != "/" and part[0] not in "{$")


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
        fractional = numeric and any(number % 1 for number in numbers if number is not None)
        if numeric and not fractional and len(set(text)) > MANY_CLASSES:
            raise LabelError(
                f"column {target!r} holds {len(set(text))} different whole numbers",
                remedy="Say --task regression or --task classification",
            )
        task = "regression" if fractional else "classification"
    if task == "regression":
        odd = [name for name, number in zip(ids, numbers, strict=True) if number is None]
        if odd:
            raise LabelError(f"no finite number in column {target!r} for {_count(odd, 'clip')}")
        return "regression", (), np.array(numbers, dtype=np.float64)
    names = tuple(classes) or tuple(sorted(set(text)))
    strange = sorted({label for label in text if label not in names})
    if strange:
        raise LabelError(
            f"{_count(strange, 'label')} of column {target!r} outside the head's classes",
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
