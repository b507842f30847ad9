"""Options that ``probe``, ``train`` and ``evaluate`` share, and what they print in the end."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..evaluation import Evaluation, LabelOptions, SplitOptions
    from ..store import FeatureStore


def add_label_arguments(parser: argparse.ArgumentParser) -> None:
    """Add store, labels and what the report needs."""
    parser.add_argument(
        "store",
        metavar="STORE",
        nargs="+",
        help="features from `exhubert extract`; of several, each is a corpus, named by its rows' "
        "corpus column, by its folder, or as NAME=STORE",
    )
    parser.add_argument(
        "--labels",
        metavar="FILE",
        help="CSV, TSV or JSON, joined on id or file (default: columns of the store's manifest)",
    )
    parser.add_argument(
        "--target",
        metavar="COLUMN",
        help="what to predict; several numbers at once as arousal,valence,dominance",
    )
    parser.add_argument(
        "--group", metavar="COLUMN", default="speaker", help="who speaks (default: %(default)s)"
    )
    parser.add_argument("--task", choices=("classification", "regression"), help="kind of target")
    parser.add_argument("--id-column", metavar="COLUMN", help="of --labels, names the clips")
    parser.add_argument(
        "--map",
        metavar="OLD=NEW",
        action="append",
        default=[],
        help="rename a label; OLD= leaves its clips out, NA=NA keeps a word that is usually "
        "missing; repeatable",
    )
    parser.add_argument(
        "--drop-unlabelled",
        action="store_true",
        help="go on without clips that have no label and labels that have no clip",
    )
    parser.add_argument(
        "--annotators",
        action="store_true",
        help="--labels has a row per annotator: the most frequent class counts, or the mean number",
    )
    parser.add_argument(
        "--soft",
        action="store_true",
        help="labels are shares of classes: --target names a column for each class, such as "
        "angry,happy,sad, holding shares or votes; or those of --annotators",
    )
    parser.add_argument(
        "--by", metavar="COLUMNS", help="scores by these as well, such as gender,language"
    )
    parser.add_argument("--corpus", metavar="NAME", help="the corpus' name, for the report")
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.add_argument(
        "--embed-audio",
        action="store_true",
        help="put the audio of mistaken clips into the report instead of links to their files",
    )


def add_split_arguments(parser: argparse.ArgumentParser) -> None:
    """Add how clips are divided into training and test."""
    parser.add_argument(
        "--split",
        choices=("auto", "leave-one-group-out", "leave-one-corpus-out", "grouped", "random"),
        default="auto",
        help="auto: the split column, else one group out for up to 6 groups, else grouped folds; "
        "leave-one-corpus-out needs several stores or a column corpus; random ignores speakers "
        "and is reported as such",
    )
    parser.add_argument(
        "--split-column", metavar="COLUMN", help="holds train/dev/test, or the official folds"
    )
    parser.add_argument(
        "--fold-column", metavar="COLUMN", help="holds official folds, such as IEMOCAP's sessions"
    )
    parser.add_argument(
        "--split-map",
        metavar="NAME=ROLE",
        action="append",
        default=[],
        help="what a name in the split column means: train, dev, test, or nothing to leave its "
        "clips out; several tests are scored one by one; repeatable",
    )
    parser.add_argument("--folds", type=int, default=5, help="default: %(default)s")
    parser.add_argument(
        "--baseline",
        metavar="FILE",
        action="append",
        default=[],
        help="compare with other features in the same folds: a table of them, `logits`, the "
        "encoder's own class scores, or `egemaps`, which opensmile computes from the store's files "
        "(written to egemaps.csv in the output); or with `six-classes`, what the released model "
        "tells by itself; repeatable",
    )
    parser.add_argument(
        "--per-speaker",
        action="store_true",
        help="standardise the features of each speaker by itself, which needs several clips of "
        "whoever is tested",
    )
    parser.add_argument(
        "--repeats",
        type=int,
        default=1,
        metavar="N",
        help="deal the folds N times to see how much that changes (default: %(default)s)",
    )
    parser.add_argument(
        "--shared-groups",
        action="store_true",
        help="accept a split column whose speakers stand on both sides (reported as such)",
    )


def label_options(options: argparse.Namespace) -> LabelOptions:
    """Return how labels reach clips, as typed."""
    from ..evaluation import LabelOptions

    return LabelOptions(
        task=options.task,
        mapping=_parse_pairs(options.map, "--map", "OLD=NEW, or OLD= to leave clips out"),
        drop_unlabelled=options.drop_unlabelled,
        id_column=options.id_column,
        annotators=options.annotators,
        soft=options.soft,
        columns=tuple(options.by.split(",")) if options.by else (),
    )


def split_options(options: argparse.Namespace) -> SplitOptions:
    """Return how clips are divided, as typed."""
    from ..errors import UsageError
    from ..evaluation import SplitOptions

    given = [name for name in ("split_column", "fold_column") if getattr(options, name)]
    if options.split != "auto":
        given.append("split")
    if len(given) > 1:
        first, second = ("--" + name.replace("_", "-") for name in given[-2:])
        raise UsageError(f"{first} and {second} exclude each other")
    return SplitOptions(
        scheme=options.split,
        column=options.split_column,
        fold_column=options.fold_column,
        roles=_parse_pairs(options.split_map, "--split-map", "NAME=train, dev, test or nothing"),
        folds=options.folds,
        shared_groups=options.shared_groups,
    )


def require_target(options: argparse.Namespace) -> str:
    """Return the target column, which has no default where a head is trained."""
    from ..errors import UsageError

    if not options.target:
        raise UsageError("--target is missing", expected="the column to predict")
    return str(options.target)


def group_column(options: argparse.Namespace, store: FeatureStore) -> str | None:
    """Return who speaks; a random split needs no such column to be there."""
    from ..evaluation.labels import store_rows, table_rows

    if options.split != "random":
        return str(options.group)
    rows = [*store_rows(store), *(table_rows(options.labels) if options.labels else [])]
    return options.group if any(options.group in row for row in rows) else None


def chosen_baselines(options: argparse.Namespace, store: FeatureStore) -> list[str | Path]:
    """Return the baselines, as typed but for eGeMAPS functionals, which become a table."""
    return [
        _egemaps(store, Path(options.output)) if name == "egemaps" else name
        for name in dict.fromkeys(options.baseline)
    ]


def _egemaps(store: FeatureStore, output: Path) -> Path:
    from ..extraction.functionals import write_egemaps

    return write_egemaps(
        store,
        output / "egemaps.csv",
        on_progress=lambda done, total: show_progress("eGeMAPS", done, total),
    )


def chosen_layers(text: str | None, store: FeatureStore) -> tuple[int, ...] | None:
    """Return layer ids out of ``all``, ``last``, ``12,24`` or ``0-48``; None: not chosen."""
    from ..spec import parse_layers, resolve_layers

    layers = None if text is None else parse_layers(text)
    states = store.fingerprint.model.num_states
    return None if layers is None else resolve_layers(layers, states)


def show_progress(word: str, done: int, total: int) -> None:
    """Write one line on a terminal's stderr, nothing elsewhere."""
    if sys.stderr.isatty():
        end = "\n" if done == total else ""
        print(f"\r{word}: {done} of {total}", end=end, file=sys.stderr, flush=True)


def show_result(
    evaluation: Evaluation,
    written: Path,
    *,
    as_json: bool,
    more: Mapping[str, object] | None = None,
) -> None:
    """Print the main result, what to beware of, and where the report is."""
    from ..report import as_json as json_data
    from ..report import comparison_words, dealing_words, metric_name

    more, name, main = more or {}, evaluation.metric, evaluation.main
    count, chance = len(evaluation.scored), _chance(evaluation)
    if as_json:
        result = {name: main.value, f"{name}_interval": [main.low, main.high], **more}
        result |= {evaluation.unit: count, "warnings": evaluation.warnings}
        result |= {"parts": evaluation.parts, "chance": chance}
        if evaluation.repeats:
            result["dealings"] = [main.value, *evaluation.repeats]
        result["metrics"], result["baselines"] = evaluation.figures, evaluation.baselines
        result["comparisons"] = evaluation.comparisons
        print(json.dumps(json_data({**result, "report": str(written)}), indent=1))
        return
    print(
        f"{metric_name(name)} {main.value:.3f} "
        f"(95 % interval {main.low:.3f} to {main.high:.3f}), {count} {evaluation.unit}."
        + ("" if chance is None else f" Chance is {chance:.3f}.")
    )
    for line in _other_figures(evaluation):
        print(line)
    print(evaluation.protocol.words, evaluation.method)
    if evaluation.repeats:
        print(dealing_words((main.value, *evaluation.repeats), name))
    for comparison in evaluation.comparisons:
        print(comparison_words(comparison, name))
    for part in evaluation.parts:
        score = part.score
        told = f"{score.value:.3f} ({score.low:.3f} to {score.high:.3f})"
        if score.value != score.value:
            told = "not defined, for the numbers do not vary or are not known"
        print(f"{part.kind} {part.name}: {metric_name(name)} {told}, {part.clips}")
    for key, value in more.items():
        print(f"{key.replace('_', ' ')}: {value}")
    for warning in evaluation.warnings:
        print(f"warning: {warning}")
    print(f"report: {written}")


def _chance(evaluation: Evaluation) -> float | None:
    """Score guessing, by UAR; None for numbers."""
    tested = evaluation.tested
    return 1 / len(set(tested.values.tolist())) if tested.classes else None


def _other_figures(evaluation: Evaluation) -> Iterator[str]:
    """Say how good each of several targets is told, and shares of classes where labels are soft."""
    from ..report import metric_name

    for key, figure in evaluation.figures.items():
        if key.startswith("ccc ") or key in evaluation.baselines:
            chance = evaluation.baselines.get(key)
            against = "" if chance is None else f", chance {chance:.3f}"
            span = f"{figure.low:.3f} to {figure.high:.3f}"
            yield f"{metric_name(key)} {figure.value:.3f} ({span}){against}"


def _parse_pairs(pairs: Sequence[str], option: str, expected: str) -> dict[str, str]:
    from ..errors import UsageError

    mapping = {}
    for pair in pairs:
        old, equals, new = pair.partition("=")
        if not equals or not old:
            raise UsageError(f"{option} {pair!r}", expected=expected)
        mapping[old.strip()] = new.strip()
    return mapping
