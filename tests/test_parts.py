"""Parts of a source: each clip in one of them, whoever asks, and one store out of all."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st
from read_plans import read_plan
from waves import noise

from exhubert_features import FeatureStore, load_encoder
from exhubert_features.cli import main
from exhubert_features.errors import UsageError
from exhubert_features.extraction import Part, parse_part, plan
from exhubert_features.store.verify import verify

ROOT = Path(__file__).parents[1]
PARTS = 3


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("parts") / "audio"
    folder.mkdir()
    for index in range(12):
        soundfile.write(folder / f"{index}.wav", noise(4_000 + index, index), 16_000)
    (folder / "broken.wav").write_bytes(b"RIFF")
    return folder


@given(name=st.text(), count=st.integers(1, 200))
def test_every_clip_is_in_one_part(name: str, count: int) -> None:
    assert [Part(number, count).holds(name) for number in range(1, count + 1)].count(True) == 1


def test_parts_are_of_about_one_size() -> None:
    sizes = [sum(Part(n, 8).holds(f"clip{i}.wav") for i in range(8000)) for n in range(1, 9)]
    assert sum(sizes) == 8000 and max(sizes) - min(sizes) < 200


@pytest.mark.parametrize("text", ["0/4", "5/4", "1", "a/b", "1/0", "-1/4", "1/4/2", ""])
def test_what_is_no_part(text: str) -> None:
    with pytest.raises(UsageError, match="such as 3/64"):
        parse_part(text)


def test_a_plan_and_the_plan_of_a_part_agree_and_others_are_not_opened(corpus: Path) -> None:
    whole = list(plan(corpus))
    parts = [list(plan(corpus).part(number, PARTS)) for number in range(1, PARTS + 1)]
    for number, part in enumerate(parts, 1):
        assert part == [entry for entry in whole if Part(number, PARTS).holds(entry.id)]
    assert sorted(map(len, parts)) != [0, 0, len(whole)] and sum(map(len, parts)) == len(whole)
    arrays = {str(n): noise(4_000, n) for n in range(6)}
    names = [clip.id for n in (1, 2) for clip in read_plan(arrays, part=Part(n, 2)).clips]
    assert sorted(names) == sorted(arrays)


def test_clips_of_one_id_meet_in_one_part(corpus: Path, tmp_path: Path) -> None:
    manifest = tmp_path / "twice.csv"
    manifest.write_text(f"id,file\nx,{corpus}/1.wav\nx,{corpus}/2.wav\n")
    found = [read_plan(manifest, part=Part(number, 2)) for number in (1, 2)]
    assert sorted(len(part.everything) for part in found) == [0, 2]
    assert [failure.kind for part in found for failure in part.failures] == ["duplicate"]


@pytest.mark.slow
def test_parts_at_the_same_time_into_one_store_are_one_run(
    corpus: Path, two_layers: Path, tmp_path: Path
) -> None:
    """By the example for SLURM, each part twice, all at the same time."""
    model = ["--model", str(two_layers), "--device", "cpu"]
    (tmp_path / "exhubert").write_text(
        f'#!/bin/sh\nexec "{sys.executable}" -m exhubert_features "$@"\n'
    )
    (tmp_path / "exhubert").chmod(0o755)
    script = str(ROOT / "recipes/Generic/extract/slurm.sh")
    environment = {
        **os.environ,
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        "PARTS": str(PARTS),
    }
    running = [
        subprocess.Popen(
            [script, str(corpus), str(tmp_path / "together"), *model],
            env={**environment, "SLURM_ARRAY_TASK_ID": str(number)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for number in [*range(1, PARTS + 1)] * 2
    ]
    codes = [process.wait(timeout=300) for process in running]
    assert sorted(codes) == [0] * 2 * (PARTS - 1) + [3, 3], "one part has the broken file"
    together = FeatureStore(tmp_path / "together")
    assert [failure.id for failure in together.failures] == ["broken.wav"]
    assert verify(tmp_path / "together", deep=True).problems == ()
    alone = load_encoder(two_layers, device="cpu").extract(corpus).write(tmp_path / "alone")
    assert sorted(together.ids) == sorted(alone.ids)
    order = [together.ids.index(name) for name in alone.ids]
    np.testing.assert_array_equal(together.matrix(layer=2)[order], alone.matrix(layer=2))


@pytest.mark.parametrize("engine", ["here", "ray"])
def test_a_part_without_words_is_refused(
    engine: str, corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As an empty variable of a script leaves it: every task would do everything."""
    command = ["extract", str(corpus), "-o", str(tmp_path / "s"), "--engine", engine]
    assert main([*command, "--part", ""]) == 2
    assert "such as 3/64" in capsys.readouterr().err


def test_an_empty_part_is_no_failure(
    corpus: Path, two_layers: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    empty = next(n for n in range(1, 101) if not plan(corpus).part(n, 100).count())
    options = ["--model", str(two_layers), "--device", "cpu", "--part", f"{empty}/100"]
    assert main(["extract", str(corpus), "-o", str(tmp_path / "s"), *options]) == 0
    assert "Plan: 0 clips" in capsys.readouterr().out
