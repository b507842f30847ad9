"""eGeMAPS functionals by opensmile, of the clips of a store: a table to compare features with."""

from __future__ import annotations

import csv
import io
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ..audio import read_audio
from ..errors import AudioError, MissingDependency
from ..files import publish
from ..spec import SAMPLE_RATE
from ..store import FeatureStore

LEAST = 960  # samples; of fewer, opensmile gives no functionals


def write_egemaps(
    store: FeatureStore, path: str | Path, *, on_progress: Callable[[int, int], None] | None = None
) -> Path:
    """Write the 88 functionals of eGeMAPS (version 02) of each row of a store as CSV.

    The audio is read again: the same parts of the same files, the channel that the store heard.
    Clips shorter than 60 ms are followed by silence up to there.

    Parameters
    ----------
    store
        Its files must still be where they were.
    path
        The table, with the columns ``id`` and one for each functional; replaced if there.
    on_progress
        Called with rows done and rows in all.

    Returns
    -------
    Path
        The same, to be given as a baseline.

    Raises
    ------
    MissingDependency
        When opensmile cannot be imported.
    AudioError
        When a clip cannot be read.
    """
    smile = _smile()
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["id", *smile.feature_names])
    columns = (store.column(name) for name in ("file", "start", "end"))
    for done, (name, file, start, end) in enumerate(zip(store.ids, *columns, strict=True), 1):
        if not Path(file).is_file():
            raise AudioError(
                f"the audio of {name!r} is not at {file or 'any path'}",
                expected="the files that the store was made from, for the baseline egemaps",
                remedy="Put them back, or give a table of features instead",
            )
        wave = read_audio(
            file, start=start, end=end or None, channel=store.fingerprint.spec.channel
        )
        writer.writerow([name, *(f"{value:.7g}" for value in _functionals(smile, wave))])
        if on_progress is not None:
            on_progress(done, len(store))
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    publish(text.getvalue().encode(), path, replace=True)
    return path


def _smile() -> Any:
    try:
        import opensmile
    except ImportError as error:
        raise MissingDependency(
            f"eGeMAPS functionals need opensmile ({error})",
            remedy="pip install 'exhubert-features[opensmile]'",
        ) from error
    return opensmile.Smile(
        feature_set=opensmile.FeatureSet.eGeMAPSv02,
        feature_level=opensmile.FeatureLevel.Functionals,
    )


def _functionals(smile: Any, wave: np.ndarray) -> np.ndarray:
    """(88,) of (N,) samples at 16 kHz."""
    wave = np.pad(wave, (0, max(0, LEAST - len(wave))))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its dependencies' deprecations, once for each clip
        return smile.process_signal(wave, SAMPLE_RATE).to_numpy()[0]
