"""Where frames lie in time, and how many of them hosts expect."""

from __future__ import annotations

from typing import Any, Literal, get_args

import numpy as np

from .errors import UsageError
from .spec import FRAME_STRIDE, MINIMUM_SAMPLES, SAMPLE_RATE

HostRule = Literal["floor", "round", "ceil"]


def frame_centres(
    starts: np.ndarray, *, field: int = MINIMUM_SAMPLES, rate: int = SAMPLE_RATE
) -> np.ndarray:
    """Tell when frames are: the middle of what each one hears.

    Parameters
    ----------
    starts
        (T,) the first sample that each frame hears.
    field
        Samples that a frame hears.
    rate
        Samples a second.

    Returns
    -------
    np.ndarray
        (T,) float64, seconds.

    Examples
    --------
    >>> frame_centres(np.array([0, 320, 640])).tolist()
    [0.0125, 0.0325, 0.0525]
    """
    return (np.asarray(starts, np.float64) + field / 2) / rate


def host_frame_count(samples: int, rule: HostRule, *, stride: int = FRAME_STRIDE) -> int:
    """Count the frames that a host expects of so many samples.

    A HuBERT gives fewer, as its first frame needs 400 samples: 149 for 3 s, where hosts expect
    150. Fit them with :func:`fit_frames`.

    Parameters
    ----------
    samples
        At 16 kHz.
    rule
        What the host does with ``samples / stride``: ``"floor"``, ``"round"`` (halves up, as
        lhotse) or ``"ceil"`` (as s3prl).
    stride
        Samples between frames.

    Returns
    -------
    int
        At least 1.

    Examples
    --------
    >>> [host_frame_count(48_160, rule) for rule in ("floor", "round", "ceil")]
    [150, 151, 151]
    """
    if rule not in get_args(HostRule):
        raise UsageError(f"rule is {rule!r}", expected="'floor', 'round' or 'ceil'")
    added = {"floor": 0, "round": stride // 2, "ceil": stride - 1}[rule]
    return max(1, (samples + added) // stride)


def fit_frames(frames: Any, count: int) -> Any:
    """Give so many frames: the last one is repeated where there are fewer, never zeros.

    Parameters
    ----------
    frames
        (..., T, D), an array or a tensor, all of one clip.
    count
        How many are wanted; frames beyond them are cut off.

    Returns
    -------
    Any
        (..., count, D), of the same kind.

    Examples
    --------
    >>> fit_frames(np.array([[1.0], [2.0]]), 4).ravel().tolist()
    [1.0, 2.0, 2.0, 2.0]
    """
    if not frames.shape[-2]:
        raise UsageError("a clip without any frame", expected="at least one to repeat")
    return frames[..., np.minimum(np.arange(count), frames.shape[-2] - 1), :]
