"""Blocks dealt to workers that die at any moment: each clip ends once, as done or given up."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exhubert_features.cluster import Cluster
from exhubert_features.cluster.engine import _block_size
from exhubert_features.cluster.places import share_out
from exhubert_features.cluster.schedule import TRIES, Block, Schedule
from exhubert_features.errors import UsageError
from exhubert_features.records import ClipFailure, Entry


def entries(count: int) -> list[Entry]:
    return [Entry(id=f"{number}.wav", file=f"/audio/{number}.wav") for number in range(count)]


def names(block: Block) -> list[str]:
    return [entry.id for entry in block.entries]


@given(
    count=st.integers(0, 60),
    clips=st.integers(1, 20),
    poisoned=st.sets(st.integers(0, 59), max_size=5),
    suspects=st.sets(st.integers(0, 59), max_size=5),
    workers=st.integers(1, 4),
    fate=st.randoms(use_true_random=False),
)
def test_every_clip_ends_once(
    count: int,
    clips: int,
    poisoned: set[int],
    suspects: set[int],
    workers: int,
    fate,  # type: ignore[no-untyped-def]
) -> None:
    """Whatever dies, also for no fault of a clip, and in whatever order workers answer."""
    bad = {f"{number}.wav" for number in poisoned}
    schedule = Schedule(entries(count), clips, {f"{number}.wav" for number in suspects})
    busy: list[Block] = []
    done: list[str] = []
    given_up: list[str] = []
    accidents = 10
    for _ in itertools.count():
        while len(busy) < workers and (block := schedule.next()):
            busy.append(block)
        if not busy:
            break
        block = busy.pop(fate.randrange(len(busy)))
        chance = fate.random()
        if accidents and chance < 0.1:
            accidents -= 1
            schedule.back(block)  # a full disk
        elif bad & {*names(block)}:
            failure = schedule.lost(block, "killed")
            given_up += [failure.id] if failure else []
        elif accidents and chance < 0.2 and len(block.entries) > 1:
            accidents -= 1
            assert schedule.lost(block, "a node went away") is None
        else:
            done += names(block)
    assert not schedule
    assert sorted([*done, *given_up]) == sorted(entry.id for entry in entries(count))
    assert {*given_up} == bad & {entry.id for entry in entries(count)}


@pytest.mark.parametrize("clips", [1, 2, 7, 64, 256])
def test_a_bad_clip_is_found_in_few_deaths(clips: int) -> None:
    for bad in {0, clips // 3, clips - 1}:
        schedule = Schedule(entries(clips), clips)
        deaths, others = 0, 0
        while block := schedule.next():
            if f"{bad}.wav" not in names(block):
                others += len(block.entries)
                continue
            deaths += 1
            failure = schedule.lost(block, "SIGSEGV")
        assert deaths <= math.ceil(math.log2(clips)) + 3
        assert others == clips - 1
        assert failure is not None and (failure.id, failure.kind) == (f"{bad}.wav", "killed")
        assert "SIGSEGV" in failure.reason and "/audio/" in failure.reason


def test_one_death_blames_nobody() -> None:
    schedule = Schedule(entries(1), 8)
    for _ in range(TRIES - 1):
        block = schedule.next()
        assert block is not None and schedule.lost(block, "a node went away") is None
    assert schedule


def test_clips_that_killed_before_come_last_and_alone() -> None:
    schedule = Schedule(entries(8), 3, {"0.wav", "4.wav"})
    dealt = []
    while block := schedule.next():
        dealt.append(names(block))
        if len(block.entries) == 1:
            assert schedule.lost(block, "again") is not None, "once is enough"
    assert dealt == [
        ["1.wav", "2.wav", "3.wav"],
        ["5.wav", "6.wav", "7.wav"],
        ["0.wav"],
        ["4.wav"],
    ]


def test_a_failure_among_the_entries_keeps_its_reason() -> None:
    known = ClipFailure(id="x", file="m.csv", kind="manifest", reason="no file")
    schedule = Schedule([known], 1)
    found = None
    while block := schedule.next():
        found = schedule.lost(block, "killed")
    assert found == known


def test_entries_are_taken_as_blocks_are_asked_for() -> None:
    taken = 0

    def endless() -> Iterable[Entry]:
        nonlocal taken
        for taken in itertools.count(1):
            yield Entry(id=str(taken), file=str(taken))

    schedule = Schedule(endless(), 100)
    for _ in range(3):
        assert schedule.next()
    assert taken == 400, "three dealt and one ahead"


@pytest.mark.parametrize(
    ("asked", "machines", "actors", "gpus", "cpus"),
    [
        (Cluster(), [{"CPU": 8}], 1, 0, 8),
        (Cluster(actors=2), [{"CPU": 8}], 2, 0, 4),
        (Cluster(), [{"CPU": 8}, {"CPU": 4}, {}], 2, 0, 4),  # the head takes no work
        (Cluster(actors=3), [{"CPU": 1}], 3, 0, 1),
        (Cluster(), [{"CPU": 64, "GPU": 8}, {"CPU": 64, "GPU": 8}, {"CPU": 4}], 16, 1, 1),
        (Cluster(gpus_per_actor=0.5), [{"CPU": 8, "GPU": 1}], 2, 0.5, 1),
        (Cluster(gpus_per_actor=0), [{"CPU": 8, "GPU": 1}], 1, 0, 8),
    ],
)
def test_actors_are_spread(
    asked: Cluster, machines: list[dict[str, float]], actors: int, gpus: float, cpus: int
) -> None:
    places = share_out(asked, machines)
    assert places.actors == actors
    assert (places.options["num_gpus"], places.options["num_cpus"]) == (gpus, cpus)


def test_what_no_machine_has_is_refused() -> None:
    with pytest.raises(UsageError, match=r"2 GPUs for each actor.*more than 1\."):
        share_out(Cluster(gpus_per_actor=2), [{"CPU": 8, "GPU": 1}] * 2)
    for wrong in ({"actors": 0}, {"actors": 1.5}, {"gpus_per_actor": -1.0}):
        with pytest.raises(UsageError, match="a whole number of at least 1"):
            Cluster(**wrong)
    for share in (float("nan"), float("inf")):
        with pytest.raises(UsageError, match="no negative share"):
            Cluster(gpus_per_actor=share)


@pytest.mark.parametrize(
    ("clips", "actors", "asked", "size"),
    [
        (49, 2, None, 7),  # four blocks each
        (1_000_000, 100, None, 256),
        (10_000_000, 100, None, 1220),  # and no more than 8,200 of them
        (10_000_000, 100, 64, 64),
        (1, 8, None, 1),
        (0, 1, None, 1),
        (None, 4, None, 256),
    ],
)
def test_blocks_grow_with_the_work(
    clips: int | None, actors: int, asked: int | None, size: int
) -> None:
    assert _block_size(clips, actors, asked, 256) == size
    assert _block_size(1_000_000, 2, None, 4096) == 4096
