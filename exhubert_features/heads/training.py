"""Train a head for a new task and say honestly how good it is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import UsageError
from ..evaluation import Evaluation, LabelOptions, Labels, SplitOptions
from ..evaluation.metrics import fit_temperature
from ..evaluation.origin import origin_of
from ..evaluation.outcome import Outcome
from ..evaluation.outputs import CHOSEN_INSIDE, fold_temperature
from ..evaluation.splits import Protocol, make_protocol, other_dealings
from ..store import FeatureStore
from .baselines import compare_with_baselines
from .features import HeadConfig, Kind
from .files import refuse_existing, save_head
from .fitting import choose, fit, outputs_of
from .labelled import PER_GROUP, LabelledFeatures, open_store
from .layerwise import Probe, layer_curve, run_probe
from .memory import remember
from .modules import Head
from .options import FitOptions, agree, edge_warnings

if TYPE_CHECKING:
    from ..evaluation.labels import LabelSource

CHOOSING = ("linear", "discriminant", "mlp")  # heads of one layer, which a probe chooses
Tell = Callable[[str, int, int], None]


@dataclass(frozen=True, kw_only=True)
class Trained:
    """The final head, and the out-of-fold evaluation that says how good heads like it are."""

    head: Head
    evaluation: Evaluation

    def save(
        self,
        folder: str | Path,
        *,
        force: bool = False,
        command: str = "",
        embed_audio: bool = False,
    ) -> Path:
        """Write the head and its report into a folder, for ``load_head`` and ``evaluate``.

        Parameters
        ----------
        force
            Replace a head that is there; without it that is a UsageError.
        command, embed_audio
            As for :meth:`Evaluation.report`.

        Returns
        -------
        Path
            The report's page.
        """
        if not force:
            refuse_existing(folder)
        # The head last: a run that ends in between can be repeated without force.
        page = self.evaluation.report(folder, command=command, embed_audio=embed_audio)
        save_head(self.head, folder)
        return page


def train(
    store: FeatureStore | str | Path,
    *,
    target: str,
    group: str | None = "speaker",
    labels: LabelSource | None = None,
    head: Kind = "linear",
    layers: Sequence[int] | None = None,
    pools: Sequence[str] | None = None,
    per_group: bool = False,
    joining: LabelOptions | None = None,
    splitting: SplitOptions | None = None,
    fitting: FitOptions | None = None,
    baselines: Sequence[str | Path] = (),
    corpus: str | None = None,
    seed: int = 0,
    repeats: int = 1,
    on_progress: Tell | None = None,
) -> Trained:
    """Cross-validate a head, then fit it on all labelled clips.

    Parameters
    ----------
    store
        Features, or their path.
    target, group
        Columns: what to predict, and who must not stand on both sides of a split.
    labels
        A table (file, rows, DataFrame) with these columns; None: those of the store's manifest.
    head
        ``linear``, ``discriminant`` and ``mlp`` take one layer, which the inner folds choose
        by a linear probe; ``weighted`` all pooled layers; ``attention`` all frame layers.
    layers
        Hidden-state ids to use instead, all together.
    pools
        Out of the store's; None is all of them.
    per_group
        Standardise the features of each speaker by itself: no labels, but several clips of
        whoever is tested are needed.
    joining, splitting, fitting
        How labels reach clips, how clips are divided and how heads are fitted, where the
        defaults do not fit.
    baselines
        ``logits`` or tables of other features, to be compared with in the same folds.
    corpus
        Its name, to warn when the encoder was fine-tuned on it; None: looked for in names.
    repeats
        Deal the folds so many times, with other seeds, to see how much that changes.
    on_progress
        Called with a word, steps done and steps in all.

    Returns
    -------
    Trained
        ``head`` to predict with, ``evaluation`` of it; ``save(folder)`` writes both.
    """
    store = open_store(store)
    splitting = splitting or SplitOptions()
    joined = Labels.from_store(
        store, target=target, group=group, labels=labels, split=splitting.given, options=joining
    )
    protocol = make_protocol(joined, splitting, seed=seed)
    options = replace(fitting or FitOptions(), seed=seed)
    trained = train_on(
        store, joined, protocol, kind=head, layers=layers, pools=pools, per_group=per_group,
        options=options, corpus=corpus, on_progress=on_progress,
        others=other_dealings(joined, splitting, seed, repeats),
    )  # fmt: skip
    evaluation = compare_with_baselines(trained.evaluation, store, baselines)
    return replace(trained, evaluation=evaluation)


def train_on(
    store: FeatureStore,
    labels: Labels,
    protocol: Protocol,
    *,
    kind: Kind = "linear",
    layers: Sequence[int] | None = None,
    pools: Sequence[str] | None = None,
    per_group: bool = False,
    options: FitOptions | None = None,
    corpus: str | None = None,
    others: Sequence[Protocol] = (),
    on_progress: Tell | None = None,
) -> Trained:
    """Train on labels and folds that are at hand already; see :func:`train`.

    ``others`` are folds to be cross-validated as well, to see how much the score changes.
    """
    options = options or FitOptions()
    config = _config(store, labels, kind, layers, pools, options)
    config = replace(config, per_group=per_group)
    tell = on_progress or (lambda word, done, total: None)

    def choosing(folds: Protocol) -> Probe | None:
        if layers is not None or kind not in CHOOSING or len(config.layers) == 1:
            return None
        return run_probe(
            store, labels, folds, pool=config.pools[0], per_group=per_group,
            on_progress=lambda done, total: tell("probing layers", done, total),
        )  # fmt: skip

    def score(folds: Protocol) -> float:
        outputs, *_ = _cross_validate(store, labels, folds, config, choosing(folds), options, tell)
        return Outcome(labels=labels, protocol=folds, outputs=outputs).main.value

    found = choosing(protocol)
    outputs, temperatures, chosen = _cross_validate(
        store, labels, protocol, config, found, options, tell
    )
    repeats = tuple(score(folds) for folds in others)
    setting = agree(chosen)
    if found is not None:
        config = replace(config, layers=(setting["layer"],))
    features = LabelledFeatures(store, labels, config)
    everyone = np.arange(len(labels))
    head = fit(features, labels, everyone, setting, options)
    rows = protocol.tested
    if labels.classes:
        head.temperature.fill_(fit_temperature(outputs[rows], labels.values[rows]))
    curve = None if found is None else layer_curve(found, labels, protocol)
    evaluation = Evaluation(
        labels=labels,
        protocol=protocol,
        outputs=outputs,
        chosen=tuple(chosen),
        temperatures=tuple(temperatures),
        temperature=float(head.temperature) if labels.classes else None,
        title=f"{kind} head: {labels.target}",
        method=_describe(config, options, layer_chosen=found is not None)
        + (PER_GROUP if per_group else ""),
        curve=curve,
        features=features.summary(everyone),
        notes=tuple(edge_warnings(chosen, options)),
        origin=origin_of(store, labels, corpus),
        seed=options.seed,
        repeats=repeats,
    )
    head.fingerprint = store.fingerprint
    head.notes = _notes(evaluation, setting) | remember(labels)
    return Trained(head=head, evaluation=evaluation)


def _notes(evaluation: Evaluation, setting: dict[str, Any]) -> dict[str, Any]:
    """What a head tells of its training."""
    main = evaluation.main
    return {
        evaluation.metric: {"value": main.value, "low": main.low, "high": main.high},
        "protocol": evaluation.protocol.words,
        "setting": setting,
        "clips": len(evaluation.labels),
        "groups": len(np.unique(evaluation.labels.groups)),
    }


def _describe(config: HeadConfig, options: FitOptions, *, layer_chosen: bool) -> str:
    """How a head was fitted and chosen, for the report."""
    fitted = {
        "linear": f"a {'logistic' if config.classes else 'ridge'} regression",
        "discriminant": f"a {'linear discriminant analysis' if config.classes else 'ridge fit'}",
        "mlp": "a network with one hidden layer",
        "weighted": "a learned average over the layers and a linear map",
        "attention": "attention over frames and a linear map",
    }[config.kind]
    balanced = {"balanced": ", with every class counting alike",
                "corpus": ", with classes as frequent as in the corpus"}[options.prior]  # fmt: skip
    if not config.classes:
        balanced = ""
        if config.kind in ("linear", "discriminant"):
            balanced = (
                ", its values stretched about their mean to spread as held-out truth does (the "
                "least squares error makes them timid, which costs CCC)"
            )
    strength = {"linear": "penalty", "discriminant": "shrinkage"}.get(
        config.kind, "number of epochs"
    )
    chosen = f"layer and {strength} were" if layer_chosen else f"{strength} was"
    words = f"The head is {fitted}{balanced}. Its {chosen} {CHOSEN_INSIDE}."
    words += PER_GROUP if config.per_group else ""
    if layer_chosen and config.kind != "discriminant" and config.classes:
        words += (
            " The curve of the layers is of another fit, a linear discriminant analysis, so that "
            "its points and the head's score differ on the same layer."
        )
    return words


def _config(
    store: FeatureStore,
    labels: Labels,
    kind: Kind,
    layers: Sequence[int] | None,
    pools: Sequence[str] | None,
    options: FitOptions,
) -> HeadConfig:
    stored = store.frame_layers if kind == "attention" else store.layers
    if not stored:
        raise UsageError(
            f"{store.path} holds no frames, which a head of kind attention reads",
            remedy="Extract with --frames LAYERS",
        )
    return HeadConfig(
        kind=kind,
        target=labels.target,
        classes=labels.classes,
        layers=stored if layers is None else tuple(layers),
        pools=() if kind == "attention" else tuple(pools or store.pools),
        width=store.fingerprint.model.hidden_size,
        hidden=options.hidden,
        dropout=options.dropout,
    )


def _cross_validate(
    store: FeatureStore,
    labels: Labels,
    protocol: Protocol,
    config: HeadConfig,
    probe: Probe | None,
    options: FitOptions,
    tell: Tell,
) -> tuple[np.ndarray, list[float], list[dict[str, Any]]]:
    """Outputs (N, C) of the folds' heads, and temperature and choices of each fold."""
    outputs = np.full((len(labels), config.outputs), np.nan, dtype=np.float32)
    temperatures, chosen = [], []
    loaded: dict[tuple[int, ...], LabelledFeatures] = {}
    for number, fold in enumerate(protocol.folds):
        setting: dict[str, Any] = {}
        if probe is not None:
            setting = {"layer": probe.layers[probe.chosen[number]]}
            config = replace(config, layers=(setting["layer"],))
        if config.layers not in loaded:
            loaded[config.layers] = LabelledFeatures(store, labels, config)
        features = loaded[config.layers]
        choice = choose(features, labels, fold, options)
        setting |= choice.setting
        head = fit(features, labels, fold.train, setting, options)
        outputs[fold.test] = outputs_of(head, features, fold.test)
        temperatures.append(fold_temperature(labels, fold, choice.inner_outputs))
        chosen.append(setting)
        tell("cross-validating", number + 1, len(protocol.folds))
    return outputs, temperatures, chosen
