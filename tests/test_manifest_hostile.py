"""Manifests as they come: each row is read, or a failure with its line, or the file an error."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
from read_plans import Found, read_plan

from exhubert_features import FeatureStore
from exhubert_features.checkpoint import write_random_checkpoint
from exhubert_features.cli import main
from exhubert_features.errors import UsageError

MANIFESTS = Path(__file__).parent / "data" / "hostile" / "manifests"
GONE, PART = "gone.wav cannot be opened", "no part from 0 to"  # faults of the audio, not the table
NAMES = sorted(path.name for path in MANIFESTS.iterdir())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All manifests beside the one recording that they name."""
    folder = tmp_path_factory.mktemp("manifests")
    noise = np.random.default_rng(0).normal(0, 0.1, 8_000).astype(np.float32)
    soundfile.write(folder / "ok.wav", noise, 16_000)
    shutil.copytree(MANIFESTS, folder, dirs_exist_ok=True)
    return folder


def read(path: Path) -> Found | str:
    try:
        return read_plan(path)
    except UsageError as error:
        return str(error)


@pytest.mark.parametrize("name", NAMES)
def test_all_is_read_or_told(folder: Path, name: str, capfd: pytest.CaptureFixture[str]) -> None:
    plan = read(folder / name)
    if isinstance(plan, str):
        assert main(["extract", str(folder / name), "-o", str(folder / "none")]) == 2
        said = capfd.readouterr().err
        assert said.startswith("exhubert: error: ") and str(folder) in said and len(said) < 1000
    else:
        assert all(failure.reason for failure in plan.failures)
        assert all(failure.id.isprintable() for failure in plan.failures if failure.kind != "id")


@pytest.mark.slow
def test_what_is_not_stored_shows_in_the_exit_code(folder: Path, tmp_path: Path) -> None:
    model = write_random_checkpoint(tmp_path / "model", layers=2)
    plans = {name: read(folder / name) for name in NAMES}
    for name, plan in plans.items():
        if isinstance(plan, Found):
            store = tmp_path / f"{name}.store"
            arguments = ["extract", str(folder / name), "-o", str(store), "--model", str(model)]
            assert main([*arguments, "--device", "cpu"]) == (3 if plan.failures else 0), name
            assert len(FeatureStore(store)) == len(plan.clips), name


@pytest.mark.parametrize(
    ("name", "clips", "failures"),
    [
        ("nul_in_name.csv", 1, {"nul": "line 3", "id\\x00nul": "line 4"}),
        ("nul.json", 1, {"nul": "item 2", "meta": "item 3"}),
        ("surrogate.json", 1, {"half": "item 2", "\\udc80": "item 3", "meta": "item 4"}),
        ("digits.json", 1, {"long": "item 2"}),
        (
            "positions.json",
            1,
            {"list": "item 2", "dict": "item 3", "minus": "item 4", "bool": "item 5",
             "long": "item 6"},
        ),
        ("positions_nan.json", 1, {"nan": "item 2", "inf": "item 3", "1e999": "item 4"}),
        (
            "positions.csv",
            1,
            {"nan": "line 3", "inf": "line 4", "minus": "line 5", "long": "line 6",
             "huge": "line 7", "word": "line 8", "end": "line 9", "1e308": PART,
             "backwards": "line 11", "hex": "line 12", "arabic": "line 13", "under": "line 14"},
        ),
        ("samples.csv", 2, {"long": "line 3", "minus": "line 4", "1e308": PART}),
        ("huge_field.csv", 1, {"line 3": "line 3"}),
        ("stray_quote.csv", 2, {"line 3": "line 3"}),
        ("quoted_line.csv", 2, {}),
        ("wide.csv", 1, {"wide": "line 3", "narrow": "line 4"}),
        ("carriage_returns.csv", 2, {"gone": GONE}),
        ("mixed_ends.csv", 2, {"gone": GONE}),
        ("bom.csv", 2, {}),
        ("bom.json", 1, {}),
        ("two_boms.csv", 2, {}),
        ("utf16.csv", 2, {}),
        ("semicolons.csv", 1, {"comma": "line 3"}),
        ("id_kinds.json", 6, {}),
    ],
)  # fmt: skip
def test_rows_that_cannot_be_used(
    folder: Path, name: str, clips: int, failures: dict[str, str]
) -> None:
    plan = read_plan(folder / name)
    assert len(plan.clips) == clips
    found = {failure.id: failure.reason for failure in plan.failures}
    assert found.keys() == failures.keys()
    for failure, word in failures.items():
        assert word in found[failure]
        assert name in found[failure] or word in (GONE, PART)
        assert len(found[failure]) < 400


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("unclosed_quote.csv", "the quotes that open in line 3 are not closed.*Close them"),
        ("repeated_key.json", "the key 'a' stands twice"),
        ("repeated_column.json", "the key 'file' stands twice"),
        ("repeated_known.json", "several columns named 'file'"),
        ("deep.json", "nested too deeply"),
        ("deep_objects.json", "nested too deeply"),
        ("latin1.csv", "byte 0xfc in line 2. Save it as UTF-8"),
        ("latin1.json", "byte 0xfc in line 1. Save it as UTF-8"),
        ("utf16le_without_mark.csv", "UTF-16 without its mark.*Save it as UTF-8"),
        ("utf16be_without_mark.csv", "UTF-16 without its mark.*Save it as UTF-8"),
        ("utf16_without_mark.json", "UTF-16 without its mark.*Save it as UTF-8"),
        ("utf32.csv", "like UTF-32. Save it as UTF-8"),
        ("utf16_odd.csv", "Save it as UTF-8"),
        ("pipes.csv", "with commas, semicolons or tabs between"),
        ("key_surrogate.json", "a column named '.ud800'"),
    ],
)
def test_files_that_cannot_be_used(folder: Path, name: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        read_plan(folder / name)
