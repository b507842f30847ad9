"""Several runs side by side: as Markdown, as LaTeX, as JSON and as a picture."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..files import make_folder, publish
from ..records import Interval
from ..tables import harmless
from .content import as_json, metric_name

_LATEX = {"\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_",
          "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}",
          "^": r"\textasciicircum{}"}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class RunRow:
    """One run, and how it differs from the first one; the first differs from none."""

    name: str
    score: Interval
    difference: Interval | None = None
    p_value: float | None = None  # None where nothing can be tested
    corrected: float | None = None  # for the number of comparisons
    note: str = ""


def write_table(directory: str | Path, rows: Sequence[RunRow], metric: str) -> str:
    """Write ``comparison`` as .md, .tex, .json and .png into a folder; return the Markdown."""
    from . import plots

    folder = Path(directory)
    make_folder(folder)
    with plots.style():
        figure = plots.draw_result({row.name: row.score for row in rows}, None)
        picture = plots.to_png(figure)
    markdown = harmless(_markdown(rows, metric))
    data = json.dumps({"metric": metric, "runs": as_json(list(rows))}, indent=1, allow_nan=False)
    files = {
        "comparison.png": picture,
        "comparison.json": f"{data}\n".encode(),
        "comparison.tex": harmless(_latex(rows, metric)).encode(),
        "comparison.md": markdown.encode(),
    }
    for name, content in files.items():
        publish(content, folder / name, replace=True)
    return markdown


def _cells(rows: Sequence[RunRow], metric: str) -> list[list[str]]:
    first = rows[0].name
    head = ["run", metric_name(metric), "95 % interval", f"minus {first}", "95 % interval", "p",
            "p, corrected"]  # fmt: skip
    return [head] + [
        [
            row.name,
            f"{row.score.value:.3f}",
            _span(row.score),
            "" if row.difference is None else f"{row.difference.value:+.3f}",
            "" if row.difference is None else _span(row.difference),
            _p(row.p_value) if row.difference else "",
            _p(row.corrected) if row.difference else "",
        ]
        for row in rows
    ]


def _markdown(rows: Sequence[RunRow], metric: str) -> str:
    head, *body = [
        "| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |"
        for cells in _cells(rows, metric)
    ]
    notes = dict.fromkeys(row.note for row in rows if row.note)
    return "\n".join([head, "|---" * 7 + "|", *body, "", *notes, ""])


def _latex(rows: Sequence[RunRow], metric: str) -> str:
    lines = [" & ".join(map(_escape, cells)) + r" \\" for cells in _cells(rows, metric)]
    head, *body = lines
    return "\n".join(
        [r"\begin{tabular}{lrrrrrr}", r"\hline", head, r"\hline", *body, r"\hline",
         r"\end{tabular}", ""]
    )  # fmt: skip


def _escape(text: str) -> str:
    return "".join(_LATEX.get(letter, letter) for letter in text)


def _span(interval: Interval) -> str:
    return f"{interval.low:.3f} to {interval.high:.3f}"


def _p(value: float | None) -> str:
    if value is None:
        return "—"
    return "< 0.001" if value < 0.001 else f"{value:.3f}"
