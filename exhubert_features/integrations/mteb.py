"""mteb: the model for its tasks of audio classification, clustering and the like."""

from __future__ import annotations

from typing import Any

import numpy as np
from mteb.models import ModelMeta
from mteb.models.abs_encoder import AbsEncoder

from ..spec import DEFAULT_REVISION, DEFAULT_SOURCE
from .picklable import PicklableEncoder, cell_source

# Tasks on corpora of EmoSet++, on which the released model was fine-tuned: no zero-shot results.
SEEN = {
    *("CREMA_D", "CREMA_DClustering", "CREMADPairClassification", "IEMOCAPEmotion"),
    *("MELDAudioVideoClassification", "RavdessZeroshot"),
}


class ExHuBERTEmbeddings(AbsEncoder):
    """One vector for each recording: the mean of one layer.

    Parameters
    ----------
    source
        Hub id or folder.
    revision
        Commit, tag or branch on the Hub.
    **options
        Further fields of :class:`PicklableEncoder`: ``layer``, ``pool``, ``device``, ...
    """

    def __init__(
        self, source: str = DEFAULT_SOURCE, revision: str | None = DEFAULT_REVISION, **options: Any
    ) -> None:
        self._encoder = PicklableEncoder(source=source, revision=revision, **options)
        self.mteb_model_meta = _model_meta(self._encoder)

    def encode(self, inputs: Any, **kwargs: Any) -> np.ndarray:
        """Embed all recordings of a loader.

        Parameters
        ----------
        inputs
            mteb's loader, whose batches have ``audio``.
        **kwargs
            What mteb tells of the task; of no use here.

        Returns
        -------
        (recordings, D) float32.
        """
        inputs.collate_fn = _audio  # the rows as they are, for clips differ in length
        return np.concatenate([self._encoder.vectors(waves) for waves in inputs])


def _audio(rows: list[dict[str, Any]]) -> list[tuple[np.ndarray, int]]:
    return [cell_source(row["audio"]) for row in rows]


def _model_meta(encoder: PicklableEncoder) -> ModelMeta:
    """Describe the model as mteb's tables want it, with the tasks whose corpora it has seen."""
    released = encoder.source == DEFAULT_SOURCE
    return ModelMeta(
        loader=ExHuBERTEmbeddings,
        name=DEFAULT_SOURCE if released else f"local/{encoder.source.rstrip('/').split('/')[-1]}",
        revision=encoder.revision if released else "local",
        release_date="2024-06-11",
        languages=None,
        n_parameters=668_392_838,
        memory_usage_mb=2550,
        max_tokens=None,
        embed_dim=1024,
        license="cc-by-nc-sa-4.0",
        open_weights=True,
        public_training_code=None,
        public_training_data=None,
        framework=["PyTorch"],
        reference=f"https://huggingface.co/{DEFAULT_SOURCE}",
        similarity_fn_name="cosine",
        use_instructions=False,
        training_datasets=SEEN,
        modalities=["audio"],
    )
