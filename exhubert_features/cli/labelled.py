"""Options that ``probe``, ``train`` and ``evaluate`` share: a store, its labels, its folds."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..evaluation import Labels
    from ..evaluation.splits import Protocol
    from ..report import Report
    from ..store import FeatureStore


def add_label_arguments(parser: argparse.ArgumentParser) -> None:
    """Store, labels and where the report goes."""
    parser.add_argument("store", metavar="STORE", help="features from `exhubert extract`")
    parser.add_argument(
        "--labels",
        metavar="FILE",
        help="CSV, TSV or JSON, joined on id or file (default: columns of the store's manifest)",
    )
    parser.add_argument("--target", metavar="COLUMN", help="what to predict")
    parser.add_argument(
        "--group", metavar="COLUMN", default="speaker", help="who speaks (default: %(default)s)"
    )
    parser.add_argument("--task", choices=("classification", "regression"), help="kind of target")
    parser.add_argument(
        "--map",
        metavar="OLD=NEW",
        action="append",
        default=[],
        help="rename a label; OLD= leaves its clips out; repeatable",
    )
    parser.add_argument(
        "--drop-unlabelled",
        action="store_true",
        help="go on without clips that have no label and labels that have no clip",
    )
    parser.add_argument("--corpus", metavar="NAME", help="the corpus' name, for the report")
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def add_split_arguments(parser: argparse.ArgumentParser) -> None:
    """How clips are divided into training and test."""
    parser.add_argument(
        "--split",
        choices=("auto", "leave-one-group-out", "grouped", "random"),
        default="auto",
        help="auto: the split column, else one group out for up to 6 groups, else grouped folds; "
        "random ignores speakers and is reported as such",
    )
    parser.add_argument(
        "--split-column", metavar="COLUMN", help="holds train/dev/test, or the official folds"
    )
    parser.add_argument("--folds", type=int, default=5, help="default: %(default)s")
    parser.add_argument(
        "--shared-groups",
        action="store_true",
        help="accept a split column whose speakers stand on both sides (reported as such)",
    )


def read_labels(
    options: argparse.Namespace,
    store: FeatureStore,
    *,
    target: str,
    classes: Sequence[str] = (),
    split: str | None = None,
    needs_groups: bool = True,
) -> Labels:
    """The labels that the options name; without groups where none are needed or there."""
    from ..evaluation import failed_rows, join_labels, read_table, store_rows

    clips = store_rows(store)
    table = read_table(options.labels) if options.labels else None
    has_group = any(options.group in row for row in (clips if table is None else table))
    return join_labels(
        clips,
        table,
        target=target,
        group=options.group if has_group or needs_groups else None,
        split=split,
        task=options.task,
        classes=classes,
        mapping=_parse_map(options.map),
        failed=failed_rows(store),
        drop_unlabelled=options.drop_unlabelled,
    )


def make_folds(options: argparse.Namespace, store: FeatureStore) -> tuple[Labels, Protocol]:
    """Labels and folds that the options name."""
    from ..errors import UsageError
    from ..evaluation.splits import make_protocol

    if not options.target:
        raise UsageError("--target is missing", expected="the column to predict")
    if options.split_column and options.split != "auto":
        raise UsageError(f"--split {options.split} and --split-column exclude each other")
    labels = read_labels(
        options,
        store,
        target=options.target,
        split=options.split_column,
        needs_groups=options.split != "random",
    )
    protocol = make_protocol(
        labels,
        scheme=options.split,
        folds=options.folds,
        shared_groups=options.shared_groups,
        seed=options.seed,
    )
    return labels, protocol


def chosen_layers(text: str, store: FeatureStore) -> tuple[int, ...] | None:
    """Layer ids out of ``all``, ``last``, ``12,24`` or ``0-48``; None for all that are stored."""
    from ..spec import parse_layers, resolve_layers

    layers = parse_layers(text)
    states = store.fingerprint.model.num_states
    return None if layers is None else resolve_layers(layers, states)


def show_progress(word: str, done: int, total: int) -> None:
    """One line on a terminal's stderr, nothing elsewhere."""
    if sys.stderr.isatty():
        end = "\n" if done == total else ""
        print(f"\r{word}: {done} of {total}", end=end, file=sys.stderr, flush=True)


def show_result(
    report: Report, written: Path, *, as_json: bool, more: Mapping[str, object] | None = None
) -> None:
    """The main result, what to beware of, and where the report is."""
    from ..report import comparison_words, metric_name, plain

    more = more or {}
    name, main = next(iter(report.metrics.items()))
    if as_json:
        result = {name: main.value, f"{name}_interval": [main.low, main.high], **more}
        result |= {"clips": len(report.ids), "warnings": report.warnings}
        if report.comparison:
            result |= vars(report.comparison)
        print(json.dumps(plain({**result, "report": str(written)}), indent=1))
        return
    print(
        f"{metric_name(name)} {main.value:.3f} "
        f"(95 % interval {main.low:.3f} to {main.high:.3f}), {len(report.ids)} clips."
    )
    print(report.protocol)
    if report.comparison:
        print(comparison_words(report))
    for key, value in more.items():
        print(f"{key.replace('_', ' ')}: {value}")
    for warning in report.warnings:
        print(f"warning: {warning}")
    print(f"report: {written}")


def _parse_map(pairs: Sequence[str]) -> dict[str, str]:
    from ..errors import UsageError

    mapping = {}
    for pair in pairs:
        old, equals, new = pair.partition("=")
        if not equals or not old:
            raise UsageError(f"--map {pair!r}", expected="OLD=NEW, or OLD= to leave clips out")
        mapping[old.strip()] = new.strip()
    return mapping
