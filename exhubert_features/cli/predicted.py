"""Predictions as ``exhubert predict`` shows and writes them."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from ..spec import marginals
from ..tables import without_formulas

if TYPE_CHECKING:
    import pandas as pd

BAR = 32  # characters of a certain class

Row = Mapping[str, Any]  # of the table, its index among the columns


@dataclass(frozen=True)
class Predicted:
    """The table of :meth:`Encoder.predict`, and what its columns are.

    Parameters
    ----------
    table
        What ``predict`` returned.
    classes
        Columns of class probabilities, in order; empty for values of ``targets``.
    targets
        What a regression head tells, the columns of its values.
    windows
        Whether rows are windows of clips.
    formulas
        Whether names that a spreadsheet would run stay as they are in CSV and TSV.
    """

    table: pd.DataFrame
    classes: tuple[str, ...]
    targets: tuple[str, ...]
    windows: bool
    formulas: bool = False  # ids come out of files, and people open tables by a click

    @cached_property
    def flat(self) -> pd.DataFrame:
        """The table with its index as columns, in seconds."""
        flat = self.table.reset_index()
        for name in ("start", "end"):
            flat[name] = flat[name].dt.total_seconds()
        return flat

    @cached_property
    def rows(self) -> list[Row]:
        """Predictions, without the clips that failed."""
        return self.flat[self.flat["error"].isna()].to_dict("records")

    def probabilities(self, row: Row) -> dict[str, float]:
        """Class probabilities of one row."""
        return {name: float(row[name]) for name in self.classes}

    def text(self, form: str) -> str:
        """Write the whole of it as ``table``, ``json`` or ``csv``."""
        if form == "json":
            return self.json()
        return self.csv() if form == "csv" else "".join(f"{line}\n" for line in self.lines())

    def content(self, suffix: str) -> bytes:
        """Write the whole of it as a file of that suffix."""
        if suffix == ".parquet":
            buffer = io.BytesIO()
            self._with_levels().to_parquet(buffer, index=False)
            return buffer.getvalue()
        if suffix == ".json":
            return self.json().encode()
        return self.csv("\t" if suffix == ".tsv" else ",").encode()

    def csv(self, separator: str = ",") -> str:
        """Make a row for each prediction, and for each clip that failed, with its error."""
        rounded = self._with_levels().round(6)
        shown = rounded if self.formulas else without_formulas(rounded)
        return shown.to_csv(index=False, sep=separator, lineterminator="\n")

    def json(self) -> str:
        """One object with the predictions and the failures."""
        failed = self.flat[self.flat["error"].notna()].to_dict("records")
        content = {
            "predictions": [self._describe(row) for row in self.rows],
            "failures": [
                {"id": row["id"], "file": row["file"], "kind": row["error_kind"],
                 "reason": row["error"]} for row in failed
            ],
        }  # fmt: skip
        return json.dumps(content, indent=1, ensure_ascii=False) + "\n"

    def lines(self) -> Iterator[str]:
        """Every class of each clip with a bar; of a window one line."""
        clip = None
        for row in self.rows:
            if not self.windows:
                yield f"{row['id']}  {row['start']:.1f} - {row['end']:.1f} s"
                yield from (f"  {line}" for line in self._score_lines(row))
                continue
            if clip != row["id"].rpartition("#")[0]:
                clip = row["id"].rpartition("#")[0]
                yield clip
            yield f"  {row['start']:7.1f} - {row['end']:7.1f} s  {self._summary(row)}"

    def _describe(self, row: Row) -> dict[str, Any]:
        """Turn a prediction into JSON data."""
        described: dict[str, Any] = {name: row[name] for name in ("id", "file", "start", "end")}
        described["warnings"] = row["warnings"].split(", ") if row["warnings"] else []
        if not self.classes:
            values = {name: float(row[name]) for name in self.targets}
            if len(values) > 1:
                return {**described, "values": values}
            (target,) = self.targets
            return {**described, "target": target, "value": values[target]}
        probabilities = self.probabilities(row)
        described |= {"label": row["label"], "probabilities": probabilities}
        return described | marginals(probabilities)

    def _with_levels(self) -> pd.DataFrame:
        """Make the flat table, and each level of arousal and valence as ``arousal_high``."""
        levels = marginals({name: self.flat[name] for name in self.classes})
        shares = {
            f"{name}_{level}": share
            for name, each in levels.items()
            for level, share in each.items()
        }
        return self.flat.assign(**shares)

    def _summary(self, row: Row) -> str:
        """Put the likeliest class, arousal and valence into one line."""
        if not self.classes:
            return "   ".join(f"{name} {row[name]:.4g}" for name in self.targets)
        width = max(map(len, self.classes))
        probabilities = self.probabilities(row)
        parts = [f"{row['label']:<{width}} {max(probabilities.values()):.3f}"]
        for name, levels in marginals(probabilities).items():
            shares = " ".join(f"{level} {share:.3f}" for level, share in levels.items())
            parts.append(f"{name} {shares}")
        return "   ".join(parts)

    def _score_lines(self, row: Row) -> Iterator[str]:
        """Classes from the likeliest, then arousal and valence; or the value."""
        if row["warnings"]:
            yield f"warning: {row['warnings']}"
        if not self.classes:
            yield self._summary(row)
            return
        width = max(map(len, self.classes))
        probabilities = self.probabilities(row)
        for name, score in sorted(probabilities.items(), key=lambda item: -item[1]):
            yield f"{name:<{width}}  {score:.3f}  {'#' * round(BAR * score)}".rstrip()
        for name, levels in marginals(probabilities).items():
            shares = "  ".join(f"{level} {share:.3f}" for level, share in levels.items())
            yield f"{name:<{width}}  {shares}"
