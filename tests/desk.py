"""A working directory with the files that the README and the docstrings speak of.

What a test cannot have is stood in for: the published weights by random ones in a folder that is
called like their id on the Hub, the user's recordings by synthetic ones.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile

from exhubert_features.checkpoint import write_random_checkpoint
from exhubert_features.spec import DEFAULT_SOURCE, SAMPLE_RATE
from exhubert_features.synthetic import Style, draw_voice, synthesise


def write_desk(folder: Path) -> Path:
    """Checkpoints and ``audio/`` with two short clips and a long one, below ``folder``."""
    (folder / "audio").mkdir(parents=True)
    write_random_checkpoint(folder / DEFAULT_SOURCE)
    hubert = folder / "facebook/hubert-large-ll60k"
    write_random_checkpoint(hubert, layers=4, gated=False, classes=())
    speech = [
        synthesise(draw_voice(0), Style(), sentence=sentence, seed=sentence) for sentence in (0, 1)
    ]
    recordings = {"clip_a": speech[0], "clip_b": speech[1], "long": np.concatenate(speech * 2)}
    for name, wave in recordings.items():
        soundfile.write(folder / f"audio/{name}.wav", wave, SAMPLE_RATE)
    stereo = np.stack([speech[0], 0.5 * speech[0]], axis=1)  # as recordings of people are
    soundfile.write(folder / "audio/clip_a.wav", stereo, 22_050)
    return folder
