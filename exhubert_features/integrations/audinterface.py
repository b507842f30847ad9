"""audinterface, and whoever knows openSMILE's Python: files, folders and signals to a DataFrame."""

from __future__ import annotations

from typing import Any

import audinterface
import numpy as np

from ..spec import SAMPLE_RATE
from .picklable import PicklableEncoder, as_source


class ProcessFunction(PicklableEncoder):
    """audinterface's ``process_func``: a signal (channels, samples) to the features (D,)."""

    def __call__(self, signal: np.ndarray, sampling_rate: int) -> np.ndarray:
        """Extract one vector; of several channels their mean is heard."""
        return self.vectors({"signal": as_source(signal, sampling_rate)})[0]


def feature_interface(**options: Any) -> audinterface.Feature:
    """Make an ``audinterface.Feature`` with process_file, process_folder and the like.

    Parameters
    ----------
    **options
        Fields of :class:`PicklableEncoder` (``source``, ``layer``, ``pool``, ...), and any further
        arguments of ``audinterface.Feature`` (``num_workers``, ``channels``, ``win_dur``, ...).

    Returns
    -------
    audinterface.Feature
        Its columns are ``feature_0``, ``feature_1``, ...
    """
    own = PicklableEncoder.__dataclass_fields__
    function = ProcessFunction(**{name: options.pop(name) for name in own if name in options})
    return audinterface.Feature(
        [f"feature_{number}" for number in range(function.encoder.hidden_size)],
        name="exhubert",
        process_func=function,
        process_func_is_mono=True,
        **{"sampling_rate": SAMPLE_RATE, "resample": True, **options},
    )
