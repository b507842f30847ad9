"""``exhubert probe``: which layer knows the target, on speakers it was not fitted to."""

from __future__ import annotations

import argparse

from .labelled import (
    add_label_arguments,
    add_split_arguments,
    chosen_layers,
    make_folds,
    show_progress,
    show_result,
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_label_arguments(parser)
    add_split_arguments(parser)
    parser.add_argument("--layers", default="all", help="such as 0-48 or 12,24 (default: all)")
    parser.add_argument("--pool", help="which pooling (default: the store's first)")
    parser.add_argument("-o", "--output", metavar="DIR", required=True, help="for the report")


def run(options: argparse.Namespace) -> int:
    from ..evaluation.outcome import make_report
    from ..heads.layerwise import describe_probe, layer_curve, probe_outcome, run_probe
    from ..report import write_report
    from ..store import FeatureStore

    store = FeatureStore(options.store)
    labels, protocol = make_folds(options, store)
    pool = options.pool or store.pools[0]
    probe = run_probe(
        store,
        labels,
        protocol,
        layers=chosen_layers(options.layers, store),
        pool=pool,
        on_progress=lambda done, total: show_progress("layers", done, total),
    )
    report = make_report(
        store,
        labels,
        protocol,
        probe_outcome(probe, labels, protocol),
        title=f"Layer probe: {labels.target}",
        method=describe_probe(labels.task),
        features=store.matrix(layer=probe.best, pool=pool)[labels.rows],
        curve=layer_curve(probe, labels, protocol),
        corpus=options.corpus,
        command=options.command_line,
        seed=options.seed,
    )
    written = write_report(options.output, report)
    weighted = report.layer_curve.weighted if report.layer_curve else None
    more: dict[str, object] = {"best_layer": probe.best}
    if weighted is not None:
        more["all_layers_weighted"] = round(weighted.value, 3)
    show_result(report, written, as_json=options.json, more=more)
    return 0
