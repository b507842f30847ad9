"""Predictions of tested clips as a table, for ``predictions.csv``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .labels import Labels

if TYPE_CHECKING:
    import pandas as pd


def prediction_table(
    tested: Labels, prediction: np.ndarray, *, probabilities: np.ndarray | None, folds: np.ndarray
) -> pd.DataFrame:
    """Return a row for each clip.

    Parameters
    ----------
    tested
        Labels of n clips.
    prediction
        Class indices or values (n,), or values (n, T) of several targets.
    probabilities
        Of the classes (n, C); None for values.
    folds
        Name (n,) of the fold that tested each clip.
    """
    import pandas

    columns: dict[str, Any] = {"id": tested.ids, "group": tested.groups, "fold": folds}
    if tested.classes:
        names = np.array(tested.classes, dtype=object)
        columns["truth"] = np.where(tested.decided, names[tested.values], "")
        columns["prediction"] = names[prediction]
    elif tested.values.ndim == 1:
        columns |= {"truth": tested.values, "prediction": prediction}
    else:
        for name, true, guess in zip(tested.targets, tested.values.T, prediction.T, strict=True):
            columns |= {f"truth_{name}": true, f"prediction_{name}": guess}
    frame = pandas.DataFrame(columns)
    if probabilities is not None:
        frame = frame.join(pandas.DataFrame(probabilities, columns=list(tested.classes)))
    if tested.shares is not None:
        names_of_shares = [f"share_{name}" for name in tested.classes]
        frame = frame.join(pandas.DataFrame(tested.shares, columns=names_of_shares))
    return frame
