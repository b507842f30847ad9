"""A recording over time: its waveform above, what was heard in it below."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, MaxNLocator, MultipleLocator, PercentFormatter

from ..files import publish
from ..spec import SAMPLE_RATE, marginals

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito's colours, which differ for any colour vision; more classes than colours repeat.
COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#999999")
VALENCE_COLOURS = {"negative": "#d55e00", "neutral": "#c9ced4", "positive": "#009e73"}
AROUSAL_COLOUR, WAVE_COLOUR = "#0072b2", "#59626d"
INK, MUTED, LINE = "#1b1f24", "#59626d", "#d9dde2"
SUFFIXES = (".png", ".svg", ".pdf")
COLUMNS = 2000  # of the waveform: more than the figure has pixels
MOST_DOTS = 40  # windows; more dots than that touch each other and hide the line
MOST_TICKS = 10
TIME_STEPS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400)
STYLE: dict[Any, Any] = {
    "text.parse_math": False,  # a file name with $ is a name
    "font.size": 10,
    "text.color": INK,
    "axes.edgecolor": LINE,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "legend.frameon": False,
}


def draw_timeline(
    path: Path,
    wave: np.ndarray,
    windows: Sequence[Mapping[str, Any]],
    *,
    classes: Sequence[str],
    targets: Sequence[str] = (),
    title: str = "",
) -> None:
    """Draw a recording and what was heard in it; write the picture whole or not at all.

    Parameters
    ----------
    path
        The file; its suffix is one of :data:`SUFFIXES`.
    wave
        (N,) samples at 16 kHz of the recording.
    windows
        Predictions of its windows, in order: ``start`` and ``end`` in seconds, and a number under
        the name of each class, or of each target.
    classes
        Names of the classes; none for a value.
    targets
        What the values are, without classes.
    title
        Shown above.
    """
    start = windows[0]["start"]
    end = start + len(wave) / SAMPLE_RATE
    curves = {name: _held(windows, name) for name in classes or targets}
    levels = marginals({name: curves[name] for name in classes})
    times = _times(windows, start, end)
    panels = 1 if classes else len(targets)
    heights = [1, 1.1, 1.1] if levels else [1, *[max(2.2 / panels, 0.8)] * panels]
    with rc_context(STYLE):
        figure = Figure(figsize=(10, 5.6), layout="constrained")
        axes = figure.subplots(len(heights), sharex=True, height_ratios=heights)
        _draw_wave(axes[0], wave, start)
        if levels:
            _draw_curve(axes[1], times, levels["arousal"]["high"], shaded=True)
            axes[1].axhline(0.5, color=MUTED, lw=0.8, ls=(0, (4, 4)))
            _share_axis(axes[1], "high arousal")
            _draw_shares(axes[2], times, levels["valence"], list(VALENCE_COLOURS.values()))
            _share_axis(axes[2], "valence")
        elif classes:
            _draw_shares(axes[1], times, curves, [*COLOURS])
            _share_axis(axes[1], "class")
        else:
            for panel, name in zip(axes[1:], targets, strict=True):
                _draw_curve(panel, times, curves[name], shaded=False)
                panel.yaxis.set_major_locator(MaxNLocator(5))
                panel.set_ylabel(name)
        axes[0].set_title(title, loc="left", fontsize=12, fontweight="bold", pad=10)
        _time_axis(axes[-1], start, end)
        figure.align_ylabels()
        buffer = BytesIO()
        figure.savefig(buffer, format=path.suffix[1:].lower(), dpi=150)
    publish(buffer.getvalue(), path, replace=True)


def _times(windows: Sequence[Mapping[str, Any]], start: float, end: float) -> np.ndarray:
    """Window centres, with the recording's ends before and after."""
    centres = [(window["start"] + window["end"]) / 2 for window in windows]
    return np.array([start, *centres, end])


def _held(windows: Sequence[Mapping[str, Any]], name: str) -> np.ndarray:
    """Values at the centres, held to the recording's ends."""
    values = [float(window[name]) for window in windows]
    return np.array([values[0], *values, values[-1]])


def _time_axis(axes: Axes, start: float, end: float) -> None:
    """Minutes and seconds, with hours where there are some, at round places."""
    step = next((step for step in TIME_STEPS if (end - start) / step <= MOST_TICKS), TIME_STEPS[-1])
    hours = end >= 3600
    axes.set_xlim(start, end)
    axes.xaxis.set_major_locator(MultipleLocator(step))
    axes.xaxis.set_major_formatter(
        FuncFormatter(lambda seconds, _: clock(seconds, hours=hours, tenths=step < 1))
    )
    axes.set_xlabel("time (h:min:s)" if hours else "time (min:s)")


def clock(seconds: float, *, hours: bool = False, tenths: bool = False) -> str:
    """Write a time as a clock shows it.

    Examples
    --------
    >>> clock(75), clock(3675, hours=True), clock(1.2, tenths=True)
    ('1:15', '1:01:15', '0:01.2')
    """
    whole, tenth = divmod(round(10 * seconds), 10)
    minutes, rest = divmod(whole, 60)
    text = f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
    return f"{text}.{tenth}" if tenths else text


def _draw_wave(axes: Axes, wave: np.ndarray, start: float) -> None:
    step = max(1, -(-len(wave) // COLUMNS))
    padded = np.pad(wave, (0, -len(wave) % step), mode="edge").reshape(-1, step)
    times = start + (np.arange(len(padded)) + 0.5) * step / SAMPLE_RATE
    axes.fill_between(times, padded.min(axis=1), padded.max(axis=1), color=WAVE_COLOUR, lw=0.4)
    loudest = max(float(np.abs(wave).max()), 1e-4)
    axes.set_ylim(-1.05 * loudest, 1.05 * loudest)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.set_ylabel("waveform")


def _draw_curve(axes: Axes, times: np.ndarray, values: np.ndarray, *, shaded: bool) -> None:
    """Draw a line through the windows, with a dot for each as long as they do not touch."""
    if shaded:
        axes.fill_between(times, values, color=AROUSAL_COLOUR, alpha=0.15, lw=0)
    few = len(times) - 2 <= MOST_DOTS
    axes.plot(times, values, color=AROUSAL_COLOUR, lw=2 if few else 1)
    if few:
        axes.plot(times[1:-1], values[1:-1], ".", color=AROUSAL_COLOUR, ms=6)


def _draw_shares(
    axes: Axes, times: np.ndarray, shares: Mapping[str, np.ndarray], colours: Sequence[str]
) -> None:
    """Areas that fill the height, and their names beside them, in the order in which they lie."""
    colours = [colours[index % len(colours)] for index in range(len(shares))]
    axes.stackplot(times, *shares.values(), colors=colours, alpha=0.85)
    handles = [
        Patch(color=colour, alpha=0.85, label=name)
        for name, colour in zip(shares, colours, strict=True)
    ]
    axes.legend(handles=handles[::-1], loc="center left", bbox_to_anchor=(1.005, 0.5))


def _share_axis(axes: Axes, name: str) -> None:
    axes.set_ylim(0, 1)
    axes.set_yticks([0, 0.5, 1])
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.set_ylabel(name)
