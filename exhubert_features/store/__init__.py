"""The feature store: crash-safe, self-checking HDF5 files. Needs numpy and h5py, never torch."""

from .copying import merge, pack
from .row import StoredFeatures, UnknownId
from .shard import estimate_bytes
from .store import FeatureStore
from .update import WriteProgress

__all__ = [
    "FeatureStore",
    "StoredFeatures",
    "UnknownId",
    "WriteProgress",
    "estimate_bytes",
    "merge",
    "pack",
]
