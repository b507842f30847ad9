"""What would score too high or mislead, as a user meets it: a store, a command, what it says."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from emotional_store import BEST, EMOTIONS, LAYERS, WIDTH, labels_of, write_emotional_store

from exhubert_features.cli import main
from exhubert_features.evaluation.origin import origin_of
from exhubert_features.evaluation.splits import SplitOptions, make_protocol
from exhubert_features.fingerprint import Fingerprint, ModelIdentity
from exhubert_features.heads.layerwise import layer_curve, probe_outcome, run_probe
from exhubert_features.heads.options import FitOptions
from exhubert_features.heads.training import train_on
from exhubert_features.records import ClipFeatures
from exhubert_features.spec import DEFAULT_SOURCE, ExtractionSpec
from exhubert_features.store import FeatureStore

Run = Callable[..., dict[str, Any]]


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """A command that ends well, and its JSON."""

    def command(*arguments: object) -> dict[str, Any]:
        output = ["-o", str(tmp_path / f"out{len(list(tmp_path.iterdir()))}"), "--json"]
        assert main([*map(str, arguments), *output]) == 0
        found: dict[str, Any] = json.loads(capsys.readouterr().out)
        return found

    return command


class _Rows(list):
    provenance: dict[str, str]


def write_noise(path: Path, *, twice: bool = False) -> FeatureStore:
    """Noise of eight speakers, or of four whose recordings all stand under four others as well.

    The last clips say that they are of another corpus.
    """
    model = ModelIdentity(weights_sha256="a" * 64, architecture="exhubert", num_states=LAYERS,
                          hidden_size=WIDTH, classes=(), precision="float32")  # fmt: skip
    made = _Rows(_noise(twice=twice))
    made.provenance = {"source": DEFAULT_SOURCE}
    spec = ExtractionSpec(logits=False)
    return FeatureStore.write(path, made, fingerprint=Fingerprint(model=model, spec=spec))


def _noise(*, twice: bool) -> Iterator[ClipFeatures]:
    random = np.random.default_rng(0)
    speakers = 4 if twice else 8
    for clip in range(12 * speakers):
        pooled = random.normal(size=(LAYERS, 1, WIDTH)).astype(np.float16)
        emotion = EMOTIONS[int(random.integers(3))]
        for copy in range(1 + twice):
            name = f"{copy}-{clip:02d}"
            yield ClipFeatures(
                id=name, clip_id=name, file=f"/audio/{name}.wav", start=0.0, end=1.0,
                samples=16_000, audio_sha256=hashlib.sha256(str(clip).encode()).hexdigest(),
                pooled=pooled,
                meta={"emotion": emotion, "speaker": f"s{clip % speakers + 4 * copy}",
                      "corpus": "mine" if clip < 40 else "RAVDESS"},
            )  # fmt: skip


@pytest.mark.slow
def test_noise_that_is_filed_twice_scores_chance_and_is_named(tmp_path: Path, run: Run) -> None:
    store = write_noise(tmp_path / "store", twice=True)
    found = run("probe", store.path, "--target", "emotion", "--layers", "0,1")
    assert found["uar_interval"][0] < 1 / 3 and found["uar"] < 0.5
    (said,) = (note for note in found["warnings"] if "more than one speaker" in note)
    assert said.startswith("48 recordings") and "0-00 = 1-00" in said
    labels = labels_of(store)
    leaky = replace(labels, groups=np.array([store[name].meta["speaker"] for name in labels.ids]))
    protocol = make_protocol(leaky, SplitOptions(folds=4))
    leaked = train_on(store, leaky, protocol, kind="discriminant", layers=[0, 1])
    assert leaked.evaluation.main.value > found["uar"] + 0.1  # what it would say otherwise


@pytest.mark.slow
def test_a_trailing_blank_in_half_the_speakers_changes_nothing(tmp_path: Path, run: Run) -> None:
    store = write_emotional_store(tmp_path / "store", clips=9)
    scores = []
    for blank in ("", " ", "\u00a0"):
        table = tmp_path / "labels.csv"
        lines = [f"{name},{store[name].meta['emotion']},{store[name].meta['speaker']}"
                 + blank * (place % 2) for place, name in enumerate(store.ids)]  # fmt: skip
        table.write_text("\n".join(["id,mood,who", *lines]))
        scores.append(run("probe", store.path, "--labels", table, "--target", "mood", "--group",
                          "who", "--layers", "1")["uar"])  # fmt: skip
    assert scores[0] == scores[1] == scores[2]


def test_a_corpus_that_only_the_last_rows_name_is_found(tmp_path: Path) -> None:
    store = write_noise(tmp_path / "store")
    labels = labels_of(store)
    assert json.loads(store.column("meta")[0])["corpus"] == "mine"
    (warning,) = origin_of(store, labels).warnings
    assert "includes RAVDESS" in warning and "--corpus NAME says otherwise" in warning
    assert origin_of(store, labels, "mine").warnings == ()


@pytest.mark.slow
def test_on_pure_noise_the_score_is_chance_and_the_top_of_the_curve_is_not(tmp_path: Path) -> None:
    """Over many labellings: what the folds chose inside is honest, what is chosen on tests not."""
    store = write_noise(tmp_path / "store")
    labels, random = labels_of(store), np.random.default_rng(1)
    honest, top = [], []
    for _ in range(25):
        drawn = replace(labels, values=random.integers(3, size=len(labels)))
        protocol = make_protocol(drawn, SplitOptions(folds=4))
        found = run_probe(store, drawn, protocol)
        honest.append(probe_outcome(found, drawn, protocol).main.value)
        top.append(layer_curve(found, drawn, protocol).mean.max())
    error = np.std(honest, ddof=1) / 5
    assert abs(np.mean(honest) - 1 / 3) < 3 * error < 0.05
    assert np.mean(top) > 1 / 3 + 0.03


def test_report_holds_raw_and_scaled_and_the_picture_shows_what_the_table_scores(
    tmp_path: Path, run: Run
) -> None:
    store = write_emotional_store(tmp_path / "store", clips=12)
    found = run("train", store.path, "--target", "emotion", "--layers", "1", "--folds", "3")
    report = json.loads(Path(found["report"]).with_name("report.json").read_text())
    clips, calibration = report["clips"], report["calibration"]
    assert not np.allclose(clips["probabilities"], clips["raw_probabilities"])
    for kind, suffix in (("as trained", ""), ("scaled", "_scaled")):
        curve = calibration["curves"][kind]
        bins = zip(curve["clips"], curve["confidence"], curve["hits"], strict=True)
        gaps = [count * abs(said - right) for count, said, right in bins if count]
        assert sum(gaps) / sum(curve["clips"]) == pytest.approx(calibration[f"ece{suffix}"])
    raw = np.array(clips["raw_probabilities"])
    right = np.array(clips["truth"])[:, None] == np.array(report["classes"])
    assert calibration["brier"] == pytest.approx(((raw - right) ** 2).sum(axis=1).mean())


@pytest.mark.slow
def test_scaled_probabilities_are_better_over_many_data_sets(tmp_path: Path) -> None:
    """Temperatures are learned on inner folds, so that single data sets may lose: the mean not."""
    gains = []
    for seed in range(12):
        store = write_emotional_store(tmp_path / str(seed), seed=seed, speakers=6, clips=12)
        labels = labels_of(store)
        protocol = make_protocol(labels, SplitOptions(folds=3))
        options = FitOptions(penalties=(1e-3, 1e-1, 10.0))
        found = train_on(store, labels, protocol, layers=[1], options=options)
        calibration = found.evaluation.calibration
        gains.append(calibration["brier"] - calibration["brier_scaled"])
    assert np.mean(gains) > 2 * np.std(gains, ddof=1) / len(gains) ** 0.5


@pytest.mark.slow
def test_the_prior_is_said(tmp_path: Path, run: Run) -> None:
    store = write_emotional_store(tmp_path / "store", clips=9)
    command = ["train", store.path, "--target", "emotion", "--layers", BEST, "--folds", "2"]
    pages = {}
    for prior in ("balanced", "corpus"):
        pages[prior] = Path(run(*command, "--prior", prior)["report"]).read_text()
    assert "with every class counting alike" in pages["balanced"]
    assert "with classes as frequent as in the corpus" in pages["corpus"]
