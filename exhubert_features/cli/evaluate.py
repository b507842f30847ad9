"""``exhubert evaluate``: a trained head on another store, nothing fitted."""

from __future__ import annotations

import argparse

from .labelled import add_label_arguments, label_options, show_result


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("head", metavar="HEAD", help="folder from `exhubert train`")
    add_label_arguments(parser)
    parser.add_argument("--against", metavar="HEAD", help="compare with this head, clip by clip")
    parser.add_argument("-o", "--output", metavar="DIR", required=True, help="for the report")


def run(options: argparse.Namespace) -> int:
    from ..heads import evaluate

    evaluation = evaluate(
        options.head,
        options.store,
        target=options.target,
        group=options.group,
        labels=options.labels,
        against=options.against,
        joining=label_options(options),
        corpus=options.corpus,
        seed=options.seed,
    )
    written = evaluation.report(
        options.output, command=options.command_line, embed_audio=options.embed_audio
    )
    show_result(evaluation, written, as_json=options.json)
    return 0
