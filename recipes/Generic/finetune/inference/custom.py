"""The class that speechbrain's foreign_class() takes by default."""

from pathlib import Path

from exhubert_features.speechbrain import EmotionClassifier


class CustomInterface(EmotionClassifier):
    """The model in this file's folder, wherever that was moved."""

    def __init__(self, modules=None, hparams=None, **options):
        # foreign_class(savedir=...) runs a link to this file; the weights are not linked.
        source = hparams["source"] or str(Path(__file__).resolve().parent)
        super().__init__(
            {"exhubert": hparams["lobe"](source=source)}, hparams, **options
        )
