"""A machine measured from its matrix products to features on its disk, and what follows from it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..checkpoint.saving import write_random_checkpoint
from ..encoder import load_encoder
from ..inference import choose_device
from ..model.config import ExHuBERTConfig
from ..precision import fastest_precision
from ..spec import CARD_SAMPLES, SAMPLE_RATE
from .encoding import BATCH_SIZES, Speed, bench_encoder, worth_running
from .extract import Overhead, bench_extract
from .machine import Machine, measure_machine
from .store import Figures, bench_store

RELEASED = ExHuBERTConfig()
_QUICK_LAYERS, _QUICK_SIZES = 4, {"cpu": (1, 4), "cuda": (1, 32)}


@dataclass(frozen=True, kw_only=True)
class Bench:
    """All figures; ``layers`` is the depth of the model they were measured with."""

    machine: Machine
    layers: int
    chosen: str  # the precision that "auto" takes here
    speeds: list[Speed]
    pipeline: Overhead
    store: Figures

    @property
    def best(self) -> Speed:
        """The fastest way in the precision of "auto"."""
        return min(
            (speed for speed in self.speeds if speed.name == self.chosen),
            key=lambda speed: speed.seconds,
        )

    def seconds_for(self, hours: float) -> float:
        """Tell how long so many hours of audio will take with a model of the released depth."""
        beyond = max(0.0, self.pipeline.wall) * self.pipeline.bare_seconds / self.pipeline.clips
        each = self.best.stretched(self.layers, RELEASED.num_hidden_layers) + beyond
        return each * hours * 3600 * SAMPLE_RATE / CARD_SAMPLES


def bench_machine(folder: Path, *, device: str = "auto", quick: bool = False) -> Bench:
    """Measure everything, writing to ``folder``.

    Parameters
    ----------
    folder
        Takes the random model (2.7 GB, quick 0.3 GB) and clips.
    device
        As for :func:`exhubert_features.load_encoder`.
    quick
        With 4 layers and fewer rounds, under a minute; else under 15.
    """
    layers = _QUICK_LAYERS if quick else RELEASED.num_hidden_layers
    model = write_random_checkpoint(
        folder / "model",
        layers=layers,
        hidden=RELEASED.hidden_size,
        heads=RELEASED.num_attention_heads,
        ffn=RELEASED.intermediate_size,
        conv=RELEASED.conv_dim[0],
        projector=RELEASED.classifier_proj_size,
    )
    place = choose_device(device)
    machine, chosen = measure_machine(place), fastest_precision(place)
    speeds = bench_encoder(
        model,
        machine,
        precisions=worth_running(place),
        batch_sizes=(_QUICK_SIZES if quick else BATCH_SIZES)[place.type],
        rounds=2 if quick else 3,
    )
    encoder = load_encoder(model, device=place, precision=chosen)
    return Bench(
        machine=machine,
        layers=layers,
        chosen=chosen,
        speeds=speeds,
        pipeline=bench_extract(folder, encoder, clips=20 if quick else 60),
        store=bench_store(folder, 200 if quick else 2000),
    )
