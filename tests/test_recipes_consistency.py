"""What SpeechBrain's own consistency tests ask of recipes, so that a folder could be offered."""

from __future__ import annotations

import ast
import csv
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TABLES = sorted((ROOT / "tests" / "recipes").glob("*.csv"))
COLUMNS = (
    "Task,Dataset,Script_file,Hparam_file,Data_prep_file,Readme_file,Result_url,HF_repo,"
    "test_debug_flags,test_debug_checks,performance"
)
OF_BRAIN = {"precision", "ckpt_interval_minutes", "grad_accumulation_factor"}  # it reads them


def rows(table: Path) -> list[dict[str, str]]:
    with table.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream, skipinitialspace=True))


def unused(text: str, script: str) -> set[str]:
    """Names at the left edge of a YAML that neither the YAML itself nor the script uses."""
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    names = {
        line.partition(":")[0] for line in lines if re.match(r"\w+:", line) and "!apply" not in line
    }
    referred = set(re.findall(r"<(\w+)", "\n".join(line for line in lines if "!ref" in line)))
    return {
        name
        for name in names - referred - OF_BRAIN
        if not re.search(rf'\["{name}"\]|\b(hparams|modules)\.{name}\b', script)
    }


def undocumented(script: str) -> list[str]:
    tree = ast.parse(script)
    return [
        getattr(node, "name", "the file")
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
        and not getattr(node, "name", "").startswith("_")
        # Theirs reads line by line, and passes over those with three dots.
        and "..." in ((ast.get_docstring(node) or "...").splitlines()[0])
    ]


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.stem)
def test_table_names_every_yaml_and_files_that_exist(table: Path) -> None:
    assert table.read_text(encoding="utf-8").splitlines()[0] == COLUMNS
    listed = {row["Hparam_file"] for row in rows(table)}
    there = (ROOT / "recipes" / table.stem).rglob("*.yaml")
    assert {path.relative_to(ROOT).as_posix() for path in there} == listed
    for row in rows(table):
        for column in ("Script_file", "Hparam_file", "Readme_file"):
            assert (ROOT / row[column]).is_file(), row[column]
        assert not row["Data_prep_file"] or (ROOT / row["Data_prep_file"]).is_file()
        assert row["test_debug_flags"], row["Hparam_file"]
        readme = (ROOT / row["Readme_file"]).read_text(encoding="utf-8")
        for column in ("Result_url", "HF_repo"):
            assert all(link in readme for link in row[column].split())


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.stem)
def test_scripts_use_every_line_of_their_yaml(table: Path) -> None:
    for row in rows(table):
        text, script = (
            (ROOT / row[column]).read_text("utf-8") for column in ("Hparam_file", "Script_file")
        )
        assert unused(text, script) == set(), row["Hparam_file"]


def test_everything_in_the_recipes_is_documented() -> None:
    for path in (ROOT / "recipes").rglob("*.py"):
        assert undocumented(path.read_text(encoding="utf-8")) == [], path


def test_breaches_are_seen() -> None:
    text = "used: 1\nread: 2\nlost: 3\nmodel: !new:x\n    size: !ref <used>\n__seed: !apply:y"
    assert unused(text, 'hparams["read"], hparams.model') == {"lost"}
    assert undocumented('"""A file."""\ndef f():\n    """Give ..."""\ndef g(): pass') == ["f", "g"]


def test_recipes_are_written_with_speechbrains_settings() -> None:
    """Held to by `ruff check` and `ruff format` of the whole repository."""
    settings = (ROOT / "recipes" / "ruff.toml").read_text(encoding="utf-8")
    assert "line-length = 80" in settings and 'known-first-party = ["speechbrain"]' in settings
