"""The feature store: crash-safe, self-checking HDF5 files. Needs numpy and h5py, never torch."""

from .copying import merge, pack
from .features import FeatureStore
from .journal import StoredFailure
from .progress import WriteProgress
from .rows import UnknownId
from .shard import estimate_bytes
from .verify import Damage, Verification, repair, verify
from .writer import ShardLimits

__all__ = [
    "Damage",
    "FeatureStore",
    "ShardLimits",
    "StoredFailure",
    "UnknownId",
    "Verification",
    "WriteProgress",
    "estimate_bytes",
    "merge",
    "pack",
    "repair",
    "verify",
]
