"""JSON beside the numbers: one changed byte is refused, or changes no meaning."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mutants import mutants

from exhubert_features import FeatureStore, load_head
from exhubert_features.errors import CheckpointError, ExHuBERTError, UsageError
from exhubert_features.evaluation.runs import read_run
from exhubert_features.heads import save_head
from exhubert_features.stamps import read_json, stamped, write_json

WRITTEN = Path(__file__).parent / "data" / "written_by_0.1.0"
MUTANTS = int(os.environ.get("EXHUBERT_MUTANTS", "300"))


@pytest.fixture
def head(tmp_path: Path) -> Path:
    """A head of this version: an earlier one, written again."""
    shutil.copytree(WRITTEN / "heads" / "linear", tmp_path / "old")
    loaded = load_head(tmp_path / "old")
    save_head(loaded, tmp_path / "head")
    return tmp_path / "head"


def meaning(folder: Path) -> Any:
    loaded = load_head(folder)
    state = {name: value.numpy().tobytes() for name, value in loaded.state_dict().items()}
    return loaded.config, loaded.fingerprint, loaded.notes, state


def survivors(path: Path, read: Callable[[], Any], *torn: Any) -> tuple[int, int]:
    """How many mutants of a file are accepted, and how many of those mean something else.

    ``torn`` is what may be read of a file that a power cut has torn.
    """
    content, expected = path.read_bytes(), (read(), *torn)
    accepted = changed = 0
    for mutant in mutants(content, MUTANTS):
        path.write_bytes(mutant)
        try:
            found = read()
        except ExHuBERTError:
            continue
        accepted += 1
        changed += found not in expected
    path.write_bytes(content)
    return accepted, changed


def test_mutants_of_a_head(head: Path) -> None:
    accepted, changed = survivors(head / "head.json", lambda: meaning(head))
    assert changed == 0
    assert accepted < MUTANTS / 4  # blanks between the words


@pytest.mark.parametrize("name", ["store.json", "state.json", "journal.jsonl"])
def test_mutants_of_what_a_store_says(tmp_path: Path, name: str) -> None:
    store = tmp_path / "store"
    shutil.copytree(WRITTEN / "store", store)
    FeatureStore.write(store, iter(()), fingerprint=FeatureStore(store).fingerprint)
    write_json(store / "state.json", {"shards": 1, "when": ""}, replace=True)
    (store / "journal.jsonl").unlink(missing_ok=True)
    line = {"event": "planned", "clips": {"a": "0" * 64}, "when": ""}

    def said() -> Any:
        opened = FeatureStore(store)
        return opened.ids, opened.fingerprint, opened.provenance, opened.failures, opened.pending

    before = said()
    (store / "journal.jsonl").write_text(json.dumps(stamped(line)) + "\n")
    _, changed = survivors(store / name, said, *([before] if name == "journal.jsonl" else []))
    assert changed == 0


def test_mutants_of_a_report(tmp_path: Path) -> None:
    clips = {"id": ["a", "b"], "group": ["x", "y"], "truth": [1.0, 2.0], "prediction": [1.0, 1.5]}
    data = {"task": "regression", "ccc": 0.5, "ccc_interval": [0.1, 0.9], "classes": [],
            "clips": clips, "folds": []}  # fmt: skip
    write_json(tmp_path / "report.json", data)

    def said() -> str:
        return repr(read_run(tmp_path))

    _, changed = survivors(tmp_path / "report.json", said)
    assert changed == 0
    del data["ccc"]
    (tmp_path / "report.json").write_text(json.dumps(data))
    with pytest.raises(UsageError, match="no JSON with its hash"):
        read_run(tmp_path)


@pytest.mark.parametrize("temperature", [-1.0, 0.0, np.nan, np.inf])
def test_a_temperature_that_turns_probabilities_round(head: Path, temperature: float) -> None:
    loaded = load_head(head)
    loaded.temperature.fill_(temperature)
    save_head(loaded, head)
    with pytest.raises(CheckpointError, match="temperature"):
        load_head(head)


def test_a_head_of_this_version_cannot_pass_for_an_older_one(head: Path) -> None:
    card = read_json(head / "head.json")
    (head / "head.json").write_text(json.dumps({**stamped(card), "version": 1}))
    with pytest.raises(CheckpointError, match="not what was written"):
        load_head(head)
    (head / "head.json").write_text(json.dumps({**card, "version": 2}))
    with pytest.raises(CheckpointError, match="no JSON with its hash"):
        load_head(head)


@pytest.mark.parametrize(
    "changes",
    [
        {"layers": [True]},
        {"layers": [-1]},
        {"layers": [0, 0]},
        {"pools": ["median"]},
        {"classes": ["a", "a"]},
        {"hidden": True},
        {"dropout": float("nan")},
        {"target": None},
    ],
)
def test_fields_of_an_older_head_are_checked(tmp_path: Path, changes: dict[str, Any]) -> None:
    shutil.copytree(WRITTEN / "heads" / "linear", tmp_path / "head")
    path = tmp_path / "head" / "head.json"
    card = json.loads(path.read_text())
    card["config"] |= changes
    path.write_text(json.dumps(card))
    with pytest.raises(CheckpointError, match="wrong kind"):
        load_head(tmp_path / "head")


def test_weights_stay_on_the_numbers(head: Path) -> None:
    """What is written is read to the last bit."""
    before = load_head(head)
    save_head(before, head)
    after = load_head(head)
    for name, value in before.state_dict().items():
        torch.testing.assert_close(after.state_dict()[name], value, rtol=0, atol=0)
