#!/usr/bin/env python3
"""Cache ExHuBERT features of SpeechBrain manifests.

> python extract.py hparams/extract.yaml --manifests "[train.json, valid.json, test.json]"

Run it before training, as any other preparation step: what is cached already is not done
again, and an interrupted run goes on where it stopped.
"""

import sys
from pathlib import Path

from exhubert_features.spec import parse_layers
from hyperpyyaml import load_hyperpyyaml

import speechbrain as sb
from speechbrain.utils.distributed import run_on_main
from speechbrain.utils.logger import get_logger

logger = get_logger(__name__)


def cache_features(hparams, device):
    """Bring the store up to date with the manifests; log what could not be done."""
    encoder = hparams["encoder"](device=device)
    extraction = encoder.extract(
        hparams["manifests"],
        layers=parse_layers(hparams["layers"]),
        pools=hparams["pools"],
        frame_layers=hparams["frame_layers"],
        preprocess=hparams["preprocess"],
        data_root=hparams["data_root"],
    )
    store = extraction.write(hparams["store"], progress=True)
    for failure in store.failures:
        logger.warning(f"{failure.id} has no features: {failure.reason}")
    logger.info(
        f"{len(store)} rows in {store.path}, {len(store.failures)} clips failed"
    )
    hparams["train_logger"].log_stats(
        {"rows": len(store), "failed": len(store.failures)}
    )
    return len(store.failures)


if __name__ == "__main__":
    hparams_file, run_opts, overrides = sb.parse_arguments(sys.argv[1:])
    sb.utils.distributed.ddp_init_group(run_opts)
    with Path(hparams_file).open() as stream:
        hparams = load_hyperpyyaml(stream, overrides)
    sb.create_experiment_directory(
        experiment_directory=hparams["output_folder"],
        hyperparams_to_save=hparams_file,
        overrides=overrides,
    )
    sys.exit(
        3
        if run_on_main(
            cache_features, args=[hparams, run_opts["device"] or "auto"]
        )
        else 0
    )
