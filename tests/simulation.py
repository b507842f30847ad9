"""Do the intervals and tests keep their word? Simulated data of known truth say.

``python tests/simulation.py`` prints the tables, ``test_intervals.py`` runs them small. "before"
is the percentile bootstrap over speakers that this package once used, made again here.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from unittest.mock import patch

import numpy as np
import torch

from exhubert_features.evaluation import Labels
from exhubert_features.evaluation.comparison import compare
from exhubert_features.evaluation.intervals import (
    classification_figures,
    regression_figures,
    retraining_share,
    several_figures,
)
from exhubert_features.evaluation.jackknife import moment_units
from exhubert_features.evaluation.metrics import (
    CLASSIFICATION,
    REGRESSION,
    SEVERAL,
    class_recalls,
    concordance,
    mean_concordance,
    moments,
    unweighted_average_recall,
)
from exhubert_features.evaluation.splits import make_protocol
from exhubert_features.heads import HeadConfig, fitting
from exhubert_features.heads.features import Batch
from exhubert_features.heads.options import FitOptions

CLASSES = ("angry", "happy", "neutral", "sad")
BASE = np.array([0.6, 0.9, 1.2, 0.3])  # log odds of each class's recall
GROUPS = (4, 5, 10, 24)
RESAMPLES = 400
Clips = tuple[np.ndarray, np.ndarray, np.ndarray]  # truth, prediction, groups


@dataclass(frozen=True, kw_only=True)
class World:
    """How speakers differ: clips of each class, and log odds of hitting them."""

    base: float = 0.0  # added to the log odds of all
    speaker: float = 0.5  # spread of speakers
    part: float = 0.6  # spread of the classes within a speaker
    clips: int = 15  # of a class
    uneven: float = 0.0  # spread of the log of their number
    holders: int | None = None  # so many speakers only have the first class


WORLDS = {
    "speakers differ": World(),
    "uneven sizes": World(uneven=0.6),
    "near chance": World(base=-1.8),
    "near perfect": World(base=2.6, speaker=0.9),
    "clips independent": World(speaker=0.0, part=0.0),
}


def confusions(
    random: np.random.Generator, world: World, groups: int, *, times: int = 1
) -> np.ndarray:
    """(G, C, C) of speakers drawn from a world, so many times as many."""
    shape = (times * groups, len(CLASSES))
    sizes = np.full(shape, world.clips)
    if world.uneven:
        each = random.normal(0, world.uneven, (len(sizes), 1))
        each = each + random.normal(0, world.uneven, shape)
        sizes = 1 + random.poisson(world.clips * np.exp(each))
    if world.holders is not None:
        sizes[world.holders * times :, 0] = 0
    odds = BASE + world.base + random.normal(0, world.speaker, (len(sizes), 1))
    hits = random.binomial(sizes, 1 / (1 + np.exp(-odds - random.normal(0, world.part, shape))))
    none = np.eye(len(CLASSES), dtype=int)
    return random.multinomial(sizes - hits, (1 - none) / (len(none) - 1)) + hits[..., None] * none


def clips_of(confusion: np.ndarray) -> Clips:
    """Truth, prediction and speaker of each clip in confusions (G, C, C)."""
    places = np.indices(confusion.shape).reshape(3, -1).repeat(confusion.ravel(), axis=1)
    return places[1], places[2], places[0]


def bootstrap(random: np.random.Generator, sums: np.ndarray) -> np.ndarray:
    """Sums (R, ...) of speakers drawn with replacement from sums (G, ...): the old intervals."""
    even = np.full(len(sums), 1 / len(sums))
    draws = random.multinomial(len(sums), even, size=RESAMPLES)
    return np.tensordot(draws.astype(float), sums.astype(float), axes=1)


def _old(drawn: np.ndarray, truth: float) -> bool:
    low, high = np.nanpercentile(drawn, [2.5, 97.5])
    return bool(low <= truth <= high)


def _first_recall(confusion: np.ndarray) -> np.ndarray:
    return class_recalls(confusion)[..., 0]


FIGURES = {**CLASSIFICATION, f"recall {CLASSES[0]}": _first_recall}


def class_coverage(world: World, groups: int, repeats: int) -> dict[str, tuple[float, float]]:
    """Share of intervals that hold the truth, before and after, for fixed predictions."""
    random = np.random.default_rng(groups)
    everybody = confusions(random, world, groups, times=100_000 // groups).sum(axis=0)
    held = {name: np.zeros(2) for name in FIGURES}
    for _ in range(repeats):
        drawn = confusions(random, world, groups)
        resampled = bootstrap(random, drawn)
        truth, prediction, names = clips_of(drawn)
        found = classification_figures(truth, prediction, groups=names, classes=CLASSES)
        for name, statistic in FIGURES.items():
            target = float(statistic(everybody))
            held[name] += (
                _old(statistic(resampled), target),
                found[name].low <= target <= found[name].high,
            )
    return {name: tuple(shares / repeats) for name, shares in held.items()}


def values_of(random: np.random.Generator, groups: int, *, clips: int = 20) -> Clips:
    """Ratings and predictions whose offset and slope differ between speakers."""
    truth = random.normal(0, 0.5, (groups, 1)) + random.normal(size=(groups, clips))
    slope = 0.6 + random.normal(0, 0.2, (groups, 1))
    offset = 0.1 + random.normal(0, 0.3, (groups, 1))
    guess = offset + slope * truth + random.normal(0, 0.6, truth.shape)
    return truth.ravel(), guess.ravel(), np.arange(groups).repeat(clips)


def value_coverage(groups: int, repeats: int) -> dict[str, tuple[float, float]]:
    """The same for regression."""
    random = np.random.default_rng(groups)
    truth, guess, _ = values_of(random, 50_000)
    everybody = moments(truth, guess).sum(axis=0)
    held = {name: np.zeros(2) for name in REGRESSION}
    for _ in range(repeats):
        truth, guess, names = values_of(random, groups)
        found = regression_figures(truth, guess, groups=names)
        sums = moments(truth, guess).reshape(groups, -1, len(everybody)).sum(axis=1)
        for name, statistic in REGRESSION.items():
            target = float(statistic(everybody))
            held[name] += (
                _old(statistic(bootstrap(random, sums)), target),
                found[name].low <= target <= found[name].high,
            )
    return {name: tuple(shares / repeats) for name, shares in held.items()}


def several_of(random: np.random.Generator, groups: int) -> Clips:
    """Three ratings of each clip (N, 3) that go together; of a third the last one is unknown."""
    parts = [values_of(random, groups) for _ in range(3)]
    shared = parts[0][0]
    truth = np.stack([0.6 * shared + 0.8 * part[0] for part in parts], axis=1)
    guess = np.stack([part[1] + 0.3 * shared for part in parts], axis=1)
    truth[::3, 2] = np.nan
    return truth, guess, parts[0][2]


def several_coverage(groups: int, repeats: int) -> tuple[float, float]:
    """The same for the mean CCC of three targets."""
    random = np.random.default_rng(groups)
    truth, guess, _ = several_of(random, 50_000)
    target = mean_concordance(truth, guess)
    held = np.zeros(2)
    for _ in range(repeats):
        truth, guess, names = several_of(random, groups)
        found = several_figures(truth, guess, groups=names, targets=("a", "b", "c"))["mean_ccc"]
        sums = moment_units(truth, guess[None], names).sums[:, 0]
        drawn = SEVERAL["mean_ccc"](bootstrap(random, sums))
        held += _old(drawn, target), found.low <= target <= found.high
    return tuple(held / repeats)


@dataclass(frozen=True, kw_only=True)
class Pipeline:
    """A ridge classifier trained and tested in folds over speakers, on data drawn anew."""

    signal: float = 0.5  # spread of the class means, in each of the dimensions
    speaker: float = 0.5  # spread of a speaker's voice
    part: float = 0.4  # spread of how a speaker shows a class
    dimensions: int = 16
    clips: int = 10
    penalty: float = 10.0
    folds: int = 5


PIPELINES = {
    "usual": Pipeline(),
    "no signal": Pipeline(signal=0.0),
    "loud speakers": Pipeline(signal=0.7, speaker=1.0, part=0.8, dimensions=8, penalty=1.0),
}


def cross_validated(
    random: np.random.Generator, pipeline: Pipeline, groups: int, repeats: int
) -> np.ndarray:
    """Confusions (R, G, C, C) of clips predicted by models that had not seen their speaker."""
    count, width, size = len(CLASSES), pipeline.dimensions, pipeline.clips
    means = np.random.default_rng(0).normal(0, pipeline.signal, (count, 1, width))
    clips = means + random.normal(size=(repeats, groups, count, size, width))
    clips += random.normal(0, pipeline.speaker, (repeats, groups, 1, 1, width))
    clips += random.normal(0, pipeline.part, (repeats, groups, count, 1, width))
    inputs = np.concatenate([clips, np.ones((*clips.shape[:-1], 1))], axis=-1)
    inputs = inputs.reshape(repeats, groups, count * size, width + 1)
    across = inputs.swapaxes(-1, -2)
    squares, products = across @ inputs, across @ np.eye(count).repeat(size, axis=0)
    fold = np.arange(groups) % pipeline.folds
    predicted = np.empty((repeats, groups, count * size), dtype=int)
    for number in np.unique(fold):
        held, given = fold == number, fold != number
        left = squares[:, given].sum(axis=1) + pipeline.penalty * np.eye(width + 1)
        weights = np.linalg.solve(left, products[:, given].sum(axis=1))
        predicted[:, held] = (inputs[:, held] @ weights[:, None]).argmax(axis=-1)
    hot = np.eye(count, dtype=int)[predicted]
    return hot.reshape(repeats, groups, count, size, count).sum(axis=3)


@dataclass(frozen=True, kw_only=True)
class _Matrix:
    """Features (N, D) as a head takes them, without a store around them."""

    matrix: torch.Tensor
    config: HeadConfig

    def batch(self, rows: np.ndarray) -> Batch:
        return Batch(self.matrix[torch.from_numpy(rows)][:, None, None], None)

    def batches(self, rows: np.ndarray) -> list[Batch]:
        return [self.batch(rows)]


def ratings(
    random: np.random.Generator, correlation: float, groups: int, *, clips: int = 15, width: int = 8
) -> tuple[_Matrix, Labels]:
    """Clips whose features, could a map of them be known, would correlate so with a rating."""
    features = random.normal(size=(groups, clips, width))
    told = features @ np.full(width, width**-0.5)
    voices = random.normal(0, 0.5, (groups, 1))  # of the rest, a quarter is the speaker's
    rest = voices + random.normal(0, 0.75**0.5, told.shape)
    values = (correlation * told + (1 - correlation**2) ** 0.5 * rest).ravel()
    everyone = np.arange(groups * clips)
    labels = Labels(
        target="arousal", task="regression", classes=(), rows=everyone, ids=everyone.astype(str),
        clips=everyone, values=values, groups=np.arange(groups).repeat(clips), group="speaker",
    )  # fmt: skip
    config = HeadConfig(
        kind="discriminant", target="arousal", classes=(), layers=(0,), pools=("mean",), width=width
    )
    return _Matrix(
        matrix=torch.from_numpy(features.reshape(-1, width)).float(), config=config
    ), labels


def _unstretched(outputs: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.ones(truth.shape[1]), outputs


def stretching(correlation: float, groups: int, repeats: int) -> tuple[float, ...]:
    """Mean CCC of ridge heads trained in nested folds: as they come, stretched, gain, its error."""
    random = np.random.default_rng(groups)
    scores = np.empty((repeats, 2))
    for repeat in range(repeats):
        features, labels = ratings(random, correlation, groups)
        protocol = make_protocol(labels)
        for column, stretch in enumerate((_unstretched, fitting.stretched)):
            outputs = np.empty((len(labels), 1))
            with patch.object(fitting, "stretched", stretch):
                for fold in protocol.folds:
                    setting = fitting.choose(features, labels, fold, FitOptions()).setting
                    head = fitting.fit(features, labels, fold.train, setting, FitOptions())
                    outputs[fold.test] = fitting.outputs_of(head, features, fold.test)
            scores[repeat, column] = concordance(labels.values, outputs[:, 0])
    gain = scores[:, 1] - scores[:, 0]
    return (*scores.mean(axis=0), gain.mean(), gain.std(ddof=1) / repeats**0.5)


def _share_trained_anew(pipeline: Pipeline, groups: int) -> float:
    tested = np.bincount(np.arange(groups) % pipeline.folds)
    return retraining_share(list(groups - tested), list(tested))


def pipeline_coverage(pipeline: Pipeline, groups: int, repeats: int) -> tuple[float, ...]:
    """Share of UAR intervals that hold the mean over data sets: before, given models, anew."""
    random = np.random.default_rng(groups)
    drawn = cross_validated(random, pipeline, groups, repeats)
    target = float(unweighted_average_recall(drawn.sum(axis=1)).mean())
    held = np.zeros(3)
    for confusion in drawn:
        truth, prediction, names = clips_of(confusion)
        given, anew = (
            classification_figures(
                truth, prediction, groups=names, classes=CLASSES, retraining=retraining
            )["uar"]
            for retraining in (0.0, _share_trained_anew(pipeline, groups))
        )
        held += (
            _old(unweighted_average_recall(bootstrap(random, confusion)), target),
            given.low <= target <= given.high,
            anew.low <= target <= anew.high,
        )
    return tuple(held / repeats)


def rivals(random: np.random.Generator, groups: int, *, edge: float = 0.0) -> Iterator[Clips]:
    """Two predictions that favour different speakers; the first better by ``edge`` log odds."""
    count = len(CLASSES)
    odds = BASE + random.normal(0, 0.5, (groups, 1)) + random.normal(0, 0.5, (groups, count))
    favour = (random.normal(0, 0.5, (groups, 1)) + edge) / 2
    truth = np.tile(np.arange(count).repeat(10), (groups, 1))
    names = np.arange(groups).repeat(truth.shape[1])
    for sign in (1, -1):
        rate = 1 / (1 + np.exp(-(odds + sign * favour)))
        hit = random.random(truth.shape) < np.take_along_axis(rate, truth, axis=1)
        wrong = (truth + random.integers(1, count, truth.shape)) % count
        yield truth.ravel(), np.where(hit, truth, wrong).ravel(), names


def _old_test(random: np.random.Generator, first: np.ndarray, second: np.ndarray) -> bool:
    """The old p-value of two confusions (G, C, C) is below .05."""
    both = np.stack([first, second], axis=1)
    gaps = unweighted_average_recall(bootstrap(random, both))
    far = min(np.sum(gaps[:, 0] <= gaps[:, 1]), np.sum(gaps[:, 0] >= gaps[:, 1]))
    return bool(2 * (far + 1) / (RESAMPLES + 1) <= 0.05)


def _confusion_of(truth: np.ndarray, prediction: np.ndarray, names: np.ndarray) -> np.ndarray:
    count = len(CLASSES)
    cells = (names * count + truth) * count + prediction
    return np.bincount(cells, minlength=(names.max() + 1) * count**2).reshape(-1, count, count)


def paired_errors(groups: int, repeats: int, *, edge: float = 0.0) -> tuple[float, ...]:
    """Share of p <= .05 before and after, and of intervals without the truth (0) after."""
    random = np.random.default_rng(groups)
    found = np.zeros(3)
    for _ in range(repeats):
        (truth, first, names), (_, second, _) = rivals(random, groups, edge=edge)
        after = compare(truth, first, second, groups=names, class_count=len(CLASSES))
        sums = [_confusion_of(truth, prediction, names) for prediction in (first, second)]
        found += (
            _old_test(random, *sums),
            after.p_value is not None and after.p_value <= 0.05,
            after.difference.low > 0 or after.difference.high < 0,
        )
    return tuple(found / repeats)


def pipeline_errors(pipeline: Pipeline, groups: int, repeats: int) -> tuple[float, ...]:
    """Share of p <= .05 of two equally good ways of training: before, given models, anew."""
    random = np.random.default_rng(groups)
    runs = [cross_validated(random, pipeline, groups, repeats) for _ in range(2)]
    found = np.zeros(3)
    for first, second in zip(*runs, strict=True):
        truth, guess, names = clips_of(first)
        rival = clips_of(second)[1]  # both are sorted by speaker and class
        p_values = [
            compare(
                truth, guess, rival, groups=names, class_count=len(CLASSES), retraining=retraining
            ).p_value
            for retraining in (0.0, _share_trained_anew(pipeline, groups))
        ]
        found += (
            _old_test(random, first, second),
            *(value is not None and value <= 0.05 for value in p_values),
        )
    return tuple(found / repeats)


def _print(title: str, heads: Sequence[str], rows: Sequence[tuple[str, Sequence[float]]]) -> None:
    print(f"\n{title}")
    print(f"{'':34}" + "".join(f"{head:>12}" for head in heads))
    for name, figures in rows:
        print(f"{name:34}" + "".join(f"{figure:12.3f}" for figure in figures), flush=True)


def print_fixed(repeats: int) -> None:
    """Predictions of given models, speakers drawn anew."""
    for title, world in WORLDS.items():
        rows = [
            (f"G={groups} {name}", shares)
            for groups in (*GROUPS, 50)
            for name, shares in class_coverage(world, groups, repeats).items()
        ]
        _print(f"Coverage, fixed predictions: {title}", ("before", "after"), rows)
    rows = [
        (f"G={groups} {name}", shares)
        for groups in (*GROUPS, 50)
        for name, shares in value_coverage(groups, repeats).items()
    ]
    _print("Coverage, fixed predictions: regression", ("before", "after"), rows)
    rows = [(f"G={groups} mean_ccc", several_coverage(groups, repeats)) for groups in (*GROUPS, 50)]
    _print("Coverage, fixed predictions: three targets", ("before", "after"), rows)


def print_rare(repeats: int) -> None:
    """A class that few of 24 speakers have."""
    rows = [
        (f"{holders} of 24 {name}", shares)
        for holders in (1, 2, 3, 4, 5, 8, 12)
        for name, shares in class_coverage(World(holders=holders), 24, repeats).items()
    ]
    _print("Coverage, the first class is one that few have", ("before", "after"), rows)


def print_pipeline(repeats: int) -> None:
    """Data sets drawn anew, models trained anew."""
    heads = ("before", "given", "anew")
    for title, pipeline in PIPELINES.items():
        rows = [(f"G={groups}", pipeline_coverage(pipeline, groups, repeats)) for groups in GROUPS]
        _print(f"Coverage of UAR, training included: {title}", heads, rows)
        rows = [(f"G={groups}", pipeline_errors(pipeline, groups, repeats)) for groups in GROUPS]
        _print(f"p <= .05, equal pipelines, training included: {title}", heads, rows)


def print_paired(repeats: int) -> None:
    """Two predictions of the same clips."""
    heads = ("before", "after", "interval")
    rows = [
        (f"G={groups}", paired_errors(groups, repeats)) for groups in sorted((2, 3, 6, *GROUPS))
    ]
    _print("p <= .05, two equal predictions", heads, rows)
    rows = [
        (f"G={groups}", paired_errors(groups, repeats, edge=0.6)) for groups in sorted((6, *GROUPS))
    ]
    _print("p <= .05, the first better (power)", heads, rows)


def print_stretching(repeats: int) -> None:
    """What stretching held-out values to the truth's spread does to the CCC."""
    rows = [
        (f"r={correlation} G={groups}", stretching(correlation, groups, repeats))
        for correlation in (0.0, 0.3, 0.5, 0.7)
        for groups in GROUPS
    ]
    _print("CCC of ridge heads", ("plain", "stretched", "gain", "its error"), rows)


TABLES = {
    "fixed": print_fixed,
    "rare": print_rare,
    "pipeline": print_pipeline,
    "paired": print_paired,
    "stretching": print_stretching,
}


def main() -> None:
    """Print the tables asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tables", nargs="*", help=f"of {', '.join(TABLES)}; all unless named")
    parser.add_argument("--repeats", type=int, default=500, help="data sets per figure")
    options = parser.parse_args()
    error = np.sqrt(0.95 * 0.05 / options.repeats)
    print(
        f"{options.repeats} data sets each: a coverage of .95 has a standard error of {error:.4f}"
    )
    for name in options.tables or TABLES:
        TABLES[name](options.repeats)


if __name__ == "__main__":
    main()
