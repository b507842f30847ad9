"""Where frames lie in time, and fitting them to what a host counts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from waves import noise

from exhubert_features import load_encoder
from exhubert_features.errors import UsageError
from exhubert_features.frames import HostRule, fit_frames, host_frame_count


def test_geometry_of_a_model(two_layers: Path) -> None:
    encoder = load_encoder(two_layers, device="cpu")
    assert (encoder.frame_shift, encoder.receptive_field) == (0.02, 0.025)
    times = encoder.frame_times(48_000)
    assert times.shape == (149,)
    np.testing.assert_allclose(times[[0, 1, -1]], [0.0125, 0.0325, 2.9725])
    assert encoder.frame_times(399).shape == (0,)
    # A frame hears what its time says: a change there, and only there, changes it.
    wave = noise(16_000)
    field = round(encoder.receptive_field * 16_000)
    start = round(encoder.frame_times(16_000)[20] * 16_000) - field // 2
    convolutions = encoder.model.hubert.feature_extractor
    for offset, heard in ((-1, False), (0, True), (field - 1, True), (field, False)):
        changed = wave.copy()
        changed[start + offset] += 10
        with torch.no_grad():
            before, after = (
                convolutions(torch.tensor(one)[None], None)[0, 20] for one in (wave, changed)
            )
        assert torch.equal(before, after) != heard


@pytest.mark.parametrize(
    ("samples", "rule", "count"),
    [
        (48_000, "floor", 150),
        (48_000, "round", 150),
        (48_159, "round", 150),
        (48_160, "round", 151),
        (48_001, "ceil", 151),
        (48_000, "ceil", 150),
        (400, "floor", 1),
        (10, "round", 1),
    ],
)
def test_what_hosts_count(samples: int, rule: HostRule, count: int) -> None:
    assert host_frame_count(samples, rule) == count


def test_a_rule_that_is_none() -> None:
    with pytest.raises(UsageError, match="'floor', 'round' or 'ceil'"):
        host_frame_count(400, "up")  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", [np.asarray, torch.tensor])
def test_fitting_repeats_the_last_frame(kind: type) -> None:
    frames = kind(np.arange(12.0).reshape(2, 3, 2))
    fitted = fit_frames(frames, 5)
    assert type(fitted) is type(frames)
    assert fitted.shape == (2, 5, 2)
    assert (fitted[:, 3] == frames[:, 2]).all() and (fitted[:, 4] == frames[:, 2]).all()
    assert (fit_frames(frames, 2) == frames[:, :2]).all()
    with pytest.raises(UsageError, match="without any frame"):
        fit_frames(frames[:, :0], 5)
