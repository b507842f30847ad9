"""Train a head for a new task and say honestly how good it is; test it on other corpora."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..errors import LabelError, UsageError
from ..evaluation import Labels
from ..evaluation.metrics import fit_temperature
from ..evaluation.outcome import CHOSEN_INSIDE, Outcome, evaluated_rows, fold_temperature
from ..evaluation.splits import Fold, Protocol
from ..report import LayerCurve
from ..store import FeatureStore
from .features import HeadConfig, Kind, check_fingerprint
from .fitting import Features, FitOptions, agree, choose, fit, outputs_of
from .layerwise import Probe, layer_curve, run_probe
from .modules import Head

AUDIO_KEY = 16  # hex digits of a clip's hash kept with the head: enough to know it again


@dataclass(frozen=True, kw_only=True)
class Trained:
    """The final head, and the out-of-fold outcome that says how good heads like it are."""

    head: Head
    outcome: Outcome
    features: np.ndarray  # (N, D) of the labelled clips, for a picture
    curve: LayerCurve | None  # where the layer was chosen


def train_head(
    store: FeatureStore,
    labels: Labels,
    protocol: Protocol,
    *,
    kind: Kind = "linear",
    layers: Sequence[int] | None = None,
    pools: Sequence[str] | None = None,
    options: FitOptions | None = None,
    on_progress: Callable[[str, int, int], None] | None = None,
) -> Trained:
    """Cross-validate a head, then fit it on everything.

    Parameters
    ----------
    kind
        ``linear`` and ``mlp`` take one layer, which the inner folds choose by a linear
        probe; ``weighted`` all pooled layers; ``attention`` all frame layers.
    layers
        Hidden-state ids to use instead, all together.
    pools
        Out of the store's; None is all of them.
    on_progress
        Called with a word, steps done and steps in all.
    """
    options = options or FitOptions()
    config = _config(store, labels, kind, layers, pools, options)
    tell = on_progress or (lambda word, done, total: None)
    probe = None
    if layers is None and kind in ("linear", "mlp") and len(config.layers) > 1:
        probe = run_probe(
            store, labels, protocol, pool=config.pools[0],
            on_progress=lambda done, total: tell("probing layers", done, total),
        )  # fmt: skip
    outcome = _cross_validate(store, labels, protocol, config, probe, options, tell)
    setting = agree(outcome.chosen)
    if probe is not None:
        config = replace(config, layers=(setting["layer"],))
    features = Features(store, labels, config)
    everyone = np.arange(len(labels))
    head = fit(features, labels, everyone, setting, options)
    return Trained(
        head=_finished(head, store, labels, protocol, outcome),
        outcome=outcome,
        features=features.summary(everyone),
        curve=layer_curve(probe, labels, protocol) if probe is not None else None,
    )


def evaluate_head(
    head: Head, store: FeatureStore, labels: Labels
) -> tuple[Outcome, Protocol, np.ndarray]:
    """A trained head on another store, where nothing is fitted or chosen.

    ``labels`` must have been joined with the head's own classes. Also gives the protocol that
    the report states, and (N, D) features for its picture.
    """
    if labels.classes != head.config.classes:
        raise LabelError(
            f"the labels' classes are {', '.join(labels.classes) or 'numbers'}",
            expected=", ".join(head.config.classes) or "numbers",
        )
    check_fingerprint(head.fingerprint, store.fingerprint)
    features = Features(store, labels, head.config)
    everyone = np.arange(len(labels))
    temperature = float(head.temperature)
    outcome = Outcome(
        outputs=outputs_of(head, features, everyone),
        temperatures=(temperature,),
        chosen=({},),
        temperature=temperature,
    )
    seen = np.isin(_audio_keys(store, labels), head.notes.get("audio", []))
    protocol = Protocol(
        folds=(Fold(name="all clips", train=everyone[:0], test=everyone, inner=()),),
        words="All labelled clips were tested, each once.",
        warnings=(
            f"{seen.sum()} of {len(seen)} clips were among the head's training clips: "
            "this is not a test on unseen data",
        )
        if seen.any()
        else (),
    )
    return outcome, protocol, features.summary(everyone)


def describe(config: HeadConfig, *, layer_chosen: bool) -> str:
    """How a head was fitted and chosen, for the report."""
    fitted = {
        "linear": f"a {'logistic' if config.classes else 'ridge'} regression",
        "mlp": "a network with one hidden layer",
        "weighted": "a learned average over the layers and a linear map",
        "attention": "attention over frames and a linear map",
    }[config.kind]
    balanced = ", with every class counting alike" if config.classes else ""
    strength = "penalty" if config.kind == "linear" else "number of epochs"
    chosen = f"layer and {strength} were" if layer_chosen else f"{strength} was"
    return f"The head is {fitted}{balanced}. Its {chosen} {CHOSEN_INSIDE}."


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
    tell: Callable[[str, int, int], None],
) -> Outcome:
    outputs = np.full((len(labels), config.outputs), np.nan, dtype=np.float32)
    temperatures, chosen = [], []
    loaded: dict[tuple[int, ...], Features] = {}
    for number, fold in enumerate(protocol.folds):
        setting: dict[str, Any] = {}
        if probe is not None:
            setting = {"layer": probe.layers[probe.chosen[number]]}
            config = replace(config, layers=(setting["layer"],))
        if config.layers not in loaded:
            loaded[config.layers] = Features(store, labels, config)
        features = loaded[config.layers]
        choice = choose(features, labels, fold, options)
        setting |= choice.setting
        head = fit(features, labels, fold.train, setting, options)
        outputs[fold.test] = outputs_of(head, features, fold.test)
        temperatures.append(fold_temperature(labels, fold, choice.inner_outputs))
        chosen.append(setting)
        tell("cross-validating", number + 1, len(protocol.folds))
    return Outcome(outputs=outputs, temperatures=tuple(temperatures), chosen=tuple(chosen))


def _finished(
    head: Head, store: FeatureStore, labels: Labels, protocol: Protocol, outcome: Outcome
) -> Head:
    """The head with all it needs to be used, refused and traced."""
    rows = evaluated_rows(protocol)
    if labels.classes:
        head.temperature.fill_(fit_temperature(outcome.outputs[rows], labels.values[rows]))
    name, main = next(iter(outcome.figures(labels, protocol).items()))
    head.fingerprint = store.fingerprint
    head.notes = {
        name: {"value": main.value, "low": main.low, "high": main.high},
        "protocol": protocol.words,
        "setting": agree(outcome.chosen),
        "clips": len(labels),
        "groups": len(np.unique(labels.groups)),
        "audio": sorted(set(_audio_keys(store, labels))),
    }
    return head


def _audio_keys(store: FeatureStore, labels: Labels) -> list[str]:
    hashes = store.column("audio_sha256")
    return [hashes[row][:AUDIO_KEY] for row in labels.rows.tolist()]
