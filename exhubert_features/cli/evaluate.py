"""``exhubert evaluate``: a trained head on another store, nothing fitted."""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import TYPE_CHECKING

from .labelled import add_label_arguments, read_labels, show_result

if TYPE_CHECKING:
    from ..evaluation import Labels
    from ..report import HeadComparison, Report
    from ..store import FeatureStore


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("head", metavar="HEAD", help="folder from `exhubert train`")
    add_label_arguments(parser)
    parser.add_argument("--against", metavar="HEAD", help="compare with this head, clip by clip")
    parser.add_argument("-o", "--output", metavar="DIR", required=True, help="for the report")


def run(options: argparse.Namespace) -> int:
    from ..evaluation.outcome import make_report
    from ..heads import load_head
    from ..heads.training import evaluate_head
    from ..report import write_report
    from ..store import FeatureStore

    head = load_head(options.head)
    store = FeatureStore(options.store)
    options.task = head.config.task
    labels = read_labels(
        options,
        store,
        target=options.target or head.config.target,
        classes=head.config.classes,
        needs_groups=False,
    )
    outcome, protocol, features = evaluate_head(head, store, labels)
    report = make_report(
        store,
        labels,
        protocol,
        outcome,
        title=f"{head.config.kind} head on other data: {labels.target}",
        method="The head was trained before; nothing was fitted or chosen on these clips.",
        features=features,
        corpus=options.corpus,
        command=options.command_line,
        seed=options.seed,
    )
    if options.against:
        comparison = _compare(options.against, report, store, labels)
        report = replace(report, comparison=comparison)
    written = write_report(options.output, report)
    show_result(report, written, as_json=options.json)
    return 0


def _compare(other: str, report: Report, store: FeatureStore, labels: Labels) -> HeadComparison:
    """The main figure minus that of another head on the same clips."""
    from ..bootstrap import compare
    from ..evaluation.outcome import predicted
    from ..heads import load_head
    from ..heads.training import evaluate_head
    from ..report import HeadComparison

    outcome, _, _ = evaluate_head(load_head(other), store, labels)
    found = compare(
        report.truth,
        report.prediction,
        predicted(labels, outcome.outputs),
        groups=report.groups,
        metric=next(iter(report.metrics)),
        classes=len(labels.classes),
    )
    return HeadComparison(against=other, difference=found.difference, p_value=found.p_value)
