"""``exhubert train``: cross-validate a head, fit it on everything, save it with its report."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from .labelled import (
    add_label_arguments,
    add_split_arguments,
    chosen_layers,
    make_folds,
    show_progress,
    show_result,
)

if TYPE_CHECKING:
    from ..heads.training import Trained


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_label_arguments(parser)
    add_split_arguments(parser)
    parser.add_argument(
        "--head",
        choices=("linear", "mlp", "weighted", "attention"),
        default="linear",
        help="linear and mlp on the best layer, weighted over all, attention on frames "
        "(default: %(default)s)",
    )
    parser.add_argument("--layers", help="use these layers together, such as 24 or 12,24,36")
    parser.add_argument("--pools", "--pool", help="comma-separated (default: all that are stored)")
    parser.add_argument("--epochs", type=int, default=60, help="at most (default: %(default)s)")
    parser.add_argument("--learning-rate", type=float, default=1e-3, help="default: %(default)s")
    parser.add_argument("--hidden", type=int, default=128, help="default: %(default)s")
    parser.add_argument("-o", "--output", metavar="HEAD", required=True, help="folder to write")


def run(options: argparse.Namespace) -> int:
    from ..errors import UsageError
    from ..evaluation.outcome import make_report
    from ..heads import save_head
    from ..heads.fitting import FitOptions
    from ..heads.training import describe, train_head
    from ..report import write_report
    from ..store import FeatureStore

    for name in ("epochs", "learning_rate", "hidden"):
        if not getattr(options, name) > 0:
            raise UsageError(f"--{name.replace('_', '-')} must be positive")
    store = FeatureStore(options.store)
    labels, protocol = make_folds(options, store)
    trained = train_head(
        store,
        labels,
        protocol,
        kind=options.head,
        layers=chosen_layers(options.layers, store) if options.layers else None,
        pools=options.pools.split(",") if options.pools else None,
        options=FitOptions(
            epochs=options.epochs,
            learning_rate=options.learning_rate,
            hidden=options.hidden,
            seed=options.seed,
        ),
        on_progress=show_progress,
    )
    report = make_report(
        store,
        labels,
        protocol,
        trained.outcome,
        title=f"{options.head} head: {labels.target}",
        method=describe(trained.head.config, layer_chosen=trained.curve is not None),
        features=trained.features,
        curve=trained.curve,
        warnings=_epoch_warnings(trained, options.epochs),
        corpus=options.corpus,
        command=options.command_line,
        seed=options.seed,
    )
    save_head(trained.head, options.output)
    written = write_report(options.output, report)
    more: dict[str, object] = {"head": options.output, "setting": trained.head.notes["setting"]}
    show_result(report, written, as_json=options.json, more=more)
    return 0


def _epoch_warnings(trained: Trained, limit: int) -> list[str]:
    """Were the folds still getting better when the epochs were over?"""
    stopped = [setting.get("epochs") for setting in trained.outcome.chosen].count(limit)
    if not stopped:
        return []
    return [
        f"In {stopped} of {len(trained.outcome.chosen)} folds the last of {limit} epochs was the "
        "best one: --epochs or --learning-rate may be too small"
    ]
