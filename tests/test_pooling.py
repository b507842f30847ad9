"""Statistics over frames: right, blind to padding, stable, and joinable."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from exhubert_features.extraction.pooling import join, parts_of, pool_frames

POOLS = ("mean", "std", "max")


def mask_of(rows: list[tuple[int, int]], size: int) -> torch.Tensor:
    index = torch.arange(size)
    return torch.stack([(index >= first) & (index < last) for first, last in rows])


def expected(frames: torch.Tensor) -> np.ndarray:
    values = frames.double().numpy()
    return np.stack([values.mean(axis=0), values.std(axis=0), values.max(axis=0)])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_against_numpy(dtype: torch.dtype) -> None:
    hidden = torch.randn(3, 20, 5).to(dtype)
    rows = [(0, 20), (3, 11), (19, 20)]
    pooled = pool_frames(hidden, mask_of(rows, 20), POOLS)
    assert pooled.dtype == torch.float32
    for row, (first, last) in enumerate(rows):
        np.testing.assert_allclose(pooled[row], expected(hidden[row, first:last]), atol=1e-6)


def test_without_mask_is_with_all_true() -> None:
    hidden = torch.randn(2, 7, 3)
    everything = torch.ones(2, 7, dtype=torch.bool)
    assert torch.equal(pool_frames(hidden, None, POOLS), pool_frames(hidden, everything, POOLS))


@pytest.mark.parametrize("rubbish", [1e30, float("nan"), float("inf")])
def test_padding_never_enters(rubbish: float) -> None:
    hidden = torch.randn(2, 9, 4)
    mask = mask_of([(0, 5), (2, 9)], 9)
    clean = pool_frames(hidden, mask, POOLS)
    dirty = torch.where(mask.unsqueeze(-1), hidden, rubbish)
    assert torch.equal(pool_frames(dirty, mask, POOLS), clean)
    assert torch.isfinite(clean).all()


def test_the_order_of_pools_is_kept() -> None:
    hidden = torch.randn(1, 6, 2)
    forward, backward = (pool_frames(hidden, None, pools) for pools in (POOLS, POOLS[::-1]))
    assert torch.equal(forward, backward.flip(1))


def test_std_of_one_frame_is_zero() -> None:
    assert torch.equal(pool_frames(torch.randn(2, 1, 3), None, ("std",)), torch.zeros(2, 1, 3))


def test_std_beside_a_large_mean_does_not_cancel() -> None:
    hidden = torch.randn(1, 1000, 3) * 0.01 + 1000.0
    std = pool_frames(hidden, None, ("std",))[0, 0]
    np.testing.assert_allclose(std, hidden[0].double().std(dim=0, correction=0), rtol=1e-3)


def test_the_input_is_not_changed() -> None:
    hidden = torch.randn(2, 5, 3)
    before = hidden.clone()
    pool_frames(hidden, mask_of([(0, 2), (1, 5)], 5), POOLS)
    assert torch.equal(hidden, before)


@given(
    lengths=st.lists(st.integers(0, 9), min_size=1, max_size=6).filter(any),
    offset=st.floats(-100, 100),
)
def test_joining_windows_is_pooling_all_frames(lengths: list[int], offset: float) -> None:
    generator = torch.Generator().manual_seed(sum(lengths))
    windows = torch.randn(len(lengths), 9, 4, generator=generator) + offset
    mask = mask_of([(0, length) for length in lengths], 9)
    parts = pool_frames(windows, mask, POOLS)
    joined = join(parts.unsqueeze(1), torch.tensor(lengths), POOLS)
    np.testing.assert_allclose(joined[0], expected(windows[mask]), atol=2e-5)


def test_joining_in_steps_is_joining_at_once() -> None:
    parts = pool_frames(torch.randn(5, 8, 3), None, POOLS)
    counts = torch.tensor([8, 8, 8, 8, 8])
    early = join(parts[:2], counts[:2], POOLS)
    stepwise = join(torch.stack([early, *parts[2:]]), torch.tensor([16, 8, 8, 8]), POOLS)
    torch.testing.assert_close(stepwise, join(parts, counts, POOLS))


@pytest.mark.parametrize(
    ("pools", "parts"),
    [
        (("mean",), ("mean",)),
        (("max",), ("max",)),
        (("std",), ("std", "mean")),
        (("max", "std"), ("max", "std", "mean")),
        (("std", "mean"), ("std", "mean")),
    ],
)
def test_a_std_travels_with_its_mean(pools: tuple[str, ...], parts: tuple[str, ...]) -> None:
    assert parts_of(pools) == parts
