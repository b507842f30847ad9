"""The commands that write, each on a small prepared folder, and what they promise."""

from __future__ import annotations

import hashlib
import json
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from exhubert_features.cli import main

Outcome = Any


@dataclass
class Command:
    """One command line, working in a copy of the folder ``prepared``.

    ``outcome`` says in comparable data what it made; ``sound`` is given what a failed run said,
    and raises when the run left something that a reader could mistake for a result, or lost
    something that was there or that it had said to be done.
    """

    name: str
    words: str
    prepared: Path
    outcome: Callable[[Path], Outcome]
    sound: Callable[[Path, str], None]
    program: Callable[[list[str]], int] = main
    expected: Outcome = field(default=None)

    @property
    def arguments(self) -> list[str]:
        return self.words.split()


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


def sound_store(name: str, *held: str) -> Callable[[Path, str], None]:
    """A store that is there opens, and holds the rows that were there before."""

    def sound(folder: Path, said: str) -> None:
        path = folder / name
        if held or path.is_file() or (path / "store.json").exists():
            lost = set(held) - store_content(path).keys()
            assert not lost, f"lost {lost}"

    return sound


def file_hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:12]


def nothing_half(*names: str) -> Callable[[Path, str], None]:
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


def sound_checkpoint(name: str) -> Callable[[Path, str], None]:
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


def fine_tune(arguments: list[str]) -> int:
    """Save checkpoints as the recipes' training does, after each of four epochs; go on with them.

    Four, so that the best is not the last and older ones are deleted.
    """
    epochs, checkpointer, head = _training(Path(arguments[0]))
    try:
        checkpointer.recover_if_possible()
        for epoch in epochs:
            head.weight.data.fill_(epoch)
            meta = {"UAR": 1 / (1 + abs(epoch - 2))}
            checkpointer.save_and_keep_only(meta=meta, max_keys=["UAR"])
            print(f"saved epoch {epoch}", flush=True)
    except (OSError, RuntimeError) as error:  # torch's own writer raises the latter
        print(f"error: {error}", file=sys.stderr, flush=True)
        return 1
    return 0


def recovered(folder: Path) -> Outcome:
    """The epoch of the latest checkpoint and that of the best."""
    found = []
    for key in ("unixtime", "UAR"):
        epochs, checkpointer, head = _training(folder / "save")
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


def _training(folder: Path) -> tuple[Any, Any, Any]:
    from speechbrain.utils.epoch_loop import EpochCounter
    from torch import nn

    from exhubert_features.speechbrain import WholeCheckpointer

    head, epochs = nn.Linear(100, 100), EpochCounter(4)
    nn.init.zeros_(head.weight)
    parts = {"head": head, "counter": epochs}
    return epochs, WholeCheckpointer(folder, parts), head


def write_audio(folder: Path) -> None:
    folder.mkdir()
    chance = np.random.default_rng(0)
    for number in range(6):
        tone = np.sin(np.arange(6000 + 500 * number) * (0.05 + 0.01 * number))
        wave = (0.2 * tone + 0.01 * chance.normal(size=len(tone))).astype("f4")
        soundfile.write(folder / f"clip_{number}.wav", wave, 16_000)
    (folder / "broken.wav").write_bytes(b"no audio")
    rows = [f"clip_{n}.wav,s{n % 3},{'calm' if n % 2 else 'angry'}" for n in range(6)]
    (folder / "manifest.csv").write_text("\n".join(["file,speaker,emotion", *rows]) + "\n")


def prepare_all(scratch: Path, names: Sequence[str]) -> Iterator[Command]:
    """Prepared commands, all or those named."""
    base = scratch / "base"
    base.mkdir()
    prepare_base(base)
    for one in [*store_commands(base), *other_commands(base)]:
        if not names or one.name in names or one.name.split()[0] in names:
            yield one


def prepare_base(base: Path) -> None:
    """Audio, a model, stores and a head."""
    from exhubert_features.checkpoint import write_random_checkpoint

    write_audio(base / "audio")
    write_random_checkpoint(base / "model", layers=2)
    write_random_checkpoint(base / "plain", layers=2, gated=False)
    commands = [
        f"extract {base}/audio/manifest.csv -o {base}/store",
        f"extract {base}/audio/clip_0.wav {base}/audio/clip_1.wav -o {base}/a",
        f"extract {base}/audio/clip_2.wav {base}/audio/clip_3.wav -o {base}/b",
    ]
    commands = [f"{words} --model {base}/model --device cpu" for words in commands]
    commands += [f"train {base}/store {LABELS} --layers 1 -o {base}/trained"]
    for words in commands:
        code = main(words.split())
        if code not in (0, 3):
            raise RuntimeError(f"{words} ended with {code}")


LABELS = "--target emotion --group speaker"


def store_commands(base: Path) -> Iterator[Command]:
    model = "--model model --device cpu"
    held = [f"{base}/audio/clip_{number}.wav" for number in (0, 1)]
    yield Command(
        "extract",
        f"extract audio/manifest.csv -o new --shard-clips 2 {model}",
        base,
        lambda folder: store_content(folder / "new"),
        sound_store("new"),
    )
    yield Command(
        "continued extract",
        f"extract audio/clip_0.wav audio/clip_1.wav audio/clip_4.wav -o a {model}",
        base,
        lambda folder: len(store_content(folder / "a")),
        sound_store("a", *held),
    )
    yield Command(
        "merge",
        "merge a b -o merged",
        base,
        lambda folder: store_content(folder / "merged"),
        sound_store("merged"),
    )
    yield Command(
        "pack",
        "pack store packed.h5",
        base,
        lambda folder: store_content(folder / "packed.h5"),
        sound_store("packed.h5"),
    )
    for form in ("csv", "npz"):
        yield Command(
            f"export {form}",
            f"export store --to {form} -o out.{form}",
            base,
            lambda folder, form=form: file_hash(folder / f"out.{form}") if form == "csv" else 0,
            nothing_half(f"out.{form}"),
        )


def other_commands(base: Path) -> Iterator[Command]:
    yield Command(
        "convert",
        "convert model converted",
        base,
        lambda folder: file_hash(folder / "converted/model.safetensors"),
        sound_checkpoint("converted"),
    )
    yield Command(
        "expand",
        "expand plain expanded",
        base,
        lambda folder: file_hash(folder / "expanded/model.safetensors"),
        sound_checkpoint("expanded"),
    )
    yield Command(
        "probe",
        f"probe store {LABELS} -o probe",
        base,
        uar("probe"),
        nothing_half("probe/report.json", "probe/report.html", "probe/result.png"),
    )
    yield Command(
        "train",
        f"train store {LABELS} --layers 1 -o head",
        base,
        uar("head"),
        sound_head,
    )
    yield Command(
        "evaluate",
        f"evaluate trained store {LABELS} -o elsewhere",
        base,
        uar("elsewhere"),
        nothing_half("elsewhere/report.json", "elsewhere/report.html"),
    )
    yield Command(
        "compare",
        "compare trained trained -o table",
        base,
        lambda folder: sorted(path.name for path in (folder / "table").iterdir()),
        nothing_half(),
    )
    yield Command(
        "predict",
        "predict audio/clip_1.wav --model model --device cpu --plot line.png -o out.csv",
        base,
        lambda folder: (file_hash(folder / "out.csv"), (folder / "line.png").stat().st_size > 0),
        nothing_half("line.png", "out.csv"),
    )
    yield Command("fine-tune", "save", base, recovered, sound_training, program=fine_tune)
