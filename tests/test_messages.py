"""Whatever a message of the package tells people to type exists: commands, flags, names, extras.

All texts of the package are read but for its docstrings: errors and their remedies, help, what
commands print. A text tells to type ``exhubert command``, ``--flag``, ``exhubert_features.name``,
``name()``, ``argument=`` or ``exhubert-features[extra]``.
"""

from __future__ import annotations

import argparse
import ast
import re
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from types import ModuleType
from typing import Any, NamedTuple

import pytest
from package_source import PROJECT, Source, arguments, sources

import exhubert_features
from exhubert_features.cli.entry import COMMANDS, build_parser

COMMAND_LINE = re.compile(r"\bexhubert (?!\{)([\w-]+)([^`\n]*)")
FLAG = re.compile(r"(?<![\w(-])--[a-z][a-z-]*")
DOTTED = re.compile(r"\bexhubert_features((?:\.\w+)+)")
CALL = re.compile(r"\b([A-Za-z_][\w.]*)\(\)")
ARGUMENT = re.compile(r"(?<![\w.-])([a-z_]+)=(?![=\s\d])")
EXTRA = re.compile(r"exhubert-features\[(\w+)\]")

OF_TORCH = {"state_dict"}
OTHER_PROGRAM = re.compile(r"\b(?:hf \w|pip install|wsl )[^`\n]*")  # flags of theirs


class Text(NamedTuple):
    """A string of a file that people read; what an f-string fills in is ``{}``."""

    source: Source
    line: int
    words: str
    remedy: bool = False


def texts(source: Source) -> Iterator[Text]:
    """Every string with a space in it, but for docstrings."""
    nodes = source.nodes
    statements = {node.value for node in nodes if isinstance(node, ast.Expr)}
    pieces = {piece for node in nodes if isinstance(node, ast.JoinedStr) for piece in node.values}
    remedies = {
        node.value for node in nodes if isinstance(node, ast.keyword) and node.arg == "remedy"
    }
    for node in nodes:
        if isinstance(node, ast.JoinedStr):
            filled = (
                piece.value if isinstance(piece, ast.Constant) else "{}" for piece in node.values
            )
            words = "".join(map(str, filled))
        elif isinstance(node, ast.Constant) and node not in statements | pieces:
            words = node.value if isinstance(node.value, str) else ""
        else:
            continue
        if " " in words:
            yield Text(source, node.lineno, words, remedy=node in remedies)


@cache
def flags() -> dict[str, set[str]]:
    """Options of each command."""
    found = {}
    for command in COMMANDS:
        parser = build_parser(command)
        (choices,) = (
            action.choices
            for action in parser._actions
            if isinstance(action, argparse._SubParsersAction)
        )
        found[command] = set(choices[command]._option_string_actions)
    return found


@cache
def known_arguments() -> set[str]:
    """Names of arguments of all functions, and of fields of all classes."""
    found = {"top_k"}  # of transformers' pipelines, in the card of a model
    for source in sources().values():
        for node in source.nodes:
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                found.update(arguments(node))
            elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                found.add(node.target.id)
    return found


def resolve(dotted: str) -> Any:
    """What ``.heads.train_head`` is in the package; None if nothing."""
    found: Any = exhubert_features
    for part in dotted.strip(".").split("."):
        name = f"{found.__name__}.{part}" if isinstance(found, ModuleType) else ""
        if name in sources():
            found = import_module(name)
        elif (found := getattr(found, part, None)) is None:
            return None
    return found


def unknown_flags(text: Text) -> list[str]:
    """Flags behind a command that are not its own; others that this file's commands lack."""

    def own(match: re.Match[str]) -> str:
        known = flags().get(match[1], set())
        wrong.extend(f"{match[1]} {flag}" for flag in FLAG.findall(match[2]) if flag not in known)
        return ""

    wrong: list[str] = []
    rest = OTHER_PROGRAM.sub("", COMMAND_LINE.sub(own, text.words))
    command = text.source.path.stem if text.source.unit == "cli" else ""
    known = flags().get(command) or set().union(*flags().values())
    return wrong + [flag for flag in FLAG.findall(rest) if flag not in known]


def unknown(text: Text) -> Iterator[str]:
    """What a text tells to type and does not exist."""
    yield from (name for name, _ in COMMAND_LINE.findall(text.words) if name not in COMMANDS)
    yield from unknown_flags(text)
    for dotted in DOTTED.findall(text.words):
        found = resolve(dotted)
        if found is None or (text.remedy and not callable(found)):  # a module mends nothing
            yield f"exhubert_features{dotted}"
    here = {node.name for node in text.source.functions}
    for called in CALL.findall(text.words):
        public = called.rpartition(".")[2] in {*here, *exhubert_features.__all__, *OF_TORCH}
        if not public and not callable(resolve(called.removeprefix("exhubert_features"))):
            yield f"{called}()"
    yield from (
        f"{name}=" for name in ARGUMENT.findall(text.words) if name not in known_arguments()
    )
    project = (PROJECT / "pyproject.toml").read_text(encoding="utf-8")
    yield from (name for name in EXTRA.findall(text.words) if f"\n{name} = [" not in project)


def test_all_that_messages_name_exists() -> None:
    found = [text for source in sources().values() for text in texts(source)]
    assert sum(bool(FLAG.search(text.words)) for text in found) > 20
    wrong = [
        f"{text.source.name}:{text.line}: {name} in {text.words!r}"
        for text in found
        for name in unknown(text)
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    ("words", "wrong"),
    [
        ("Run `exhubert verify --repair` on it, or use --device cpu", []),
        ("Run `hf download ID --local-dir DIR`, then --device cpu", []),
        ("Run `hf download ID`, then --local-dir DIR", ["--local-dir"]),
        ("exhubert verity STORE", ["verity"]),
        (
            "exhubert verify STORE --repair\nexhubert export STORE --layer 1 --repair",
            ["export --repair"],
        ),
        ("Run `exhubert verify --mend` on it", ["verify --mend"]),
        ("Run `exhubert verify` and then --mend", ["--mend"]),
        ("Read it with exhubert_features.audio", ["exhubert_features.audio"]),
        ("Read it with exhubert_features.audio.read_audio", []),
        ("Read it with exhubert_features.audio.read_adio", ["exhubert_features.audio.read_adio"]),
        ("Load it with load_encoder(), save its state_dict()", []),
        ("Freeze it with freeze_all()", ["freeze_all()"]),
        ("Pass device='cpu', or devise='cpu'", ["devise="]),
        ("pip install 'exhubert-features[parquet]', exhubert-features[all]", ["all"]),
    ],
)
def test_what_does_not_exist_is_seen(words: str, wrong: list[str]) -> None:
    source = sources()["exhubert_features.inference"]
    assert list(unknown(Text(source, 1, words, remedy=True))) == wrong


def test_flags_in_a_command_are_its_own() -> None:
    source = sources()["exhubert_features.cli.verify"]
    assert list(unknown(Text(source, 1, "use --head or --repair"))) == ["--head"]
