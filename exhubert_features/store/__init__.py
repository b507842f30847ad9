"""The feature store: crash-safe, self-checking HDF5 files. Needs numpy and h5py, never torch."""

from .copying import merge, pack
from .repair import repair
from .row import StoredFeatures, UnknownId
from .shard import estimate_bytes
from .store import FeatureStore
from .update import WriteProgress
from .verify import Problem, Verification, verify

__all__ = [
    "FeatureStore",
    "Problem",
    "StoredFeatures",
    "UnknownId",
    "Verification",
    "WriteProgress",
    "estimate_bytes",
    "merge",
    "pack",
    "repair",
    "verify",
]
