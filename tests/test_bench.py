"""``exhubert bench``: the figures hang together, and the settings follow from them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from exhubert_features.bench import whole
from exhubert_features.bench.encoding import operations
from exhubert_features.cli import main
from exhubert_features.model.config import ExHuBERTConfig


def test_operations_of_the_released_model() -> None:
    """217e9 were counted for it elsewhere; half the layers are half the work above the front."""
    assert operations(ExHuBERTConfig()) == pytest.approx(217e9, rel=0.02)
    whole_depth, half, none = (
        operations(ExHuBERTConfig(num_hidden_layers=layers, gated=False)) for layers in (48, 24, 12)
    )
    assert whole_depth - half == 2 * (half - none)


@pytest.mark.slow
def test_quick_bench(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    small = ExHuBERTConfig(hidden_size=64, intermediate_size=128, conv_dim=(32,) * 7)
    monkeypatch.setattr(whole, "RELEASED", small)
    output = tmp_path / "bench.json"
    arguments = ["bench", "--quick", "--device=cpu", f"--folder={tmp_path}", "--hours=10"]
    assert main([*arguments, "-o", str(output)]) == 0
    printed = capsys.readouterr().out
    found = json.loads(output.read_text())
    assert found["machine"]["peaks"]["float32"] > 1e9
    assert found["machine"]["copied_per_second"] > 1e8
    speeds = {(speed["name"], speed["batch_size"]): speed for speed in found["speeds"]}
    assert {("plain loop", 1), ("float32", 1), ("float32", 4)} <= speeds.keys()
    assert speeds["plain loop", 1]["ratio"] == 1
    for speed in speeds.values():
        assert 0 <= speed["front_seconds"] < speed["seconds"]
        assert f"{1 / speed['seconds']:.2f}" in printed
    best = found["recommendation"]
    assert best["name"] == found["chosen"]
    assert best == {**best, **speeds[best["name"], best["batch_size"]]}
    layers = (best["seconds"] - best["front_seconds"]) * 48 / found["layers"]
    pipeline = found["pipeline"]
    beyond = max(0, pipeline["wall"]) * pipeline["bare_seconds"] / pipeline["clips"]
    each = best["front_seconds"] + layers + beyond
    assert best["seconds_needed"] == pytest.approx(12_000 * each)
    assert f"--precision {best['name']} --batch-size {best['batch_size']}" in printed
    assert [path.name for path in tmp_path.iterdir()] == ["bench.json"]  # and no model


def test_what_cannot_be_written_or_planned_is_refused_first(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", "--hours=0"]) == 2
    assert "--hours 0.0" in capsys.readouterr().err
    assert main(["bench", "-o", str(tmp_path / "none" / "bench.json")]) == 2
    assert "folder does not exist" in capsys.readouterr().err
