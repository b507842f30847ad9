"""The commands that write, each on a small prepared folder, and what they promise."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

Outcome = Any


@dataclass
class Command:
    """One command line, working in a copy of the folder ``prepared``.

    ``outcome`` says in comparable data what it made; ``sound`` raises when a failed run left
    something that a reader could mistake for a result.
    """

    name: str
    arguments: Sequence[str]
    prepared: Path
    outcome: Callable[[Path], Outcome]
    sound: Callable[[Path], None]
    again: Sequence[str] = ()  # extra arguments of the next run
    expected: Outcome = field(default=None)

    @property
    def arguments_again(self) -> list[str]:
        return [*self.arguments, *self.again]


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


def sound_store(path: Path) -> None:
    """A store that is there opens and holds only what belongs there."""
    if (path / "store.json").exists() or path.is_file():
        store_content(path)


def file_hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:12]


def nothing_half(*names: str) -> Callable[[Path], None]:
    """The named files are absent, or as they are in the end."""

    def sound(folder: Path) -> None:
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


def sound_checkpoint(name: str) -> Callable[[Path], None]:
    def sound(folder: Path) -> None:
        from exhubert_features.checkpoint import load_model

        if (folder / name).exists():
            load_model(folder / name)

    return sound


def sound_head(folder: Path) -> None:
    from exhubert_features import load_head

    if (folder / "head" / "head.json").exists():
        load_head(folder / "head")
    nothing_half("head/report.json", "head/report.html", "head/result.png")(folder)


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
    from exhubert_features.checkpoint import write_random_checkpoint
    from exhubert_features.cli import main

    base = scratch / "base"
    base.mkdir()
    write_audio(base / "audio")
    write_random_checkpoint(base / "model", layers=2)
    quiet = ["--device", "cpu"]
    manifest = str(base / "audio/manifest.csv")

    def must(*arguments: str) -> None:
        code = main([*arguments])
        if code not in (0, 3):
            raise RuntimeError(f"{arguments} ended with {code}")

    def extract(*sources: str, to: str) -> None:
        must("extract", *sources, "-o", to, "--model", str(base / "model"), *quiet)

    extract(manifest, to=str(base / "store"))
    extract(str(base / "audio/clip_0.wav"), str(base / "audio/clip_1.wav"), to=str(base / "a"))
    extract(str(base / "audio/clip_2.wav"), str(base / "audio/clip_3.wav"), to=str(base / "b"))
    labelled = ["store", "--target", "emotion", "--group", "speaker"]
    must("train", str(base / "store"), *labelled[1:], "--layers", "1", "-o", str(base / "trained"))
    commands = [
        Command(
            "extract",
            [
                "extract",
                "audio/manifest.csv",
                "-o",
                "new",
                "--model",
                "model",
                "--shard-clips",
                "2",
                *quiet,
            ],
            base,
            lambda folder: store_content(folder / "new"),
            lambda folder: sound_store(folder / "new"),
        ),
        Command(
            "extract, continued",
            [
                "extract",
                "audio/clip_0.wav",
                "audio/clip_1.wav",
                "audio/clip_4.wav",
                "-o",
                "a",
                "--model",
                "model",
                *quiet,
            ],
            base,
            lambda folder: len(store_content(folder / "a")),
            lambda folder: sound_store(folder / "a"),
        ),
        Command(
            "merge",
            ["merge", "a", "b", "-o", "merged"],
            base,
            lambda folder: store_content(folder / "merged"),
            lambda folder: sound_store(folder / "merged"),
        ),
        Command(
            "pack",
            ["pack", "store", "packed.h5"],
            base,
            lambda folder: store_content(folder / "packed.h5"),
            lambda folder: sound_store(folder / "packed.h5"),
        ),
        *(
            Command(
                f"export {form}",
                ["export", "store", "--to", form, "-o", f"out.{form}"],
                base,
                lambda folder, form=form: file_hash(folder / f"out.{form}") if form == "csv" else 0,
                nothing_half(f"out.{form}"),
            )
            for form in ("csv", "npz")
        ),
        Command(
            "convert",
            ["convert", "model", "converted"],
            base,
            lambda folder: file_hash(folder / "converted/model.safetensors"),
            sound_checkpoint("converted"),
        ),
        Command(
            "probe",
            ["probe", *labelled, "-o", "probe"],
            base,
            lambda folder: json.loads((folder / "probe/report.json").read_text())["uar"],
            nothing_half("probe/report.json", "probe/report.html", "probe/result.png"),
        ),
        Command(
            "train",
            ["train", *labelled, "--layers", "1", "-o", "head"],
            base,
            lambda folder: json.loads((folder / "head/report.json").read_text())["uar"],
            sound_head,
        ),
        Command(
            "evaluate",
            ["evaluate", "trained", *labelled, "-o", "elsewhere"],
            base,
            lambda folder: json.loads((folder / "elsewhere/report.json").read_text())["uar"],
            nothing_half("elsewhere/report.json", "elsewhere/report.html"),
        ),
        Command(
            "predict",
            ["predict", "audio/clip_1.wav", "--model", "model", "--plot", "line.png", *quiet],
            base,
            lambda folder: (folder / "line.png").stat().st_size > 0,
            nothing_half("line.png"),
        ),
    ]
    yield from (
        one for one in commands if not names or one.name in names or one.name.split()[0] in names
    )
