"""Everything that decides the numbers of features: which model, asked for what, by which code."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from .errors import UsageError
from .spec import NUMERICS_VERSION, SAMPLE_RATE, ExtractionSpec, resolve_layers
from .stamps import canonical

RESAMPLER = "torchaudio sinc_interp_hann width 6 rolloff 0.99"

# Keys as version 0.1.0 wrote them.
_EARLIER_WORDS = {"labels": "classes", "pool": "pools", "frames": "frame_layers"}
_SHOWN = 60  # characters of a value in a difference: a hash is shown by both its ends


@dataclass(frozen=True, kw_only=True)
class ModelIdentity:
    """What decides an encoder's numbers. Hardware is no part of it."""

    weights_sha256: str
    num_states: int
    hidden_size: int
    classes: tuple[str, ...]  # empty without a classifier
    precision: str
    architecture: str  # "exhubert", "hubert", "wav2vec2" or "wavlm"
    config_sha256: str | None = None  # None: made by version 0.1.0, which did not ask


@dataclass(frozen=True, kw_only=True)
class Fingerprint:
    """A model and a spec, its layers resolved to ids. Compare with :meth:`difference`."""

    model: ModelIdentity
    spec: ExtractionSpec
    sample_rate: int = SAMPLE_RATE
    resampler: str = RESAMPLER
    numerics: int = NUMERICS_VERSION

    def __post_init__(self) -> None:
        states, spec = self.model.num_states, self.spec
        frame_layers = resolve_layers(spec.frame_layers, states) if spec.frame_layers else ()
        resolved = replace(
            spec, layers=resolve_layers(spec.layers, states), frame_layers=frame_layers
        )
        object.__setattr__(self, "spec", resolved)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Fingerprint:
        """Read what :meth:`to_dict` or version 0.1.0 wrote.

        Raises
        ------
        UsageError
            When ``data`` is no fingerprint.
        """
        try:
            parts = dict(data)
            model, spec = (_current_words(parts.pop(name)) for name in ("model", "spec"))
            spec.setdefault("gapless", False)  # version 0.1.0 had no such windows
            if not isinstance(spec["layers"], tuple):
                raise TypeError("spec.layers is no list")
            found = cls(model=ModelIdentity(**model), spec=ExtractionSpec(**spec), **parts)
        except KeyError as error:
            raise UsageError(f"the fingerprint has no {error}") from error
        except (TypeError, ValueError, AttributeError) as error:
            raise UsageError(f"this is not a fingerprint: {error}") from error
        _require_types(found)
        return found

    def to_dict(self) -> dict[str, Any]:
        """Turn it into JSON data."""
        data = json.loads(json.dumps(asdict(self)))
        if data["model"]["config_sha256"] is None:
            del data["model"]["config_sha256"]
        if not data["spec"]["gapless"]:
            del data["spec"]["gapless"]
        return data

    @property
    def key(self) -> str:
        """SHA-256 of its canonical JSON."""
        return hashlib.sha256(canonical(self.to_dict()).encode()).hexdigest()

    @property
    def layers(self) -> tuple[int, ...]:
        """Hidden-state ids that are kept pooled."""
        return self.spec.layers or ()

    @property
    def has_logits(self) -> bool:
        """Whether logits are kept: asked for, and the model has a classifier."""
        return self.spec.logits and bool(self.model.classes)

    def difference(self, other: Fingerprint, *, ignoring: Collection[str] = ()) -> tuple[str, ...]:
        """Say what differs, one readable line each; empty when the numbers are the same.

        A fingerprint without ``config_sha256`` agrees with every one.

        Parameters
        ----------
        other
            What was expected.
        ignoring
            Dotted names, such as ``"spec.layers"``, that need not agree.

        Examples
        --------
        >>> model = ModelIdentity(
        ...     weights_sha256="0", num_states=49, hidden_size=1024, classes=(),
        ...     precision="float32", architecture="exhubert",
        ... )
        >>> card = Fingerprint(model=model, spec=ExtractionSpec())
        >>> masked = Fingerprint(model=model, spec=ExtractionSpec(preprocess="masked"))
        >>> card.difference(masked)
        ("spec.preprocess is 'card', not 'masked'",)
        """
        unknown = None in (self.model.config_sha256, other.model.config_sha256)
        left_out = {*ignoring, *(["model.config_sha256"] if unknown else [])}
        return tuple(
            f"{name} is {_shown(found)}, not {_shown(wanted)}"
            for (name, found), (_, wanted) in zip(_flat(self), _flat(other), strict=True)
            if found != wanted and name not in left_out
        )


def _flat(fingerprint: Fingerprint) -> Iterator[tuple[str, Any]]:
    for part in ("model", "spec"):
        values = getattr(fingerprint, part)
        yield from (
            (f"{part}.{field.name}", getattr(values, field.name)) for field in fields(values)
        )
    for name in ("sample_rate", "resampler", "numerics"):
        yield name, getattr(fingerprint, name)


def _shown(value: object) -> str:
    text = repr(list(value) if isinstance(value, tuple) else value)
    return text if len(text) <= _SHOWN else f"{text[:20]}...{text[-20:]}"


def _current_words(data: Mapping[str, Any]) -> dict[str, Any]:
    return {
        _EARLIER_WORDS.get(key, key): tuple(value) if isinstance(value, list) else value
        for key, value in data.items()
    }


def _require_types(found: Fingerprint) -> None:
    """JSON from elsewhere may hold anything; dataclasses do not look."""
    model, spec = found.model, found.spec
    sizes = (model.num_states, model.hidden_size, found.sample_rate, found.numerics)
    words = (model.weights_sha256, model.precision, model.architecture, found.resampler)
    names = (*model.classes, *words, model.config_sha256 or "")
    switches = (spec.logits, spec.segments, spec.gapless)
    if (
        any(type(size) is not int or size < 1 for size in sizes)
        or any(not isinstance(name, str) for name in names)
        or any(not isinstance(switch, bool) for switch in switches)
        or not isinstance(spec.channel, int | None)
    ):
        raise UsageError("the fingerprint holds values of the wrong kind")
