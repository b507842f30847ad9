"""Names out of files, shown: a terminal obeys none of them, a page runs none, a table none."""

from __future__ import annotations

import csv
import io
import json
import re
from html import unescape
from pathlib import Path

import numpy as np
import pytest
import soundfile

from exhubert_features import FeatureStore
from exhubert_features.checkpoint import write_random_checkpoint
from exhubert_features.cli import main

# Escape sequences, C1 controls that are ones, right-to-left marks, a bell, a line separator.
HOSTILE = "\x1b[31m\x9b2J\u202eevil\u2066\x07\u2028"
STORABLE = "\x9b2J\u202eevil\u2066\u2028"  # ids hold no C0 controls
COLUMN = f"mood{HOSTILE}x"
FORBIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Audio, a manifest, a model, a store and a head, all of which have hostile names."""
    folder = tmp_path_factory.mktemp("hostile")
    chance = np.random.default_rng(0)
    rows = []
    for number in range(12):
        name = f"clip{number}{STORABLE}.wav"
        tone = np.sin(np.arange(8_000) * (0.05 if number % 2 else 0.2))
        wave = (0.2 * tone + 0.01 * chance.normal(size=8_000)).astype("f4")
        soundfile.write(folder / "tone.wav", wave, 16_000)
        (folder / "tone.wav").rename(folder / name)
        label = f"angry{HOSTILE}" if number % 2 else "=calm()"
        speaker = f"s{number % 4}{HOSTILE}"
        rows.append({"id": f"{number}{STORABLE}", "file": name, "speaker": speaker, COLUMN: label})
    rows.append({"id": f"gone{STORABLE}", "file": f"gone{HOSTILE}.wav"})
    rows.append({"id": f"late{STORABLE}", "file": rows[0]["file"], "start": f"soon{HOSTILE}"})
    (folder / "manifest.json").write_text(json.dumps(rows))
    write_random_checkpoint(folder / f"model{STORABLE}", layers=2, classes=("a\x1b[2J", "b\u202e"))
    return folder


COMMANDS = {
    "extract": "extract {folder}/manifest.json -o {store} --model {model} --device cpu",
    "inspect": "inspect {store}",
    "inspect for machines": "inspect {store} --json",
    "verify": "verify {store}",
    "pack": "pack {store} {folder}/packed{name}.h5",
    "merge": "merge {store} {store} -o {folder}/merged{name}",
    "export": "export {store} --to csv -o {folder}/out{name}.csv",
    "probe": "probe {store} --target {mood} --group speaker -o {folder}/probe{name}",
    "train": "train {store} --target {mood} --group speaker --layers 1 -o {folder}/head{name}",
    "no such place": "train {store} --target {mood} --group speaker -o {folder}/head{name}",
    "evaluate": "evaluate {folder}/head{name} {store} --target {mood} --group speaker "
    "-o {folder}/evaluated{name}",
    "compare": "compare {folder}/head{name} {folder}/probe{name} -o {folder}/table{name}",
    "predict": "predict {clip} --model {model} --device cpu",
    "predict by a head": "predict {clip} --head {folder}/head{name} --model {model} --device cpu",
    "predict to a file": "predict {clip} --model {model} --device cpu -o {folder}/p{name}.csv",
    "plot": "predict {clip} --model {model} --device cpu --plot {folder}/p{name}.png",
    "no such store": "inspect {folder}/absent{name}",
    "no such file": "predict {folder}/absent{name}.wav --model {model} --device cpu",
    "no such model": "predict {clip} --model {folder}/absent{name}",
    "no such column": "probe {store} --target {name} --group speaker -o {folder}/x",
    "no such class": "train {store} --target {mood} --group speaker --labels {name} -o {folder}/x",
    "no such layer": "export {store} --layers {name}",
    "no such command": "{name}",
    "no such option": "inspect {store} --{name}",
}


def words(command: str, folder: Path) -> list[str]:
    return [
        word.format(
            folder=folder,
            store=folder / f"store{STORABLE}",
            model=folder / f"model{STORABLE}",
            clip=folder / f"clip1{STORABLE}.wav",
            mood=COLUMN,
            name=STORABLE,
        )
        for word in COMMANDS[command].split()
    ]


@pytest.mark.slow
def test_no_door_lets_a_terminal_be_told_what_to_do(
    folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    leaks = []
    for command in COMMANDS:
        try:
            code = main(words(command, folder))
        except SystemExit as stopped:
            code = int(stopped.code or 0)
        said = capfd.readouterr()
        for stream, text in (("stdout", said.out), ("stderr", said.err)):
            if found := FORBIDDEN.search(text):
                place = text[max(0, found.start() - 80) : found.end() + 20]
                leaks.append(f"{command} ({code}), {stream}: {place!a}")
        if "Traceback" in said.err:
            leaks.append(f"{command}: {said.err[-300:]}")
        if not command.startswith("no such") and code not in (0, 3):
            leaks.append(f"{command} ended with {code}: {said.err[-300:]!a}")
    assert not leaks, "\n".join(leaks)
    for page in folder.rglob("*.html"):
        text = page.read_text()
        for shown in (text, unescape(re.sub("<[^>]*>", " ", text))):
            assert not FORBIDDEN.search(shown), f"{page}: {FORBIDDEN.search(shown)!a}"
    for table in folder.rglob("*.csv"):
        for row in csv.reader(io.StringIO(table.read_text(), newline="")):
            assert not [cell for cell in row if cell[:1] in "=@\t" and cell], f"{table}: {row}"
    assert len(FeatureStore(folder / f"store{STORABLE}")) == 12
