"""Rows of a manifest, as CSV or as SpeechBrain's JSON."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence

from .clips import Clip
from .preparing import Prepared, require_plain_names

COLUMNS = (
    *("id", "file", "start", "end", "label", "label6", "arousal", "valence", "speaker"),
    *("session", "split", "fold", "language", "gender", "sentence", "intensity", "corpus"),
    "label6_source",
)
UNMAPPED = "unmapped"  # as source of a class, where the six-class map does not know a label


def manifest_rows(prepared: Prepared) -> list[dict[str, str]]:
    """One row for each clip, with :data:`COLUMNS` first and then what only this corpus has."""
    rows = [_row(prepared, clip) for clip in prepared.clips]
    require_plain_names([row[column] for row in rows for column in ("id", "file")])
    more = sorted({name for row in rows for name in row} - set(COLUMNS))
    return [{name: row.get(name, "") for name in (*COLUMNS, *more)} for row in rows]


def as_csv(rows: Sequence[dict[str, str]]) -> str:
    """Write the text of a CSV manifest."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue()


def as_speechbrain(rows: Sequence[dict[str, str]]) -> str:
    """Write the text of a SpeechBrain manifest, ``{id: {"wav": "{data_root}/...", ...}}``.

    ``label6`` is a number where there is one; ``start`` and ``end`` are seconds and stand there
    for parts of files only.
    """
    items = {row["id"]: _item(row) for row in rows}
    return json.dumps(items, indent=1, ensure_ascii=False) + "\n"


def _item(row: dict[str, str]) -> dict[str, object]:
    item: dict[str, object] = {"wav": f"{{data_root}}/{row['file']}"}
    item |= {key: float(row[key]) for key in ("start", "end") if row[key]}
    others = {key: value for key, value in row.items() if key not in ("id", "file", "start", "end")}
    item |= others
    if row["label6"]:
        item["label6"] = int(row["label6"])
    return item


def _row(prepared: Prepared, clip: Clip) -> dict[str, str]:
    mapped = prepared.classes[clip.label]
    number = mapped.number if mapped else None
    return {
        **clip.extra,
        **{name: getattr(clip, name) for name in COLUMNS if hasattr(clip, name)},
        "start": _seconds(clip.start),
        "end": _seconds(clip.end),
        "label6": "" if number is None else str(number),
        "arousal": mapped.arousal if mapped else "",
        "valence": mapped.valence if mapped else "",
        "label6_source": mapped.source if mapped else UNMAPPED,
    }


def _seconds(position: float | None) -> str:
    return "" if position is None else f"{position:.6f}".rstrip("0").rstrip(".")
