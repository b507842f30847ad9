"""Which row of a label table belongs to which clip, by id or by file."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from pathlib import PurePosixPath

from ..errors import LabelError
from ..store import CORPUS
from ..tables import FILE_COLUMNS, ID_COLUMNS, clean

NAMED = 5  # how many culprits an error names

Row = Mapping[str, str]
Table = Sequence[Row]


@dataclass(frozen=True, kw_only=True)
class Matches:
    """``rows`` holds the label row of each clip or None; the rest are names of label rows."""

    rows: list[Row | None]
    extra: list[str]  # fit no clip
    repeated: list[str]  # stand there more than once, saying the same
    contradictory: list[str]  # stand there more than once, saying different things
    note: str = ""  # what the reader of a result should know about the matching


def match_rows(
    clips: Table, table: Table, columns: Sequence[str], id_column: str | None = None
) -> Matches:
    """Bring label rows to clips by the first id or file column that fits any.

    Parameters
    ----------
    clips
        With ``id``, ``clip_id`` and ``file``.
    columns
        Those whose content must agree where a name stands in the table twice.
    id_column
        The one that names the clips; None: see above.
    """
    candidates = (id_column,) if id_column else (*ID_COLUMNS, *FILE_COLUMNS)
    for column in candidates:
        if not any(row.get(column) for row in table):
            continue
        by_name = _rows_by_name(table, column, {clip["id"] for clip in clips})
        note = ""
        if column not in FILE_COLUMNS:
            names = _match_ids(clips, by_name)
        else:
            names = _match_files([clip.get("file", "") for clip in clips], by_name)
            if not any(names):
                names, note = _match_moved_files(clips, by_name)
        if any(names):
            return replace(_matches(names, by_name, columns), note=note)
    first = f"the first clip is {clips[0]['id']!r}" if clips else "the store is empty"
    raise LabelError(
        f"no label fits any clip of the store ({first})",
        expected=f"a column {' or '.join(candidates)} with the clips' names",
        remedy="--id-column names another",
    )


def count_and_name(names: Sequence[str], noun: str) -> str:
    """``12 clips (a, b, c, d, e, ...)``."""
    shown = ", ".join(names[:NAMED]) + (", ..." if len(names) > NAMED else "")
    return f"{len(names)} {noun}{'' if len(names) == 1 else 's'} ({shown})"


def _rows_by_name(table: Table, column: str, ids: Container[str]) -> dict[str, list[Row]]:
    """Rows by what they are called; with the corpus in front where the clips' ids have it."""
    rows: dict[str, list[Row]] = defaultdict(list)
    for row in table:
        name = row.get(column, "")
        qualified = f"{row.get(CORPUS)}/{name}"
        rows[qualified if qualified in ids else name].append(row)
    if "" in rows:
        raise LabelError(f"{len(rows[''])} label rows have nothing in column {column!r}")
    return rows


def _matches(
    names: Sequence[str | None], by_name: Mapping[str, list[Row]], columns: Sequence[str]
) -> Matches:
    used = set(names)
    twice = [name for name, rows in by_name.items() if len(rows) > 1]
    contradictory = [
        name
        for name in twice
        if len({tuple(row.get(column, "") for column in columns) for row in by_name[name]}) > 1
    ]
    return Matches(
        rows=[by_name[name][0] if name is not None else None for name in names],
        extra=[name for name in by_name if name not in used],
        repeated=[name for name in twice if name not in contradictory],
        contradictory=contradictory,
    )


def _match_ids(clips: Table, labels: Mapping[str, list[Row]]) -> list[str | None]:
    """Name of the label of each clip: its own id, else that of the clip it is a window of."""
    return [
        next((name for name in map(clean, _names(clip)) if name in labels), None) for clip in clips
    ]


def _names(clip: Row) -> tuple[str, str]:
    return clip["id"], clip.get("clip_id", clip["id"])


def _match_files(files: Sequence[str], labels: Iterable[str]) -> list[str | None]:
    """Name of the label of each file: equal paths, else one that ends like the other.

    Label tables often say ``wav/a.wav`` where the store was made from ``/data/wav/a.wav``.
    """
    by_base = _by_base(labels)
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
            f"several labels or clips fit the names of {count_and_name(ambiguous, 'file')}",
            expected="paths that tell them apart, or an id column",
        )
    return matches


def _match_moved_files(clips: Table, labels: Iterable[str]) -> tuple[list[str | None], str]:
    """Join where the corpus lies in another folder than when the table was written.

    One folder of the table then stands for one of the clips: the pair under which most path
    parts agree. Without a clear winner nothing matches.
    """
    by_base = _by_base(labels)
    files = [_parts(clip.get("file", "")) for clip in clips]
    votes: Counter[tuple[tuple[str, ...], tuple[str, ...]]] = Counter()
    for parts in set(files):
        for other, _ in by_base.get(parts[-1] if parts else "", []):
            same = _agreeing(parts, other)
            votes[other[:-same], parts[:-same]] += same
    ranked = votes.most_common(2)
    if not ranked or (len(ranked) > 1 and ranked[0][1] == ranked[1][1]):
        return [None] * len(clips), ""
    (theirs, ours), _ = ranked[0]
    moved = [
        "/".join(theirs + parts[len(ours) :]) if parts[: len(ours)] == ours else ""
        for parts in files
    ]
    note = f"Files under {'/'.join(theirs)} in the labels were taken for those under "
    return _match_files(moved, labels), note + "/".join(ours)


def _agreeing(first: Sequence[str], second: Sequence[str]) -> int:
    """How many trailing parts two paths share."""
    pairs = zip(reversed(first), reversed(second), strict=False)
    return len(list(takewhile(lambda pair: pair[0] == pair[1], pairs)))


def _by_base(labels: Iterable[str]) -> dict[str, list[tuple[tuple[str, ...], str]]]:
    """Parts and name of each label, by the last part."""
    by_base: dict[str, list[tuple[tuple[str, ...], str]]] = defaultdict(list)
    for name in labels:
        parts = _parts(name)
        by_base[parts[-1] if parts else ""].append((parts, name))
    return by_base


def _parts(path: str) -> tuple[str, ...]:
    parts = PurePosixPath(clean(path).replace("\\", "/")).parts
    return tuple(part for part in parts if part != "/" and part[0] not in "{$")
