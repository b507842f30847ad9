"""The front door: an encoder that takes what users have and gives predictions and features."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch

from .checkpoint import load_model
from .errors import UsageError
from .extraction import Extraction, Plan, Source, plan
from .inference import Inference
from .prediction import predict, prediction_spec
from .spec import (
    DEFAULT_PREPROCESS,
    DEFAULT_REVISION,
    DEFAULT_SOURCE,
    ExtractionSpec,
    Layers,
    Precision,
    Preprocess,
    resolve_layers,
)

if TYPE_CHECKING:
    import pandas as pd

    from .heads import Head


class Encoder(Inference):
    """A loaded model, ready for use; made by :func:`load_encoder`.

    :meth:`predict` and :meth:`extract` take files, folders, tables and arrays of any rate and
    channels. Calling the encoder itself takes tensors at 16 kHz and returns all hidden states.

    Examples
    --------
    A tiny model with random weights, and a second of silence and one of noise:

    >>> import numpy as np
    >>> from exhubert_features.checkpoint import write_random_checkpoint
    >>> encoder = load_encoder(write_random_checkpoint("tiny", layers=2), device="cpu")
    >>> noise = np.random.default_rng(0).normal(0, 0.1, (22_050, 2))
    >>> found = encoder.predict({"quiet": np.zeros(16_000), "noise": (noise, 22_050)})
    >>> found[["id", "warnings", "error"]].values.tolist()
    [['quiet', 'silent', None], ['noise', '', None]]
    >>> found.columns[:3].tolist(), bool(found["arousal"].between(0, 1).all())
    (['low-negative', 'low-neutral', 'low-positive'], True)
    >>> extraction = encoder.extract([noise[:100], (noise, 22_050)], layers=[1, 2])
    >>> features = extraction.to_dataframe(layer=2)
    >>> features.shape, features["error"].iloc[0].partition(";")[0]
    ((2, 34), '0 has 100 samples at 16000 Hz')
    >>> [failure.kind for failure in extraction.failures]
    ['too_short']
    >>> store = extraction.write("noise-features")
    >>> store.ids, store.matrix(layer=2).shape
    (['1'], (1, 32))
    """

    def predict(
        self,
        source: Source | Plan,
        *,
        head: Head | str | Path | None = None,
        windows: bool = False,
        preprocess: Preprocess | None = None,
        window: float | None = None,
        hop: float | None = None,
        channel: int | None = None,
        strict: bool = False,
        batch_size: int | None = None,
        workers: int | None = None,
        data_root: str | Path | None = None,
        progress: bool = False,
    ) -> pd.DataFrame:
        """Predict the emotion of every clip of a source.

        Parameters
        ----------
        source
            A file, folder or manifest, or several of them; an array (N,) or (N, channels), a
            pair (array, rate), a list of these, or a dict of them by id; a DataFrame, Series or
            index in audformat's form (file, start, end); several :class:`LazyClip`; or a
            :class:`Plan`. Arrays without a rate are at 16 kHz. What an iterator gives is not
            kept: it is read once.
        head
            A trained head, or its folder, in place of the model's own classifier.
        windows
            One prediction for each window instead of each clip.
        preprocess, window
            How audio is prepared: the released model's way (``"card"``, 3 s) or that of the
            head, which then must not be given. Clips longer than ``window`` seconds are cut into
            windows, and the prediction of a clip is that of their mean.
        hop
            Seconds between windows; 1 with ``windows``, else the window.
        channel
            The channel to hear, from 0; None for the mean of all.
        strict
            Raise at the first clip that fails.
        batch_size
            Windows at a time; None suits the device. Predictions do not depend on it.
        workers
            Threads that read audio; None suits the machine.
        data_root
            Takes the place of ``{data_root}`` in manifests, and holds relative files that are
            not beside them.
        progress
            Show on stderr how far it is.

        Returns
        -------
        pandas.DataFrame
            A row for each clip (or window), in the order of the source, on audformat's index
            (file, start, end). Its columns: the probability of each class under its name, and
            ``label``, the likeliest; of the released six classes also ``arousal``, P(high), and
            ``valence``, P(positive) - P(negative); with a regression head the value under the
            name of its target instead. Then ``id``, ``warnings`` ("silent", or nothing), and of
            a clip that failed, whose numbers are NaN, ``error_kind`` (one word to count by) and
            ``error`` (why), which are None for the others.

        Examples
        --------
        >>> table = load_encoder().predict("audio/")
        >>> list(table.columns[6:])
        ['label', 'arousal', 'valence', 'id', 'warnings', 'error_kind', 'error']
        """
        if isinstance(head, str | Path):
            from .heads import load_head

            head = load_head(head)
        spec = prediction_spec(
            head, preprocess=preprocess, window=window, hop=hop, windows=windows, channel=channel
        )
        extraction = self.extract(
            source,
            spec=spec,
            strict=strict,
            batch_size=batch_size,
            workers=workers,
            data_root=data_root,
        )
        return predict(extraction, head, progress=progress)

    def extract(
        self,
        source: Source | Plan,
        *,
        layers: Layers = None,
        pools: str | Sequence[str] = ("mean",),
        frame_layers: Layers = (),
        logits: bool = True,
        preprocess: Preprocess = DEFAULT_PREPROCESS,
        window: float = 3.0,
        hop: float | None = None,
        segments: bool = False,
        dtype: Literal["float16", "float32"] = "float16",
        channel: int | None = None,
        spec: ExtractionSpec | None = None,
        strict: bool = False,
        batch_size: int | None = None,
        workers: int | None = None,
        data_root: str | Path | None = None,
    ) -> Extraction:
        """Plan the extraction of features: nothing is computed before the result is used.

        Iterate over the result, turn one layer and pool of it into a table with
        ``.to_dataframe()``, or store everything with ``.write(path)``. Clips that fail are in
        each of these, named, and in ``.failures``.

        Parameters
        ----------
        source
            See :meth:`predict`.
        layers
            Hidden states to keep: None for all (49 for ExHuBERT), an id, or several; negative
            ids count from the end. 0 is the input of the encoder, k the output of its k-th layer.
        pools
            Statistics over time, any of ``mean``, ``std`` and ``max``.
        frame_layers
            Hidden states to keep frame by frame as well (300 KB each for 3 s).
        logits
            Whether to keep the class scores.
        preprocess
            ``"card"``: as the model was trained: ExHuBERT (and any HuBERT) zero-padded to 3 s,
            wav2vec 2.0 and WavLM as their ``preprocessor_config.json`` says. ``"masked"``: each
            clip is normalised over its own samples and padding is ignored. ``"none"``: as it is.
        window, hop
            Seconds; longer clips are cut into windows of this length, which start every ``hop``
            seconds (None: the window) and are joined again without counting a frame twice.
        segments
            A row for each window instead of each clip.
        dtype
            Of what a store keeps.
        channel
            The channel to hear, from 0; None for the mean of all.
        spec
            All of the above in one, instead of them.
        strict
            Raise at the first clip that fails instead of recording it.
        batch_size, workers, data_root
            See :meth:`predict`.

        Returns
        -------
        Extraction
            What will be done; see above.

        Examples
        --------
        >>> encoder = load_encoder()
        >>> table = encoder.extract("audio/", layers=24).to_dataframe()
        >>> store = encoder.extract("audio/", pools=["mean", "std"]).write("audio-features")
        >>> store.ids
        ['clip_a.wav', 'clip_b.wav', 'long.wav']
        """
        asked = ExtractionSpec(
            layers=None if layers is None else resolve_layers(layers, self.num_states),
            pools=(pools,) if isinstance(pools, str) else tuple(pools),
            frame_layers=()
            if frame_layers == ()
            else resolve_layers(frame_layers, self.num_states),
            logits=logits,
            preprocess=preprocess,
            window=window,
            hop=window if hop is None else hop,
            segments=segments,
            dtype=dtype,
            channel=channel,
        )
        if spec is None:
            spec = asked
        elif asked != ExtractionSpec():
            raise UsageError(
                "spec and settings beside it",
                expected="one or the other",
                remedy="dataclasses.replace(spec, ...) changes some of a spec",
            )
        work = plan(source, data_root=data_root)
        return Extraction(work, self, spec, batch_size=batch_size, workers=workers, strict=strict)


def load_encoder(
    source: str | Path = DEFAULT_SOURCE,
    *,
    revision: str | None = DEFAULT_REVISION,
    device: str | torch.device = "auto",
    precision: Precision | Literal["auto"] = "float32",
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
) -> Encoder:
    """Load an ExHuBERT, HuBERT, wav2vec 2.0 or WavLM checkpoint as an :class:`Encoder`.

    Parameters
    ----------
    source
        A Hub id, or a local folder. Nothing in it is executed.
    revision
        Commit, tag or branch on the Hub. The default pins the released ExHuBERT and is not
        applied to other ids.
    device
        ``"auto"`` is CUDA where there is one, else the CPU.
    precision
        ``"float32"`` for parity with the reference; ``"auto"`` for the fastest that this machine
        has units for and that stays close to it; or ``"bfloat16"``, ``"float16"``, ``"int8"``.
    cache_dir
        Where the Hub's files are kept; the Hub's own default when None.
    local_files_only
        Never use the network.

    Returns
    -------
    Encoder
        The model on its device, in eval mode.
    """
    model, checkpoint = load_model(
        source, revision=revision, cache_dir=cache_dir, local_files_only=local_files_only
    )
    return Encoder(model, checkpoint=checkpoint, device=device, precision=precision)
