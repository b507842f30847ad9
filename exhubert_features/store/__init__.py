"""The feature store: crash-safe, self-checking HDF5 files. Needs numpy and h5py, never torch."""

from .row import StoredFeatures, UnknownId
from .store import FeatureStore
from .update import WriteProgress

__all__ = ["FeatureStore", "StoredFeatures", "UnknownId", "WriteProgress"]
