"""The sizes and switches of a model of HuBERT's kind, named as in its ``config.json``."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from ..errors import CheckpointError
from ..spec import Preprocess
from ..stamps import canonical

# Switches of the HuBERT family whose other values we do not implement, with the value we do.
# All public HuBERT checkpoints have these; a wrong guess would give wrong features silently.
_REQUIRED = {
    "hidden_act": "gelu",
    "feat_extract_activation": "gelu",
    "conv_pos_batch_norm": False,
    "adapter_attn_dim": None,
}
Family = Literal["hubert", "wav2vec2", "wavlm"]
FAMILIES: tuple[Family, ...] = ("hubert", "wav2vec2", "wavlm")
# Fields that other families do not have, or that decide no numbers: no part of a config.json here.
_OF_WAVLM = ("num_buckets", "max_bucket_distance")
_ASIDE = ("gated", "classes", "do_normalize")


@dataclass(frozen=True, kw_only=True)
class ExHuBERTConfig:
    """Defaults are the released ExHuBERT's."""

    hidden_size: int = 1024
    num_hidden_layers: int = 48
    num_attention_heads: int = 16
    intermediate_size: int = 4096
    conv_dim: tuple[int, ...] = (512,) * 7
    conv_kernel: tuple[int, ...] = (10, 3, 3, 3, 3, 2, 2)
    conv_stride: tuple[int, ...] = (5, 2, 2, 2, 2, 2, 2)
    conv_bias: bool = True
    feat_extract_norm: str = "layer"  # "group" in base models: one norm, over time
    feat_proj_layer_norm: bool = True
    do_stable_layer_norm: bool = True  # False in base models: norms after the residual sums
    num_conv_pos_embeddings: int = 128
    num_conv_pos_embedding_groups: int = 16
    layer_norm_eps: float = 1e-5
    classifier_proj_size: int = 256
    hidden_dropout: float = 0.1
    attention_dropout: float = 0.1
    activation_dropout: float = 0.1
    feat_proj_dropout: float = 0.1
    apply_spec_augment: bool = True
    mask_time_prob: float = 0.05
    mask_time_length: int = 10
    mask_time_min_masks: int = 2
    mask_feature_prob: float = 0.0
    mask_feature_length: int = 10
    mask_feature_min_masks: int = 0
    gated: bool = True  # ExHuBERT's pairs of layers with gates; False: a plain model
    family: Family = "hubert"  # wav2vec 2.0 has the same layers, WavLM other attention
    num_buckets: int = 320  # of WavLM's distances between frames
    max_bucket_distance: int = 800  # frames; all that are further apart share a bucket
    # Whether the model's own feature extractor normalises clips; None: nobody says
    do_normalize: bool | None = None
    classes: tuple[str, ...] = ()  # class names; empty: no classification head

    def __post_init__(self) -> None:
        wrong = [
            field.name
            for field in fields(self)
            if not _is_plausible(field.name, getattr(self, field.name), field.default)
        ]
        if wrong:
            raise self._refusal(
                wrong,
                "whole sizes above 0, lists of them for conv_*, true or false for switches, "
                "0 to 1 for rates",
            )
        for expected, holds, names in self._rules():
            if not holds:
                raise self._refusal(names, expected)

    def _rules(self) -> Iterator[tuple[str, bool, list[str]]]:
        """List what must hold between fields: in words, whether it does, and the fields."""
        stacks = ["conv_dim", "conv_kernel", "conv_stride"]
        yield (
            "conv_dim, conv_kernel and conv_stride of one length",
            len({len(getattr(self, name)) for name in stacks}) == 1,
            stacks,
        )
        for divisor in ("num_attention_heads", "num_conv_pos_embedding_groups"):
            yield (
                f"hidden_size divisible by {divisor}",
                self.hidden_size % getattr(self, divisor) == 0,
                ["hidden_size", divisor],
            )
        yield (
            "an even num_hidden_layers in a gated model, for layers come in pairs",
            not self.gated or self.num_hidden_layers % 2 == 0,
            ["num_hidden_layers"],
        )
        yield (
            "do_stable_layer_norm: true in a gated model",
            not self.gated or self.do_stable_layer_norm,
            ["do_stable_layer_norm"],
        )
        yield (
            "feat_extract_norm 'layer' or 'group'",
            self.feat_extract_norm in ("layer", "group"),
            ["feat_extract_norm"],
        )
        yield (
            "gates in a HuBERT only",
            not self.gated or self.family == "hubert",
            ["gated", "family"],
        )
        yield f"family out of {', '.join(FAMILIES)}", self.family in FAMILIES, ["family"]
        yield "distinct class names", len(set(self.classes)) == len(self.classes), ["classes"]

    def _refusal(self, names: Sequence[str], expected: str) -> CheckpointError:
        found = ", ".join(f"{name}: {getattr(self, name)!r}" for name in names)
        return CheckpointError(
            f"config has {found}",
            expected=expected,
            remedy="Correct config.json or use another checkpoint",
        )

    @classmethod
    def from_dict(
        cls,
        data: Mapping[str, Any],
        *,
        gated: bool,
        classes: Sequence[str] = (),
        do_normalize: bool | None = None,
    ) -> ExHuBERTConfig:
        """Read a ``config.json``; what the weights decide is given beside it.

        Parameters
        ----------
        data
            The parsed JSON. Keys this model has no use for are ignored.
        gated
            Whether the weights hold gates.
        classes
            Class names, one for each row of the classifier; empty without a classifier.
        do_normalize
            What ``preprocessor_config.json`` says, if anything.
        """
        for key, value in _REQUIRED.items():
            if data.get(key, value) != value:
                raise CheckpointError(
                    f"config has {key}: {data[key]!r}",
                    expected=f"{key}: {value!r}",
                    remedy="This variant is not supported",
                )
        known = {field.name for field in fields(cls)} - {*_ASIDE, "family"}
        model_type = data.get("model_type")
        family = model_type if model_type in FAMILIES else FAMILIES[0]
        values: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value
            for key, value in data.items()
            if key in known
        }
        return cls(
            **values, gated=gated, classes=tuple(classes), family=family, do_normalize=do_normalize
        )

    def to_dict(self) -> dict[str, Any]:
        """Turn it into JSON data, without what ``config.json`` does not say."""
        hidden = {*_ASIDE, *(() if self.family == "wavlm" else _OF_WAVLM)}
        if self.family == "hubert":  # as it was before there were others: hashes stay the same
            hidden |= {"family", "adapter_attn_dim"}
        data = {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in {**asdict(self), **_REQUIRED}.items()
        }
        return {key: value for key, value in data.items() if key not in hidden}

    @property
    def card(self) -> Preprocess:
        """What ``preprocess="card"`` comes to: how the model's own card prepares audio.

        ExHuBERT's card pads to 3 s, and a HuBERT is taken the same way, as what ExHuBERT was made
        of. Others take each clip by itself.
        """
        if self.family == "hubert":
            return "card"
        if self.do_normalize is None:
            raise CheckpointError(
                f"this {self.family} came without a preprocessor_config.json, so nobody says how "
                "its card prepares audio",
                remedy="Put that file beside config.json, or choose --preprocess masked (clips "
                "are normalised) or none",
            )
        return "masked" if self.do_normalize else "none"

    @property
    def sha256(self) -> str:
        """Hash of what decides the numbers of given weights when nothing is trained."""
        deciding = {
            key: value
            for key, value in self.to_dict().items()
            if "dropout" not in key and "mask_" not in key and key != "apply_spec_augment"
        }
        return hashlib.sha256(canonical(deciding).encode()).hexdigest()


def _is_plausible(name: str, value: object, default: object) -> bool:
    """Whether a value is of its default's kind and in its range."""
    if default is None:
        return value is None or isinstance(value, bool)
    if isinstance(default, tuple):
        kind = "" if name == "classes" else 1
        return isinstance(value, tuple) and all(_is_plausible(name, one, kind) for one in value)
    if isinstance(default, bool) or isinstance(value, bool):
        return type(value) is type(default)
    if isinstance(default, int):
        least = 0 if name.endswith("min_masks") else 1
        return isinstance(value, int) and value >= least
    if isinstance(default, float):
        return isinstance(value, int | float) and 0 <= value <= 1
    return isinstance(value, str)


def frame_count(samples: int, config: ExHuBERTConfig) -> int:
    """Frames that fit into ``samples``; 0 when not even one does."""
    for kernel, stride in zip(config.conv_kernel, config.conv_stride, strict=True):
        samples = (samples - kernel) // stride + 1 if samples >= kernel else 0
    return samples
