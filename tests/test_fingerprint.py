"""One comparison for stores, shards and heads; hostile JSON is refused, never believed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from store_fakes import make_fingerprint

from exhubert_features.errors import UsageError
from exhubert_features.fingerprint import Fingerprint
from exhubert_features.model.config import ExHuBERTConfig
from exhubert_features.spec import ExtractionSpec

SPEC = ExtractionSpec(layers=(0, -1), frame_layers=(-2,), pools=("mean", "std"), channel=1)
FINGERPRINT = make_fingerprint(SPEC)


def test_layers_are_resolved_and_json_gives_the_same_back() -> None:
    assert (FINGERPRINT.layers, FINGERPRINT.spec.frame_layers) == ((0, 4), (3,))
    assert Fingerprint.from_dict(FINGERPRINT.to_dict()) == FINGERPRINT
    assert make_fingerprint().layers == (0, 1, 2, 3, 4)
    assert FINGERPRINT.key != make_fingerprint().key


def test_words_of_the_first_version_are_read() -> None:
    data = FINGERPRINT.to_dict()
    data["model"]["labels"] = data["model"].pop("classes")
    data["spec"]["pool"] = data["spec"].pop("pools")
    data["spec"]["frames"] = data["spec"].pop("frame_layers")
    assert Fingerprint.from_dict(data) == FINGERPRINT


def test_an_unknown_config_agrees_and_another_does_not() -> None:
    without = make_fingerprint(SPEC, config_sha256=None)
    assert "config_sha256" not in without.to_dict()["model"]
    assert without.difference(FINGERPRINT) == FINGERPRINT.difference(without) == ()
    other = make_fingerprint(SPEC, config_sha256="d" * 64)
    (line,) = other.difference(FINGERPRINT)
    assert line.startswith("model.config_sha256 is 'ddd")


def test_differences_are_named_but_for_those_ignored() -> None:
    other = make_fingerprint(replace(SPEC, dtype="float32", layers=(1,)), precision="bfloat16")
    assert other.difference(FINGERPRINT) == (
        "model.precision is 'bfloat16', not 'float32'",
        "spec.layers is [1], not [0, 4]",
        "spec.dtype is 'float32', not 'float16'",
    )
    ignoring = ("spec.layers", "spec.dtype", "model.precision")
    assert other.difference(FINGERPRINT, ignoring=ignoring) == ()


def test_the_config_hash_names_what_decides_inference_and_nothing_else() -> None:
    config = ExHuBERTConfig()
    for deciding in (
        {"num_attention_heads": 8},
        {"layer_norm_eps": 1e-6},
        {"conv_stride": (5, 2, 2, 2, 2, 2, 1)},
    ):
        assert replace(config, **deciding).sha256 != config.sha256  # type: ignore[arg-type]
    for free in ({"hidden_dropout": 0.0}, {"mask_time_prob": 0.2}, {"apply_spec_augment": False}):
        assert replace(config, **free).sha256 == config.sha256  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("model", None),
        ("model", []),
        ("spec", "card"),
        ("numerics", "1"),
        ("sample_rate", True),
        ("extra", 1),
        ("model.num_states", "5"),
        ("model.hidden_size", -1),
        ("model.classes", [1]),
        ("model.weights_sha256", None),
        ("model.extra", 1),
        ("spec.layers", None),
        ("spec.layers", [99]),
        ("spec.layers", ["0"]),
        ("spec.pools", [[]]),
        ("spec.pools", ["median"]),
        ("spec.window", "long"),
        ("spec.logits", "yes"),
        ("spec.channel", "left"),
        ("spec.dtype", "object"),
    ],
)
def test_json_that_is_no_fingerprint_is_refused(place: str, value: object) -> None:
    data: Any = FINGERPRINT.to_dict()
    part, _, key = place.rpartition(".")
    (data[part] if part else data)[key] = value
    with pytest.raises(UsageError, match="fingerprint"):
        Fingerprint.from_dict(data)


def test_a_claim_of_many_states_costs_no_memory() -> None:
    data = FINGERPRINT.to_dict()
    data["model"]["num_states"] = 10**15
    assert Fingerprint.from_dict(data).layers == (0, 4)
    with pytest.raises(UsageError, match="the fingerprint has no 'model'"):
        Fingerprint.from_dict({})
