"""What the commands make, and what one that failed must not leave behind.

An outcome is comparable data; a check of soundness is given the folder and what the failed run
said, and raises when the run left something that a reader could mistake for a result, or lost
something that was there or that it had said to be done.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Outcome = Any
Sound = Callable[[Path, str], None]


class Rows(dict[str, Any]):
    """Row id -> its numbers, equal to others that differ by what another batch may change."""

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Rows)
            and self.keys() == other.keys()
            and all(np.allclose(self[name], other[name], rtol=2e-3, atol=2e-3) for name in self)
        )

    def __ne__(self, other: object) -> bool:  # a dict has one of its own
        return not self == other

    __hash__ = None  # type: ignore[assignment]


def store_content(path: Path) -> Rows:
    """Read every row and failure; every byte is verified on the way."""
    from exhubert_features import FeatureStore
    from exhubert_features.store import verify

    problems = verify(path, deep=True).problems
    if problems:
        raise RuntimeError(f"{path}: {problems}")
    store = FeatureStore(path)
    if len(set(store.ids)) < len(store):
        raise RuntimeError(f"{path}: doubled rows")
    content = Rows()
    for name in store.ids:
        row = store[name]
        parts = [row.pooled.ravel(), *([] if row.logits is None else [row.logits.ravel()])]
        content[name] = np.concatenate(parts).astype(np.float32)
    content |= {failure.id: np.nan for failure in store.failures}  # equal to nothing
    return content


def sound_store(name: str, *held: str) -> Sound:
    """A store that is there opens, and holds the rows that were there before."""

    def sound(folder: Path, said: str) -> None:
        path = folder / name
        if held or path.is_file() or (path / "store.json").exists():
            lost = set(held) - store_content(path).keys()
            assert not lost, f"lost {lost}"

    return sound


def file_hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:12]


def nothing_half(*names: str) -> Sound:
    """The named files are absent, or as they are in the end."""

    def sound(folder: Path, said: str) -> None:
        for name in names:
            path = folder / name
            if path.suffix == ".json" and path.exists():
                json.loads(path.read_text())
            elif path.suffix == ".html" and path.exists():
                assert path.read_text().rstrip().endswith("</html>"), f"{name} is cut"
            elif path.suffix == ".png" and path.exists():
                assert path.read_bytes().endswith(b"IEND\xaeB`\x82"), f"{name} is cut"
            elif path.suffix == ".npz" and path.exists():
                with np.load(path) as archive:
                    assert all(archive[key] is not None for key in archive.files)
            elif path.suffix == ".csv" and path.exists():
                assert path.read_text().endswith("\n"), f"{name} is cut"

    return sound


def sound_checkpoint(name: str) -> Sound:
    def sound(folder: Path, said: str) -> None:
        from exhubert_features.checkpoint import load_model

        if (folder / name).exists():
            load_model(folder / name)

    return sound


def sound_head(folder: Path, said: str) -> None:
    from exhubert_features import load_head

    if (folder / "head" / "head.json").exists():
        load_head(folder / "head")
    nothing_half("head/report.json", "head/report.html", "head/result.png")(folder, said)


def uar(name: str) -> Callable[[Path], Outcome]:
    return lambda folder: json.loads((folder / name / "report.json").read_text())["uar"]


def recovered(folder: Path) -> Outcome:
    """The epoch of the latest checkpoint and that of the best."""
    found = []
    for key in ("unixtime", "UAR"):
        epochs, checkpointer, head = training(folder / "save")
        checkpointer.recover_if_possible(max_key=key)
        if epochs.current != int(head.weight[0, 0]):
            raise RuntimeError(f"epoch {epochs.current} has the weights of {head.weight[0, 0]}")
        found.append(epochs.current)
    return found


def sound_training(folder: Path, said: str) -> None:
    """What was said to be saved is there."""
    saved = [int(number) for number in re.findall(r"saved epoch (\d+)", said)]
    latest, best = recovered(folder)
    if saved and (latest < saved[-1] or best != min(2, latest)):
        raise RuntimeError(f"of the epochs {saved} the latest left is {latest}, the best {best}")


def training(folder: Path) -> tuple[Any, Any, Any]:
    from speechbrain.utils.epoch_loop import EpochCounter
    from torch import nn

    from exhubert_features.speechbrain import WholeCheckpointer

    head, epochs = nn.Linear(100, 100), EpochCounter(4)
    nn.init.zeros_(head.weight)
    parts = {"head": head, "counter": epochs}
    return epochs, WholeCheckpointer(folder, parts), head


def repaired(folder: Path) -> Outcome:
    """What the store holds, and what was taken out of it."""
    store = folder / "damaged"
    taken = [path for path in (store / "quarantine").iterdir() if path.suffix != ".json"]
    return sorted(store_content(store)), {file_hash(path) for path in taken}


def sound_repair(whole: Path, damaged: Path) -> Sound:
    """Sound shards are where they were, and the damaged one is there or in quarantine."""
    before = {path.name: file_hash(path) for path in (damaged / "shards").iterdir()}
    sound = {path.name: file_hash(path) for path in (whole / "shards").iterdir()}

    def check(folder: Path, said: str) -> None:
        store = folder / "damaged"
        now = {path.name: file_hash(path) for path in (store / "shards").glob("*.h5")}
        taken = {file_hash(path) for path in store.glob("quarantine/*")}
        for name, key in before.items():
            moved = key != sound[name] and key in taken
            assert now.get(name) == key or moved, f"{name} is not where it was"

    return check


def files_of_demo(folder: Path) -> Outcome:
    """Every file, by its content."""
    paths = [path for path in sorted((folder / "demo").rglob("*")) if path.is_file()]
    return [(path.name, file_hash(path)) for path in paths if not path.name.startswith(".")]
