"""From recordings to a report with a row for each window: windows are said, clips get a score."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
from waves import noise

from exhubert_features.cli import main
from exhubert_features.store import FeatureStore

SECONDS = (4.5, 5.5, 7.0)


def write_recordings(folder: Path) -> Path:
    """Sixteen clips of two to three windows; angry ones hiss, calm ones hum, two are misfiled."""
    folder.mkdir()
    lines = ["file,speaker,emotion"]
    for number in range(16):
        hissing, speaker = number % 2, number // 4
        samples = int(16_000 * SECONDS[number % 3])
        hiss = noise(samples, seed=number)
        hum = np.sin(np.arange(samples) * (0.05 + 0.01 * speaker)).astype(np.float32) * 0.1
        soundfile.write(folder / f"{number}.wav", hiss if hissing else hum + 0.1 * hiss, 16_000)
        angry = hissing != (number in (5, 11))
        lines.append(f"{number}.wav,s{speaker},{'angry' if angry else 'calm'}")
    (folder / "manifest.csv").write_text("\n".join(lines))
    return folder / "manifest.csv"


@pytest.mark.slow
def test_windows_are_called_windows_and_clips_get_a_score(
    two_layers: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = write_recordings(tmp_path / "audio")
    store = str(tmp_path / "store")
    extract = ["extract", str(manifest), "-o", store, "--model", str(two_layers), "--segments"]
    assert main([*extract, "--device", "cpu"]) == 0
    rows = FeatureStore(store).column("clip_id")
    assert len(set(rows)) == 16 < len(rows)
    capsys.readouterr()
    out = tmp_path / "probe"
    assert main(["probe", store, "--target", "emotion", "-o", str(out)]) == 0
    printed = capsys.readouterr().out
    assert f", {len(rows)} windows." in printed
    assert "clips whole clips (mean over windows): UAR" in printed and ", 16\n" in printed
    report = json.loads((out / "report.json").read_text())
    assert report["rows"] == "windows" and report["uar"] > 0.7
    (part,) = report["parts"]
    assert part["kind"] == "clips" and part["clips"] == 16 and 0.7 < part["score"]["value"] < 1
    page = (out / "report.html").read_text()
    assert "training windows" in page and "training clips" not in page
    with (out / "predictions.csv").open() as stream:
        told = list(csv.DictReader(stream))
    assert [row["id"] for row in told] == FeatureStore(store).ids
    said = {clip: [row for row in told if row["id"].startswith(f"{clip}#")] for clip in set(rows)}
    means = {clip: np.mean([float(row["angry"]) for row in said[clip]]) for clip in said}
    truth = {clip: said[clip][0]["truth"] for clip in said}
    recalls = [np.mean([(means[clip] > 0.5) == (name == "angry") for clip in means
                        if truth[clip] == name]) for name in ("angry", "calm")]  # fmt: skip
    assert part["score"]["value"] == pytest.approx(np.mean(recalls))
    for fold in report["folds"]:
        assert len(fold["test_groups"]) == 1  # windows of one clip never part, nor of one speaker
