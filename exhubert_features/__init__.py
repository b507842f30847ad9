"""ExHuBERT speech-emotion features: an encoder, a crash-safe feature store, light heads.

Importing this package imports nothing heavy; each public name is loaded when first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .version import __version__ as __version__

if TYPE_CHECKING:
    from .dataset import StoreDataset as StoreDataset
    from .encoder import Encoder as Encoder
    from .encoder import load_encoder as load_encoder
    from .errors import ExHuBERTError as ExHuBERTError
    from .evaluation import Evaluation as Evaluation
    from .evaluation import LabelOptions as LabelOptions
    from .evaluation import SplitOptions as SplitOptions
    from .extraction import LazyClip as LazyClip
    from .extraction import Plan as Plan
    from .extraction import plan as plan
    from .heads import FitOptions as FitOptions
    from .heads import evaluate as evaluate
    from .heads import load_head as load_head
    from .heads import probe as probe
    from .heads import train as train
    from .inference import EncoderOutput as EncoderOutput
    from .spec import CLASSES as CLASSES
    from .spec import ExtractionSpec as ExtractionSpec
    from .store import FeatureStore as FeatureStore
    from .trainable import TrainableEncoder as TrainableEncoder

_HOME = {
    "load_encoder": "encoder",
    "Encoder": "encoder",
    "EncoderOutput": "inference",
    "TrainableEncoder": "trainable",
    "ExtractionSpec": "spec",
    "CLASSES": "spec",
    "FeatureStore": "store",
    "LazyClip": "extraction",
    "Plan": "extraction",
    "plan": "extraction",
    "StoreDataset": "dataset",
    "probe": "heads",
    "train": "heads",
    "evaluate": "heads",
    "load_head": "heads",
    "Evaluation": "evaluation",
    "LabelOptions": "evaluation",
    "SplitOptions": "evaluation",
    "FitOptions": "heads",
    "ExHuBERTError": "errors",
}
__all__ = [*_HOME, "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOME[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])
