"""ExHuBERT speech-emotion features: an encoder, a crash-safe feature store, light heads.

Importing this package imports nothing heavy; each public name is loaded when first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .autoregister import install as _install

__version__ = "0.1.0"

if TYPE_CHECKING:
    from .dataset import StoreDataset as StoreDataset
    from .encoder import Encoder as Encoder
    from .encoder import EncoderOutput as EncoderOutput
    from .encoder import load_encoder as load_encoder
    from .errors import ExHuBERTError as ExHuBERTError
    from .extraction import extract as extract
    from .heads import load_head as load_head
    from .spec import LABELS as LABELS
    from .spec import ExtractionSpec as ExtractionSpec
    from .store import FeatureStore as FeatureStore

_HOME = {
    "load_encoder": "encoder",
    "Encoder": "encoder",
    "EncoderOutput": "encoder",
    "ExtractionSpec": "spec",
    "LABELS": "spec",
    "extract": "extraction",  # a module of the same name would hide the function
    "FeatureStore": "store",
    "StoreDataset": "dataset",
    "load_head": "heads",
    "ExHuBERTError": "errors",
}
__all__ = [*_HOME, "__version__"]


# transformers' Auto classes and pipeline() then load converted checkpoints by themselves.
_install()


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOME[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])
