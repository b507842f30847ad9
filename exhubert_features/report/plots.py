"""The figures of a report: data in, matplotlib figures out, each as PNG and as themed SVG.

Figures are made through the object API, so no window system, backend or global state is
touched. Text stays text in the SVG, and its greys and blue are CSS variables of the page.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib import rc_context
from matplotlib.collections import PathCollection
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from ..records import Interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from .content import CalibrationCurve, GroupScore, LayerCurve

# Okabe and Ito's colours that read on white and on black; every one also gets its own marker.
COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_BLUE, _ORANGE = COLOURS[0], COLOURS[1]
_INK, _MUTED, _LINE = "#1b1f24", "#59626d", "#d9dde2"
_CSS = {_INK: "var(--ink)", _MUTED: "var(--muted)", _LINE: "var(--line)", _BLUE: "var(--blue)"}
# Transparent to blue, so that empty cells take the page's colour in light and dark.
_CELLS = LinearSegmentedColormap.from_list("cells", [(0.03, 0.3, 0.61, 0), (0.03, 0.3, 0.61, 1)])
# From blue over grey to orange: both ends read on white and on black, for any colour vision.
_VALUES = LinearSegmentedColormap.from_list("values", [COLOURS[0], "#a0a0a0", COLOURS[1]])
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text: any script, searchable, the page's own font
    "text.parse_math": False,  # a label such as "$x$" is a name, not a formula
    "font.size": 9.5,
    "text.color": _INK,
    "axes.edgecolor": _LINE,
    "axes.labelcolor": _MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": _LINE,
    "grid.linewidth": 0.6,
    "xtick.color": _MUTED,
    "ytick.color": _MUTED,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "legend.frameon": False,
    "figure.facecolor": "#ffffff",
    "axes.facecolor": "none",
}
_WIDTH = 4.4  # inches, so that 9.5 points stay readable on a phone
_FIRM = 10  # clips in a bin; the standard error of a share of fewer is beyond .15
_MANY = 40  # names on an axis beyond this number cannot be read


@contextmanager
def style() -> Iterator[None]:
    """Give every figure its look, as a context for drawing and for saving."""
    with rc_context(_STYLE), warnings.catch_warnings():
        # The page shows names in any script; the PNG can only show what its font has.
        warnings.filterwarnings("ignore", r"Glyph \d+")
        yield


def to_png(figure: Figure) -> bytes:
    """Render a figure as PNG, for slides and papers."""
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=200)
    return stream.getvalue()


def to_svg(figure: Figure, name: str) -> str:
    """Render a figure as SVG in the page's own greys and blue; ``name`` keeps its ids apart."""
    stream = io.StringIO()
    with rc_context({"svg.hashsalt": name}):
        figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None})
    svg = stream.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'<g id="\w+">', "<g>", svg)  # the same names in every figure
    for colour, variable in _CSS.items():
        svg = re.sub(rf"(fill|stroke): {colour}", rf"\1: {variable}", svg)
    return svg


def draw_result(metrics: Mapping[str, Interval], chance: float | None) -> Figure:
    """Every metric on one scale, with its interval."""
    names = list(metrics)[::-1]
    figure, axes = _figure(0.62 + 0.3 * len(names))
    for row, name in enumerate(names):
        interval = metrics[name]
        colour = _BLUE if row == len(names) - 1 else _MUTED
        axes.plot([interval.low, interval.high], [row, row], color=colour, linewidth=2.5)
        axes.plot(interval.value, row, "o", color=colour, markersize=7)
    if chance is not None:
        _mark_level(axes.axvline, chance, f"chance {chance:.2f}", axes)
    axes.set_yticks(range(len(names)), [_shorten(name) for name in names])
    axes.set_ylim(-0.6, len(names) - 0.4)
    lowest = min([0.0, *(interval.low for interval in metrics.values() if interval.low < 0)])
    axes.set_xlim(max(lowest, -1.0) - 0.01, 1.01)
    axes.grid(axis="y", visible=False)
    return figure


def draw_confusion(counts: np.ndarray, classes: Sequence[str]) -> Figure:
    """Draw counts (C, C) of truth by prediction, shaded by the share of each row."""
    number = len(classes)
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    figure, axes = _figure(min(max(0.55 * number + 1.6, 2.9), 7.5))
    axes.pcolormesh(share, cmap=_CELLS, vmin=0, vmax=1, edgecolors=_LINE,
                    linewidth=min(0.6, 6 / number))  # fmt: skip
    size = min(9.5, 58 / number)
    if number <= 12:
        for row, column in np.ndindex(counts.shape):
            text = f"{share[row, column]:.0%}\n{counts[row, column]}"
            colour = "#fefefe" if share[row, column] > 0.7 else _INK
            axes.text(column + 0.5, row + 0.5, text, ha="center", va="center", fontsize=size,
                      color=colour)  # fmt: skip
    places, names = np.arange(number) + 0.5, [_shorten(name) for name in classes]
    turned = number > 4 or max(map(len, names)) > 9
    axes.set_xticks(places, names, rotation=90 if turned else 0, fontsize=min(9.5, 260 / number))
    axes.set_yticks(places, names, fontsize=min(9.5, 260 / number))
    axes.invert_yaxis()
    axes.set(xlabel="predicted", ylabel="true")
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    return figure


def draw_scatter(truth: np.ndarray, prediction: np.ndarray, targets: Sequence[str]) -> Figure:
    """Predicted against true values (N,) or (N, T), with the line of perfect agreement."""
    figure = Figure(figsize=(_WIDTH, _WIDTH * 0.85 * len(targets)), layout="constrained")
    panels = np.atleast_1d(figure.subplots(len(targets)))
    for axes, name, true, guess in zip(
        panels, targets, np.atleast_2d(truth.T), np.atleast_2d(prediction.T), strict=True
    ):
        known = np.isfinite(true)
        axes.scatter(true[known], guess[known], s=_point_size(len(truth)), color=_BLUE, alpha=0.6,
                     linewidth=0, rasterized=len(truth) > 1000)  # fmt: skip
        both = np.concatenate([true[known], guess[known]])
        ends = [both.min(), both.max()]
        axes.plot(ends, ends, color=_MUTED, linewidth=1, linestyle="--")
        axes.set(xlabel=f"true {_shorten(name)}", ylabel="predicted")
    return figure


def draw_layers(curve: LayerCurve, metric: str, chance: float | None) -> Figure:
    """One probe per layer with its band, the chosen layer, and the all-layer weighting."""
    figure, axes = _figure(3.3)
    axes.fill_between(curve.layers, curve.low, curve.high, color=_BLUE, alpha=0.2, linewidth=0)
    axes.plot(curve.layers, curve.mean, color=_BLUE, linewidth=1.8, marker="o", markersize=3,
              label="linear probe on one layer")  # fmt: skip
    if curve.best in curve.layers:
        best = curve.mean[curve.layers.index(curve.best)]
        axes.plot(curve.best, best, "o", markersize=11, markerfacecolor="none", color=_INK,
                  linestyle="none", label=f"chosen most often: layer {curve.best}")  # fmt: skip
    if curve.weighted is not None:
        axes.axhspan(curve.weighted.low, curve.weighted.high, color=_ORANGE, alpha=0.15, lw=0)
        axes.axhline(curve.weighted.value, color=_ORANGE, linewidth=1.8, linestyle="--",
                     label="weighting over all layers")  # fmt: skip
    if chance is not None:
        axes.axhline(chance, color=_MUTED, linewidth=1, linestyle=":", label="chance")
    axes.set(xlabel="hidden state (0 is the encoder's input)", ylabel=metric)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _legend_below(figure, *axes.get_legend_handles_labels(), columns=2)
    return figure


def draw_groups(scores: Sequence[GroupScore], overall: Interval, metric: str) -> Figure:
    """Draw the score of each group (speaker), sorted, against the overall one."""
    ordered = sorted(scores, key=lambda group: group.score)
    ranks, values = np.arange(len(ordered)), np.array([group.score for group in ordered])
    named = len(ordered) <= _MANY
    figure, axes = _figure(0.9 + 0.22 * len(ordered) if named else 3.0)
    span, line = (axes.axvspan, axes.axvline) if named else (axes.axhspan, axes.axhline)
    span(overall.low, overall.high, color=_BLUE, alpha=0.15, linewidth=0)
    line(overall.value, color=_BLUE, linewidth=1.2)
    across, up = (values, ranks) if named else (ranks, values)
    axes.scatter(across, up, s=26 if named else 12, color=_INK, zorder=3)
    if named:
        axes.set_yticks(ranks, [f"{_shorten(g.name)} ({g.clips})" for g in ordered], fontsize=8.5)
        axes.set_ylim(-0.7, len(ordered) - 0.3)
        axes.xaxis.set_major_locator(MaxNLocator(6))
        axes.set_xlabel(f"{metric} (line and band: all clips)")
        axes.grid(axis="y", visible=False)
    else:
        axes.set(xlabel=f"{len(ordered)} groups, sorted", ylabel=metric)
        axes.grid(axis="x", visible=False)
    return figure


def draw_calibration(series: Mapping[str, CalibrationCurve]) -> Figure:
    """How often a confidence is right, and how often it is given.

    Bins with few clips scatter by chance: they are small, faint and not joined by the line.
    """
    figure = Figure(figsize=(_WIDTH, 4.2), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    upper.plot([0, 1], [0, 1], color=_MUTED, linewidth=1, linestyle="--", label="calibrated")
    looks = zip((_MUTED, _BLUE), MARKERS, series.items(), strict=False)
    for colour, marker, (label, curve) in looks:
        filled, firm = curve.clips > 0, curve.clips >= _FIRM
        size = np.clip(4 * np.sqrt(curve.clips), 6, 60)
        for chosen, faint in ((filled & ~firm, 0.35), (firm, 1.0)):
            upper.scatter(curve.confidence[chosen], curve.hits[chosen], s=size[chosen],
                          color=colour, marker=marker, alpha=faint, linewidth=0)  # fmt: skip
        upper.plot(curve.confidence[firm], curve.hits[firm], color=colour, linewidth=1.5,
                   marker=marker, markersize=0.1, label=label)  # fmt: skip
        edges = np.linspace(0, 1, len(curve.clips) + 1)
        lower.stairs(curve.clips, edges, color=colour, linewidth=1.6)
    upper.set(ylabel="share that is right", xlim=(0, 1), ylim=(-0.02, 1.02))
    upper.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    for handle in upper.legend(loc="upper left", fontsize=8.5).legend_handles:
        handle.set(markersize=5)
    lower.set(xlabel="confidence in the predicted class", ylabel="clips")
    return figure


def draw_map(points: np.ndarray, names: np.ndarray, legend_limit: int = 42) -> Figure:
    """Points (N, 2), each name (N,) in its own colour and marker."""
    order = np.unique(names).tolist()
    listed = len(order) <= legend_limit
    columns = 1 if not listed else max(1, min(4, 54 // (max(map(len, map(_shorten, order))) + 6)))
    lines = -(-len(order) // columns) if listed else 1
    figure, axes = _figure(3.4 + 0.19 * lines)
    size = _point_size(len(points))
    handles: list[PathCollection] = []
    for index, name in enumerate(order):
        chosen = points[names == name]
        colour = COLOURS[index % len(COLOURS)]
        marker = MARKERS[(index % len(COLOURS) + index // len(COLOURS)) % len(MARKERS)]
        handles.append(axes.scatter(chosen[:, 0], chosen[:, 1], s=size, color=colour, alpha=0.75,
                                    marker=marker, linewidth=0,
                                    rasterized=len(points) > 1000))  # fmt: skip
    _label_components(axes)
    if listed:
        _legend_below(figure, handles, [_shorten(name) for name in order], columns,
                      markerscale=(30 / size) ** 0.5)  # fmt: skip
    else:
        axes.set_title(f"{len(order)} names: colours repeat", fontsize=9, color=_MUTED)
    return figure


def draw_value_map(points: np.ndarray, values: np.ndarray, targets: Sequence[str]) -> Figure:
    """Points (N, 2) shaded by a number (N,), or by each of several (N, T)."""
    figure = Figure(figsize=(_WIDTH, 3.6 * len(targets)), layout="constrained")
    panels = np.atleast_1d(figure.subplots(len(targets)))
    for axes, name, column in zip(panels, targets, np.atleast_2d(values.T), strict=True):
        known = np.isfinite(column)
        drawn = axes.scatter(points[known, 0], points[known, 1], c=column[known], cmap=_VALUES,
                             linewidth=0, s=_point_size(len(points)),
                             rasterized=len(points) > 1000)  # fmt: skip
        bar = figure.colorbar(drawn, ax=axes, label=_shorten(name))
        bar.outline.set_visible(False)
        _label_components(axes)
    return figure


def _figure(height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(_WIDTH, height), layout="constrained")
    return figure, figure.subplots()


def _label_components(axes: Axes) -> None:
    axes.set(xlabel="first principal component", ylabel="second principal component",
             xticks=[], yticks=[])  # fmt: skip


def _legend_below(
    figure: Figure,
    handles: Sequence[Any],
    labels: Sequence[str],
    columns: int,
    markerscale: float = 1.0,
) -> None:
    figure.legend(handles, labels, loc="outside lower left", ncols=columns, fontsize=8.5,
                  handletextpad=0.3, columnspacing=1.2, markerscale=markerscale)  # fmt: skip


def _mark_level(draw: Any, level: float, label: str, axes: Axes) -> None:
    draw(level, color=_MUTED, linewidth=1, linestyle=":")
    axes.annotate(label, (level, 1), xycoords=("data", "axes fraction"), fontsize=8,
                  ha="center", va="bottom", color=_MUTED)  # fmt: skip


def _point_size(count: int) -> float:
    return float(np.clip(4000 / max(count, 1), 5, 34))


def _shorten(name: str, limit: int = 22) -> str:
    """Shorten a name to fit an axis: printable, one line, not longer than ``limit``."""
    clean = "".join(letter if letter.isprintable() else "·" for letter in name) or "(empty)"
    return clean if len(clean) <= limit else clean[: limit - 1] + "…"
