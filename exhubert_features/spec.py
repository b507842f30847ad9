"""What was asked: class names, layer selection, the extraction spec."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any, Literal, get_args

from .errors import UsageError

SAMPLE_RATE = 16_000
CARD_SAMPLES = 48_000  # the released model was trained on 3 s
MINIMUM_SAMPLES = 400  # the receptive field of the first frame
FRAME_STRIDE = 320  # samples between frames, all HuBERT models

DEFAULT_SOURCE = "amiriparian/ExHuBERT"
DEFAULT_REVISION = "b158d45ed8578432468f3ab8d46cbe5974380812"  # what published work pins

# The released six classes, in logit order: index = 3 * arousal + valence.
CLASSES = (
    "low-negative",
    "low-neutral",
    "low-positive",
    "high-negative",
    "high-neutral",
    "high-positive",
)
AROUSAL = {label: label.split("-")[0] for label in CLASSES}
VALENCE = {label: label.split("-")[1] for label in CLASSES}


def marginals(probabilities: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Sum class probabilities into levels of arousal and of valence.

    Parameters
    ----------
    probabilities
        Numbers, or arrays of one length, by class.

    Returns
    -------
    ``{"arousal": {"low": p, "high": p}, "valence": {"negative": p, "neutral": p, "positive":
    p}}``; empty unless each class has an arousal and a valence.

    Examples
    --------
    >>> marginals({"low-neutral": 0.25, "high-positive": 0.75})["arousal"]
    {'low': 0.25, 'high': 0.75}
    """
    if not probabilities or not set(probabilities) <= set(AROUSAL):
        return {}
    summed: dict[str, dict[str, Any]] = {}
    for name, levels in (("arousal", AROUSAL), ("valence", VALENCE)):
        summed[name] = dict.fromkeys(dict.fromkeys(levels.values()), 0.0)
        for label, probability in probabilities.items():
            summed[name][levels[label]] = summed[name][levels[label]] + probability
    return summed


def arousal_and_valence(probabilities: Mapping[str, Any]) -> dict[str, Any]:
    """Condense class probabilities into two numbers: P(high), and P(positive) - P(negative).

    Empty where :func:`marginals` is.
    """
    summed = marginals(probabilities)
    if not summed:
        return {}
    valence = summed["valence"]
    return {
        "arousal": summed["arousal"]["high"],
        "valence": valence["positive"] - valence["negative"],
    }


# Raised whenever our own code changes the numbers it writes for the same weights and audio.
NUMERICS_VERSION = 1

Preprocess = Literal["card", "masked", "none"]
PREPROCESS_WORDS = "'card', 'masked' or 'none'"
DEFAULT_PREPROCESS: Preprocess = "card"  # what the released model was trained on
Precision = Literal["float32", "bfloat16", "float16", "int8"]
Layers = int | Sequence[int] | None
POOLS = ("mean", "std", "max")


@dataclass(frozen=True, kw_only=True)
class ExtractionSpec:
    """Which numbers to keep for each clip. Equal specs and weights give equal features."""

    layers: tuple[int, ...] | None = None  # hidden-state ids; None is all (49 for ExHuBERT)
    pools: tuple[str, ...] = ("mean",)  # 100 KB a clip at all layers; frames are 15 MB for 3 s
    frame_layers: tuple[int, ...] = ()  # hidden-state ids to keep unpooled; none by default
    logits: bool = True
    preprocess: Preprocess = DEFAULT_PREPROCESS
    window: float = 3.0  # seconds; the length the released model was trained on
    hop: float = 3.0  # seconds between windows; equal to the window: no overlap
    segments: bool = False  # one row per window instead of one per clip
    dtype: Literal["float16", "float32"] = "float16"  # half the bytes, error under 5e-4
    channel: int | None = None  # None: the mean of all channels
    # Frames of a long clip one stride apart throughout, over the borders of windows too. None:
    # where frames are kept. Means alone lose nothing at borders, and keep their earlier numbers.
    gapless: bool | None = None

    def __post_init__(self) -> None:
        if self.gapless is None:
            object.__setattr__(self, "gapless", bool(self.frame_layers) and not self.segments)
        unknown = [name for name in self.pools if name not in POOLS]
        if unknown or not self.pools or len(set(self.pools)) != len(self.pools):
            raise UsageError(
                f"pools is {','.join(self.pools) or 'empty'}",
                expected=f"distinct names out of {', '.join(POOLS)}",
            )
        if self.preprocess not in get_args(Preprocess):
            raise UsageError(f"preprocess is {self.preprocess!r}", expected=PREPROCESS_WORDS)
        if self.dtype not in ("float16", "float32"):
            raise UsageError(f"dtype is {self.dtype!r}", expected="'float16' or 'float32'")
        if not MINIMUM_SAMPLES <= self.window * SAMPLE_RATE < float("inf"):
            raise UsageError(f"window is {self.window} s", expected="at least 0.025 s (one frame)")
        if not FRAME_STRIDE / SAMPLE_RATE <= self.hop <= self.window:
            raise UsageError(
                f"hop is {self.hop} s with a window of {self.window} s",
                expected="at least 0.02 s (one frame) and at most the window",
                remedy="A larger hop would leave audio unseen",
            )
        if self.channel is not None and self.channel < 0:
            raise UsageError(f"channel is {self.channel}", expected="0 for the first, 1, ...")


def resolve_layers(layers: Layers, count: int) -> tuple[int, ...]:
    """Hidden-state ids 0 .. count-1 out of a selection.

    ``None`` is all, a number the one of that id, a sequence several; negative ids count from
    the end. Id 0 is the encoder's input, id k the output of layer k-1.

    Examples
    --------
    >>> resolve_layers(12, 49)
    (12,)
    >>> resolve_layers([0, -1], 49)
    (0, 48)
    """
    if layers is None:
        return tuple(range(count))
    ids = list(layers) if isinstance(layers, Iterable) else [layers]
    if any(isinstance(one, bool) or not isinstance(one, Integral) for one in ids):
        raise UsageError(f"layers is {layers!r}", expected="None, an int or a list of ints")
    resolved = tuple(int(one) + count if one < 0 else int(one) for one in ids)
    inside = all(0 <= one < count for one in resolved)
    if not inside or not resolved or len(set(resolved)) != len(resolved):
        raise UsageError(
            f"layers is {ids}", expected=f"distinct ids between {-count} and {count - 1}"
        )
    return resolved


def parse_layers(text: str) -> Layers:
    """Read ``all``, ``last``, ``0,12,24``, ``0-48`` or a mixture of ids and ranges."""
    if text == "all":
        return None
    if text == "last":
        return [-1]
    ids: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdigit() or (dash and not last.isdigit()):
            raise UsageError(
                f"layers is {text!r}", expected="all, last, ids such as 0,12,24 or a range 0-48"
            )
        ids.extend(range(int(first), int(last) + 1) if dash else [int(first)])
    if not ids:
        raise UsageError(f"layers is {text!r}", expected="a range that goes up, such as 0-48")
    return ids
