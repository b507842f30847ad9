"""``exhubert probe``: which layer knows the target, on speakers it was not fitted to."""

from __future__ import annotations

import argparse

from .labelled import (
    add_label_arguments,
    add_split_arguments,
    chosen_baselines,
    chosen_layers,
    group_column,
    label_options,
    require_target,
    show_progress,
    show_result,
    split_options,
)
from .wording import count


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_label_arguments(parser)
    add_split_arguments(parser)
    parser.add_argument("--layers", default="all", help="such as 0-48 or 12,24 (default: all)")
    parser.add_argument("--pool", help="which pooling (default: the store's first)")
    parser.add_argument("-o", "--output", metavar="DIR", required=True, help="for the report")


def run(options: argparse.Namespace) -> int:
    from ..heads import probe
    from ..store import open_stores

    target, splitting, joining = (
        require_target(options),
        split_options(options),
        label_options(options),
    )
    store = open_stores(options.store)
    evaluation = probe(
        store,
        target=target,
        group=group_column(options, store),
        labels=options.labels,
        layers=chosen_layers(options.layers, store),
        pool=options.pool,
        per_group=options.per_speaker,
        joining=joining,
        splitting=splitting,
        baselines=chosen_baselines(options, store),
        corpus=options.corpus,
        seed=options.seed,
        repeats=options.repeats,
        on_progress=show_progress,
    )
    written = evaluation.report(
        options.output, command=options.command_line, embed_audio=options.embed_audio
    )
    more: dict[str, object] = {}
    if evaluation.curve is not None:
        folds = evaluation.curve.chosen
        more["layers_chosen"] = (
            {str(layer): folds[layer] for layer in folds}
            if options.json
            else ", ".join(f"{layer} in {count(folds[layer], 'fold')}" for layer in folds)
        )
        if evaluation.curve.weighted is not None:
            more["all_layers_weighted"] = round(evaluation.curve.weighted.value, 3)
    show_result(evaluation, written, as_json=options.json, more=more)
    return 0
