"""``exhubert train``: cross-validate a head, fit it on everything, save it with its report."""

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


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_label_arguments(parser)
    add_split_arguments(parser)
    parser.add_argument(
        "--head",
        choices=("linear", "discriminant", "mlp", "weighted", "attention"),
        default="linear",
        help="linear, discriminant (the probe's own fit) and mlp on the best layer, weighted over "
        "all, attention on frames (default: %(default)s)",
    )
    parser.add_argument("--layers", help="use these layers together, such as 24 or 12,24,36")
    parser.add_argument("--pools", "--pool", help="comma-separated (default: all that are stored)")
    parser.add_argument("--epochs", type=int, default=60, help="at most (default: %(default)s)")
    parser.add_argument("--learning-rate", type=float, default=1e-3, help="default: %(default)s")
    parser.add_argument(
        "--prior",
        choices=("balanced", "corpus"),
        default="balanced",
        help="whether every class counts alike, or as often as it occurs (default: %(default)s)",
    )
    parser.add_argument(
        "--loss",
        choices=("ccc", "mse"),
        help="of numbers, for mlp, weighted and attention: 1 - CCC (the default), or squared error",
    )
    parser.add_argument("--hidden", type=int, default=128, help="default: %(default)s")
    parser.add_argument("-o", "--output", metavar="HEAD", required=True, help="folder to write")
    parser.add_argument("--force", action="store_true", help="replace a head that is there")


def run(options: argparse.Namespace) -> int:
    from ..errors import UsageError
    from ..heads import FitOptions, train
    from ..heads.files import refuse_existing
    from ..report import setting_words
    from ..store import open_stores

    for name in ("epochs", "learning_rate", "hidden"):
        if not getattr(options, name) > 0:
            raise UsageError(f"--{name.replace('_', '-')} must be positive")
    if not options.force:
        refuse_existing(options.output)  # before the work, not after it
    target, splitting, joining = (
        require_target(options),
        split_options(options),
        label_options(options),
    )
    store = open_stores(options.store)
    trained = train(
        store,
        target=target,
        group=group_column(options, store),
        labels=options.labels,
        head=options.head,
        layers=chosen_layers(options.layers, store),
        pools=options.pools.split(",") if options.pools else None,
        per_group=options.per_speaker,
        joining=joining,
        splitting=splitting,
        fitting=FitOptions(
            epochs=options.epochs,
            learning_rate=options.learning_rate,
            hidden=options.hidden,
            prior=options.prior,
            loss=options.loss,
        ),
        baselines=chosen_baselines(options, store),
        corpus=options.corpus,
        seed=options.seed,
        repeats=options.repeats,
        on_progress=show_progress,
    )
    written = trained.save(
        options.output,
        force=options.force,
        command=options.command_line,
        embed_audio=options.embed_audio,
    )
    setting = trained.head.notes["setting"]
    more = {"head": options.output, "setting": setting if options.json else setting_words(setting)}
    show_result(trained.evaluation, written, as_json=options.json, more=more)
    return 0
