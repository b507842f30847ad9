"""The commands that write, each on a small prepared folder, and what they promise."""

from __future__ import annotations

import contextlib
import io
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import soundfile
from outcomes import (
    Outcome,
    Sound,
    file_hash,
    files_of_demo,
    nothing_half,
    recovered,
    repaired,
    sound_checkpoint,
    sound_head,
    sound_repair,
    sound_store,
    sound_training,
    store_content,
    training,
    uar,
)

from exhubert_features.cli import main


@dataclass
class Command:
    """One command line, working in a copy of the folder ``prepared``.

    See ``outcomes.py`` for what it made, and for what one that failed may leave.
    """

    name: str
    words: str
    prepared: Path
    outcome: Callable[[Path], Outcome]
    sound: Sound
    program: Callable[[list[str]], int] = main
    expected: Outcome = field(default=None)

    @property
    def arguments(self) -> list[str]:
        return self.words.split()


def fine_tune(arguments: list[str]) -> int:
    """Save checkpoints as the recipes' training does, after each of four epochs; go on with them.

    Four, so that the best is not the last and older ones are deleted.
    """
    try:
        epochs, checkpointer, head = training(Path(arguments[0]))
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


def repair(arguments: list[str]) -> int:
    """`exhubert verify --repair`, which ends with 4 also when all is repaired; 0 then."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        code = main(arguments)
    print(said.getvalue())
    if "repaired: " in said.getvalue() or (code == 0 and "all is well" in said.getvalue()):
        return 0
    print("failed: not all is repaired", file=sys.stderr)
    return code or 1


def make_demo(arguments: list[str]) -> int:
    """`exhubert demo` without the commands it runs, each in a process: they are swept here."""
    from exhubert_features.cli import demo

    demo.SPEAKERS, demo.SENTENCES = 1, 1
    demo.steps = lambda folder: []
    demo._summarise = lambda folder, seconds: None
    return main(arguments)


def write_audio(folder: Path) -> None:
    folder.mkdir()
    chance = np.random.default_rng(0)
    for number in range(6):
        tone = np.sin(np.arange(6000 + 500 * number) * (0.05 + 0.01 * number))
        wave = (0.2 * tone + 0.01 * chance.normal(size=len(tone))).astype("f4")
        soundfile.write(folder / f"clip_{number}.wav", wave, 16_000)
    (folder / "broken.wav").write_bytes(b"no audio")
    rows = [f"clip_{n}.wav,s{n % 3},{'calm' if n % 2 else 'angry'}" for n in range(6)]
    table = "\n".join(["file,speaker,emotion", *rows]) + "\n"
    (folder / "manifest.csv").write_text(table)
    corpus = folder.parent / "corpus"
    shutil.copytree(folder, corpus, ignore=shutil.ignore_patterns("broken.wav", "manifest.csv"))
    (corpus / "table.csv").write_text(table)


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
        f"extract {base}/audio/manifest.csv -o {base}/several --shard-clips 2",
    ]
    commands = [f"{words} --model {base}/model --device cpu" for words in commands]
    commands += [f"train {base}/store {LABELS} --layers 1 -o {base}/trained"]
    for words in commands:
        code = main(words.split())
        if code not in (0, 3):
            raise RuntimeError(f"{words} ended with {code}")
    shutil.copytree(base / "several", base / "damaged")
    path = sorted((base / "damaged" / "shards").iterdir())[1]
    content = bytearray(path.read_bytes())
    content[-100] ^= 1
    path.write_bytes(content)


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
    yield Command(
        "repair",
        "verify --repair damaged",
        base,
        repaired,
        sound_repair(base / "several", base / "damaged"),
        program=repair,
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
    yield Command(
        "prepare",
        "prepare generic corpus --table corpus/table.csv -o made.csv",
        base,
        lambda folder: file_hash(folder / "made.csv"),
        nothing_half("made.csv"),
    )
    yield Command(
        "demo",
        "demo -o demo",
        base,
        files_of_demo,
        sound_checkpoint("demo/checkpoint"),
        program=make_demo,
    )
    yield Command("fine-tune", "save", base, recovered, sound_training, program=fine_tune)
