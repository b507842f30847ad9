"""The Evaluation: labels, protocol and outputs together, and where all of it comes from."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from importlib import metadata
from pathlib import Path

import numpy as np

from ..report import HeadComparison, LayerCurve, PartScore, Report, write_report
from ..tables import without_formulas
from ..version import __version__
from .caveats import sample_warnings, temperature_warnings
from .content import (
    calibration_curves,
    fold_facts,
    group_scores,
    mistakes,
    part_scores,
    principal_components,
)
from .intervals import basis_of, interval_words
from .metrics import confusion_matrix
from .origin import Origin
from .outcome import Outcome

VERSIONS = ("numpy", "torch", "scikit-learn", "h5py")


@dataclass(frozen=True, kw_only=True)
class Evaluation(Outcome):
    """An outcome with all that a report says of it.

    Examples
    --------
    >>> from exhubert_features import probe
    >>> evaluation = probe("corpus-features", target="emotion")
    >>> evaluation.main
    Interval(value=..., low=..., high=...)
    >>> evaluation.report("probe")
    PosixPath('probe/report.html')
    """

    title: str = "Evaluation"
    method: str = ""  # what was fitted and how it was chosen, in sentences
    curve: LayerCurve | None = None
    features: np.ndarray | None = None  # (N, D), for a picture
    notes: tuple[str, ...] = ()  # warnings of the run
    origin: Origin | None = None
    seed: int = 0
    comparisons: tuple[HeadComparison, ...] = ()
    repeats: tuple[float, ...] = ()  # the main figure under other dealings of the folds

    @property
    def warnings(self) -> list[str]:
        """What to know before the numbers are believed."""
        return [
            *(self.origin.warnings if self.origin else ()),
            *sample_warnings(self.labels, self.protocol),
            *temperature_warnings(self.temperatures),
            *self.protocol.warnings,
            *self.labels.warnings,
            *self.notes,
        ]

    @property
    def windows(self) -> bool:
        """Whether rows are windows of clips."""
        return bool(self.origin and self.origin.windows)

    @property
    def unit(self) -> str:
        """What a row is called."""
        return "windows" if self.windows else "clips"

    @cached_property
    def parts(self) -> list[PartScore]:
        """The main figure of whole clips, of each test set, and by each further column."""
        return part_scores(self, windows=self.windows)

    def report(self, folder: str | Path, *, command: str = "", embed_audio: bool = False) -> Path:
        """Write ``report.html``, ``report.json``, ``predictions.csv`` and pictures to a folder.

        Parameters
        ----------
        folder
            Where to; made when absent.
        command
            What was typed, for the report.
        embed_audio
            Put the audio of listed clips into the page instead of links to their files.

        Returns
        -------
        Path
            The page.
        """
        return write_report(
            folder,
            self.content(command=command),
            table=without_formulas(self.predictions).to_csv(index=False),
            embed_audio=embed_audio,
        )

    def content(self, *, command: str = "", made: str = "") -> Report:
        """Collect what a report shows.

        Parameters
        ----------
        command
            What was typed.
        made
            The date; now if not given.

        Returns
        -------
        Report
            Data alone: arrays, figures and words.
        """
        tested, origin = self.tested, self.origin
        groups = tested.groups if tested.group else None
        return Report(
            title=self.title,
            task=tested.task,
            target=tested.target,
            classes=tested.classes,
            targets=tested.targets,
            ids=tested.ids,
            groups=tested.groups,
            group=tested.group or "",
            truth=tested.values,
            prediction=self.prediction,
            probabilities=self.scaled_probabilities,
            raw_probabilities=self.probabilities,
            metric=self.metric,
            metrics=self.figures,
            baselines=self.baselines,
            shares=tested.shares,
            retrained=self.retrained,
            interval_words=interval_words(
                basis_of(groups, len(tested)), group=tested.group or "speaker"
            ),
            confusion=confusion_matrix(tested.values, self.prediction, len(tested.classes))
            if tested.classes
            else None,
            group_scores=group_scores(self),
            parts=self.parts,
            folds=fold_facts(self),
            protocol=f"{self.protocol.words} {self.method}".strip(),
            layer_curve=self.curve,
            comparisons=self.comparisons,
            dealings=(self.main.value, *self.repeats) if self.repeats else (),
            map_points=None
            if self.features is None
            else principal_components(self.features[self.scored], self.seed),
            calibration=self.calibration,
            calibration_curves=calibration_curves(self),
            fitted=any(len(fold.train) for fold in self.protocol.folds),
            windows=self.windows,
            mistakes=mistakes(self, origin),
            warnings=self.warnings,
            failures=origin.failures if origin else (),
            model=origin.model if origin else "",
            made=made or datetime.now().astimezone().isoformat(sep=" ", timespec="minutes"),
            reproduce={
                "command": command,
                "store": origin.path if origin else "",
                "seed": self.seed,
                "versions": {
                    "exhubert-features": __version__,
                    **{name: metadata.version(name) for name in VERSIONS},
                },
                "fingerprint": origin.fingerprint if origin else {},
            },
        )
