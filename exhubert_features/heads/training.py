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
from ..store import FeatureStore, NamedStores, open_stores
from .baselines import compare_with_baselines
from .features import HeadConfig, Kind
from .files import refuse_existing, save_head
from .fitting import choose, fit, outputs_of
from .labelled import PER_GROUP, LabelledFeatures
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
    store: NamedStores,
    *,
    target: str | Sequence[str],
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
        Features, or their path; several of one model and setting, as a list or by the names of
        their corpora, are taken together: speakers of two corpora are different people, and
        each corpus has its score.
    target, group
        Columns: what to predict (several at once: arousal, valence, dominance), and who must
        not stand on both sides of a split.
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
        To be compared with on the same clips, in the same folds: ``logits``, ``six-classes`` (the
        released model's own answer), or tables of other features.
    corpus
        Its name, to warn when the encoder was fine-tuned on it; None: looked for in names.
    seed
        Of what is left to chance: how folds are dealt, how heads begin.
    repeats
        Deal the folds so many times, with other seeds, to see how much that changes.
    on_progress
        Called with a word, steps done and steps in all.

    Returns
    -------
    Trained
        ``head`` to predict with, ``evaluation`` of it; ``save(folder)`` writes both.
    """
    store = open_stores(store)
    splitting = splitting or SplitOptions()
    joined = Labels.from_store(
        store, target=target, group=group, labels=labels, split=splitting.given, options=joining
    )
    protocol = make_protocol(joined, splitting, seed=seed)
    options = replace(fitting or FitOptions(), seed=seed)
    _check_loss(joined, head, options)
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
    config = replace(_config(store, labels, kind, layers, pools, options), per_group=per_group)
    training = _Training(
        store=store,
        labels=labels,
        config=config,
        options=options,
        chooses_layer=layers is None and kind in CHOOSING and len(config.layers) > 1,
        tell=on_progress or (lambda word, done, total: None),
    )
    probe = training.probe(protocol)
    outcome = training.cross_validate(protocol, probe)
    repeats = tuple(training.score(folds) for folds in others)
    setting = agree(outcome.chosen)
    head, summary = training.finish(outcome, setting)
    evaluation = Evaluation(
        labels=labels,
        protocol=protocol,
        outputs=outcome.outputs,
        chosen=outcome.chosen,
        temperatures=outcome.temperatures,
        temperature=float(head.temperature) if labels.classes else None,
        title=f"{kind} head: {labels.target}",
        method=_describe(
            config, options, layer_chosen=probe is not None, soft=labels.shares is not None
        ),
        curve=None if probe is None else layer_curve(probe, labels, protocol),
        features=summary,
        notes=tuple(edge_warnings(outcome.chosen, options)),
        origin=origin_of(store, labels, corpus),
        seed=options.seed,
        repeats=repeats,
    )
    head.notes = _notes(evaluation, setting) | remember(labels)
    return Trained(head=head, evaluation=evaluation)


@dataclass(frozen=True, kw_only=True)
class _Training:
    """One kind of head on one store and its labels, under any folds."""

    store: FeatureStore
    labels: Labels
    config: HeadConfig
    options: FitOptions
    chooses_layer: bool  # a probe does, in each fold; else all of the config's are used
    tell: Tell

    def probe(self, protocol: Protocol) -> Probe | None:
        """Run the probe that chooses each fold's layer."""
        if not self.chooses_layer:
            return None
        return run_probe(
            self.store, self.labels, protocol,
            pool=self.config.pools[0],
            per_group=self.config.per_group,
            on_progress=lambda done, total: self.tell("probing layers", done, total),
        )  # fmt: skip

    def cross_validate(self, protocol: Protocol, probe: Probe | None) -> Outcome:
        """Ask each fold's head about the clips that the fold tests."""
        labels, config = self.labels, self.config
        outputs = np.full((len(labels), config.outputs), np.nan, dtype=np.float32)
        temperatures, chosen = [], []
        loaded: dict[tuple[int, ...], LabelledFeatures] = {}
        for number, fold in enumerate(protocol.folds):
            setting: dict[str, Any] = {}
            if probe is not None:
                setting = {"layer": probe.layers[probe.chosen[number]]}
                config = replace(config, layers=(setting["layer"],))
            if config.layers not in loaded:
                loaded[config.layers] = LabelledFeatures(self.store, labels, config)
            features = loaded[config.layers]
            choice = choose(features, labels, fold, self.options)
            setting |= choice.setting
            head = fit(features, labels, fold.train, setting, self.options)
            outputs[fold.test] = outputs_of(head, features, fold.test)
            temperatures.append(fold_temperature(labels, fold, choice.inner_outputs))
            chosen.append(setting)
            self.tell("cross-validating", number + 1, len(protocol.folds))
        return Outcome(
            labels=labels,
            protocol=protocol,
            outputs=outputs,
            temperatures=tuple(temperatures),
            chosen=tuple(chosen),
        )

    def score(self, protocol: Protocol) -> float:
        """Compute the main figure under other folds."""
        return self.cross_validate(protocol, self.probe(protocol)).main.value

    def finish(self, outcome: Outcome, setting: dict[str, Any]) -> tuple[Head, np.ndarray]:
        """Fit the head on all clips; also (N, D) features of them for a picture."""
        config = self.config
        if self.chooses_layer:
            config = replace(config, layers=(setting["layer"],))
        features = LabelledFeatures(self.store, self.labels, config)
        everyone = np.arange(len(self.labels))
        head = fit(features, self.labels, everyone, setting, self.options)
        rows = outcome.protocol.tested
        if self.labels.classes:
            logits = outcome.outputs[rows]
            head.temperature.fill_(fit_temperature(logits, self.labels.wanted[rows]))
        head.fingerprint = self.store.fingerprint
        return head, features.summary(everyone)


def _notes(evaluation: Evaluation, setting: dict[str, Any]) -> dict[str, Any]:
    """Note what a head tells of its training."""
    main = evaluation.main
    return {
        evaluation.metric: {"value": main.value, "low": main.low, "high": main.high},
        "protocol": evaluation.protocol.words,
        "setting": setting,
        "clips": len(evaluation.labels),
        "groups": len(np.unique(evaluation.labels.groups)),
    }


def _check_loss(labels: Labels, kind: Kind, options: FitOptions) -> None:
    if options.loss is None:
        return
    if labels.classes:
        raise UsageError(f"loss is {options.loss!r} for classes", expected="a target of numbers")
    if kind in ("linear", "discriminant"):
        raise UsageError(
            f"loss is {options.loss!r} for a {kind} head, which is fitted in closed form",
            remedy="Leave it out: its values are stretched instead; or choose another --head",
        )


def _describe(
    config: HeadConfig, options: FitOptions, *, layer_chosen: bool, soft: bool = False
) -> str:
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
        else:
            balanced = f", by {'the squared error' if options.loss == 'mse' else '1 - CCC as loss'}"
    elif soft:
        balanced += ", on the shares of the classes"
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
