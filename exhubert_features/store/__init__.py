"""The feature store: crash-safe, self-checking HDF5 files. Needs numpy and h5py, never torch."""

from .copying import merge, pack
from .features import FeatureStore
from .journal import StoredFailure
from .limits import ShardLimits
from .progress import WriteProgress
from .rows import UnknownId
from .several import CORPUS, NamedStores, SeveralStores, open_stores
from .shard import estimate_bytes
from .verify import Damage, Verification, repair, verify

__all__ = [
    "CORPUS",
    "Damage",
    "FeatureStore",
    "NamedStores",
    "SeveralStores",
    "ShardLimits",
    "StoredFailure",
    "UnknownId",
    "Verification",
    "WriteProgress",
    "estimate_bytes",
    "merge",
    "open_stores",
    "pack",
    "repair",
    "verify",
]
