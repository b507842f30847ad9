"""``exhubert evaluate``: a trained head on another store, nothing fitted."""

from __future__ import annotations

import argparse

from .labelled import add_label_arguments, read_labels, show_result


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("head", metavar="HEAD", help="folder from `exhubert train`")
    add_label_arguments(parser)
    parser.add_argument("-o", "--output", metavar="DIR", required=True, help="for the report")


def run(options: argparse.Namespace) -> int:
    from ..heads import load_head
    from ..outcome import make_report
    from ..report import write_report
    from ..store import FeatureStore
    from ..training import evaluate_head

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
        features=features,
        corpus=options.corpus,
        command=options.command_line,
        seed=options.seed,
    )
    written = write_report(options.output, report)
    show_result(report, written, as_json=options.json, more={})
    return 0
