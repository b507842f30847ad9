"""``exhubert demo``: one command, offline, to a verified store and a result above chance."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from exhubert_features.cli import main
from exhubert_features.cli.demo import claim, make_inputs, steps
from exhubert_features.store import FeatureStore

PROJECT = Path(__file__).parents[1]


def demo(folder: Path, home: Path) -> str:
    """What the command prints when a new user runs it."""
    home.mkdir(exist_ok=True)
    environment = {
        "HOME": str(home),
        "PATH": os.environ["PATH"],
        "PYTHONPATH": os.pathsep.join([str(PROJECT), os.environ.get("PYTHONPATH", "")]),
        "HF_HUB_OFFLINE": "1",
    }
    result = subprocess.run(
        [sys.executable, "-m", "exhubert_features", "demo", "-o", str(folder)],
        cwd=home,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    folder = tmp_path_factory.mktemp("demo")
    return folder / "out", demo(folder / "out", folder / "home")


@pytest.mark.slow
def test_a_result_above_chance_on_unseen_speakers(first: tuple[Path, str]) -> None:
    folder, printed = first
    report = json.loads((folder / "head/report.json").read_text(encoding="utf-8"))
    assert report["chance"] == 0.25
    assert 0.5 < report["uar"] < 0.95  # above chance, and not a label that leaked
    assert report["uar_interval"][0] > 0.4
    assert f"UAR {report['uar']:.2f}" in printed
    for fold in report["folds"]:
        assert len(fold["test_groups"]) >= 1
    assert sorted(name for fold in report["folds"] for name in fold["test_groups"]) == sorted(
        set(report["clips"]["group"])
    )


@pytest.mark.slow
def test_the_store_is_whole(first: tuple[Path, str], capsys: pytest.CaptureFixture[str]) -> None:
    store = first[0] / "store"
    assert main(["verify", str(store)]) == 0
    assert len(FeatureStore(store)) == 200
    assert not FeatureStore(store).failures


@pytest.mark.slow
def test_it_says_what_it_is_and_how_to_go_on(first: tuple[Path, str]) -> None:
    folder, printed = first
    assert "weights are random" in printed and "speech is synthetic" in printed
    assert "--model amiriparian/ExHuBERT" in printed
    for name in ("head/report.html", "probe/report.html", "store", "audio/manifest.csv"):
        assert str(folder / name) in printed
        assert (folder / name).exists()


@pytest.mark.slow
def test_a_second_run_takes_its_folder_again_and_extracts_nothing(first: tuple[Path, str]) -> None:
    folder, _ = first
    before = {path: path.stat().st_mtime_ns for path in (folder / "store").rglob("*.h5")}
    assert before
    claim(folder)
    make_inputs(folder)
    extract, *_ = steps(folder)
    assert main(extract) == 0
    assert {path: path.stat().st_mtime_ns for path in (folder / "store").rglob("*.h5")} == before


def test_a_folder_of_someone_else_is_left_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    assert main(["demo", "-o", str(tmp_path)]) == 2
    assert "did not write" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
    assert main(["demo", "-o", str(tmp_path / "thesis.txt")]) == 2
    (tmp_path / "demo.json").write_text('{"exhubert demo": "0.0.0"}')
    assert main(["demo", "-o", str(tmp_path)]) == 2
