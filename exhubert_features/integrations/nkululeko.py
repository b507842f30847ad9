"""nkululeko: ``type = ['exhubert']`` in the section FEATS, in the shape of its own feature files.

Without code, nkululeko imports what ``exhubert export STORE --to csv --features-only`` writes:
``type = ['import']`` and ``import_file = ['features.csv']``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from nkululeko.feat_extract.featureset import Featureset

from ..spec import DEFAULT_REVISION, DEFAULT_SOURCE
from .picklable import PicklableEncoder, as_source


class Exhubert(Featureset):  # nkululeko finds a class by the name of its type
    """The mean over time of one layer, for each row of the data.

    Options of FEATS: ``exhubert.model`` (Hub id or folder), ``exhubert.layer`` (a hidden-state
    id, the last by default).
    """

    def __init__(self, name: str, data_df: pd.DataFrame, feat_type: str) -> None:
        super().__init__(name, data_df, feat_type)
        source = self.util.config_val("FEATS", "exhubert.model", DEFAULT_SOURCE)
        self.encoder = PicklableEncoder(
            source=source,
            revision=DEFAULT_REVISION,
            layer=int(self.util.config_val("FEATS", "exhubert.layer", "-1")),
            device=self.util.config_val("MODEL", "device", "auto"),
        )

    def extract(self) -> None:
        """Extract the features, or read them from nkululeko's own store."""
        storage = f"{self.util.get_path('store')}{self.name}_l{self.encoder.layer}.pkl"
        if not self._needs_extraction(storage):
            self.df = pd.read_pickle(storage)
            return
        encoder = self.encoder.encoder
        table = encoder.extract(self.data_df.index, layers=self.encoder.layer).to_dataframe()
        table.index = self.data_df.index  # the very labels, whatever they were made of
        failed = table["error"].notna()
        for reason in table["error"][failed]:
            self.util.warn(f"skipping {reason}")
        if failed.mean() > self._get_fail_threshold():
            self.util.error(f"{failed.sum()} of {len(table)} files failed")
        self.df = table[~failed].filter(like="feature_")
        self.df.to_pickle(storage)

    def extract_sample(self, signal: Any, sr: int) -> np.ndarray:
        """Extract one vector (D,) of a signal."""
        return self.encoder.vectors({"sample": as_source(signal, sr)})[0]


def register() -> None:
    """Make nkululeko know the feature type ``exhubert``."""
    from nkululeko.feature_extractor import FeatureExtractor

    known = FeatureExtractor._get_feat_extractor_class

    def look_up(self: Any, feats_type: str) -> Any:
        return Exhubert if feats_type == "exhubert" else known(self, feats_type)

    FeatureExtractor._get_feat_extractor_class = look_up
