"""A recording over time: its waveform above, what was heard in it below."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from ..spec import SAMPLE_RATE

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ..prediction import Prediction

# Okabe and Ito's colours, which differ for any colour vision; more classes than colours repeat.
COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#999999")
VALENCE_COLOURS = {"negative": "#d55e00", "neutral": "#c9ced4", "positive": "#009e73"}
AROUSAL_COLOUR, WAVE_COLOUR = "#0072b2", "#59626d"
INK, MUTED, LINE = "#1b1f24", "#59626d", "#d9dde2"
SUFFIXES = (".png", ".svg", ".pdf")
COLUMNS = 2000  # of the waveform: more than the figure has pixels
STYLE = {
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
    path: Path, wave: np.ndarray, predictions: Sequence[Prediction], *, title: str
) -> None:
    """Write the picture.

    Parameters
    ----------
    path
        The file; its suffix is one of :data:`SUFFIXES`.
    wave
        (N,) samples at 16 kHz of the recording.
    predictions
        Of its windows, in order.
    title
        Shown above.
    """
    start = predictions[0].start
    seconds = len(wave) / SAMPLE_RATE
    six = bool(predictions[0].marginals)
    heights = [1, 1.1, 1.1] if six else [1, 2.2]
    with rc_context(STYLE):
        figure = Figure(figsize=(10, 5.6), layout="constrained")
        axes = figure.subplots(len(heights), sharex=True, height_ratios=heights)
        _draw_wave(axes[0], wave, start)
        times = _times(predictions, start, start + seconds)
        if six:
            _draw_arousal(axes[1], times, predictions)
            _draw_valence(axes[2], times, predictions)
        elif predictions[0].classes:
            _draw_classes(axes[1], times, predictions)
        else:
            _draw_value(axes[1], times, predictions)
        axes[0].set_title(title, loc="left", fontsize=12, fontweight="bold", pad=10)
        axes[-1].set_xlabel("seconds")
        axes[-1].set_xlim(start, start + seconds)
        figure.align_ylabels()
        figure.savefig(path, dpi=150)


def _times(predictions: Sequence[Prediction], start: float, end: float) -> np.ndarray:
    """Window centres, with the recording's ends before and after."""
    centres = [(prediction.start + prediction.end) / 2 for prediction in predictions]
    return np.array([start, *centres, end])


def _held(values: Sequence[float]) -> np.ndarray:
    """Values at the centres, held to the recording's ends."""
    return np.array([values[0], *values, values[-1]])


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


def _draw_arousal(axes: Axes, times: np.ndarray, predictions: Sequence[Prediction]) -> None:
    high = _held([prediction.marginals["arousal"]["high"] for prediction in predictions])
    axes.fill_between(times, high, color=AROUSAL_COLOUR, alpha=0.15, lw=0)
    axes.plot(times, high, color=AROUSAL_COLOUR, lw=2)
    axes.plot(times[1:-1], high[1:-1], ".", color=AROUSAL_COLOUR, ms=6)
    axes.axhline(0.5, color=MUTED, lw=0.8, ls=(0, (4, 4)))
    _share_axis(axes, "high arousal")


def _draw_valence(axes: Axes, times: np.ndarray, predictions: Sequence[Prediction]) -> None:
    levels = {
        level: _held([prediction.marginals["valence"][level] for prediction in predictions])
        for level in VALENCE_COLOURS
    }
    axes.stackplot(times, *levels.values(), colors=list(VALENCE_COLOURS.values()), alpha=0.85)
    _share_axis(axes, "valence")
    _name_layers(axes, list(levels), list(VALENCE_COLOURS.values()))


def _draw_classes(axes: Axes, times: np.ndarray, predictions: Sequence[Prediction]) -> None:
    scores = np.stack([prediction.scores for prediction in predictions])
    classes = list(predictions[0].classes)
    colours = [COLOURS[index % len(COLOURS)] for index in range(len(classes))]
    axes.stackplot(times, *map(_held, scores.T), colors=colours, alpha=0.85)
    _share_axis(axes, "class")
    _name_layers(axes, classes, colours)


def _draw_value(axes: Axes, times: np.ndarray, predictions: Sequence[Prediction]) -> None:
    values = _held([float(prediction.scores[0]) for prediction in predictions])
    axes.plot(times, values, color=AROUSAL_COLOUR, lw=2)
    axes.plot(times[1:-1], values[1:-1], ".", color=AROUSAL_COLOUR, ms=6)
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.set_ylabel(predictions[0].target)


def _share_axis(axes: Axes, name: str) -> None:
    axes.set_ylim(0, 1)
    axes.set_yticks([0, 0.5, 1])
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.set_ylabel(name)


def _name_layers(axes: Axes, names: list[str], colours: list[str]) -> None:
    """A legend beside the areas, in the order in which they lie."""
    from matplotlib.patches import Patch

    handles = [
        Patch(color=colour, alpha=0.85, label=name)
        for name, colour in zip(names, colours, strict=True)
    ]
    axes.legend(handles=handles[::-1], loc="center left", bbox_to_anchor=(1.005, 0.5))
