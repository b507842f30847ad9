"""The mean score over several corpora, and two intervals: for these corpora, and for another."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from scipy.special import stdtrit

from ..records import Interval
from .intervals import unit_index
from .jackknife import (
    LEVEL,
    Units,
    coefficient_interval,
    confusion_units,
    jackknife,
    keeping_classes,
    keeping_targets,
    moment_units,
    share_interval,
)
from .metrics import CLASSIFICATION, REGRESSION, SEVERAL
from .outcome import Outcome

LEAST_CORPORA = 3  # two differ in one way only: an interval for a third would say nothing


def mean_over(corpora: Sequence[Outcome]) -> Interval:
    """Average the main figure over corpora, with an interval for other speakers of the same ones.

    Every corpus counts alike, whatever its size. Speakers are left out one at a time, each of its
    own corpus.

    Parameters
    ----------
    corpora
        One outcome each, of the same classes or target.

    Returns
    -------
    Interval
        Conditional on the trained models, as those of the corpora are.
    """
    blocks = [_units(part) for part in corpora]
    statistic = {**CLASSIFICATION, **REGRESSION, **SEVERAL}[corpora[0].metric]
    units = _side_by_side(blocks)

    def mean(sums: np.ndarray) -> np.ndarray:
        return statistic(sums).mean(axis=-1)

    if corpora[0].labels.classes:
        spread = jackknife(units, keeping_classes(mean, units.total()))
        return share_interval(spread, 0.0)
    spread = jackknife(units, keeping_targets(mean, units.total()))
    # Several targets are of the same clips: together they are not more of them.
    clips = spread.clips / len(corpora[0].labels.targets)
    return coefficient_interval(replace(spread, clips=clips), 0.0)


def beyond(scores: Sequence[float], lowest: float) -> Interval | None:
    """Average scores (K,) of corpora, with an interval for the score of corpora like these.

    The corpora are the sample here, as if drawn from all there are: t quantiles over their
    scores. None for fewer than three.

    Parameters
    ----------
    scores
        Of each corpus.
    lowest
        Of all scores there can be; the highest is 1.
    """
    count = len(scores)
    if count < LEAST_CORPORA:
        return None
    mean = float(np.mean(scores))
    error = float(np.std(scores, ddof=1)) / math.sqrt(count)
    reach = float(stdtrit(count - 1, LEVEL)) * error
    return Interval(value=mean, low=max(lowest, mean - reach), high=min(1.0, mean + reach))


def _units(part: Outcome) -> Units:
    """Sum (U, ...) over each speaker of a corpus, or clip where speakers are not known."""
    tested, guess = part.tested, part.prediction
    index, found = unit_index(tested.groups if tested.group else None, len(tested))
    if tested.classes:
        alone = np.full(len(tested), found.unit == "clip")
        units = confusion_units(tested.values, guess[None], len(tested.classes), index, alone)
    else:
        units = moment_units(tested.values, guess[None], index)
    return units.of_the_only()


def _side_by_side(blocks: Sequence[Units]) -> Units:
    """Units of all corpora, with sums (U, K, ...) that are zero but in their own corpus."""
    count = len(blocks)
    sums, sizes = [], []
    for place, block in enumerate(blocks):
        own = np.zeros((len(block.sums), count, *block.sums.shape[1:]))
        own[:, place] = block.sums
        size = np.zeros((len(block.sizes), count, block.sizes.shape[1]))
        size[:, place] = block.sizes
        sums.append(own)
        sizes.append(size.reshape(len(size), -1))
    counts = np.concatenate([block.counts for block in blocks])
    return Units(sums=np.concatenate(sums), counts=counts, sizes=np.concatenate(sizes))
