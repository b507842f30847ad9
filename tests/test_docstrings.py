"""Docstrings: examples run, references lead somewhere, and what users call is described."""

from __future__ import annotations

import ast
import doctest
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest
from desk import write_desk
from emotional_store import write_emotional_store
from package_source import FUNCTION, Definition, Function, Source, arguments, sources
from store_fakes import features_of, make_clip, make_fingerprint

import exhubert_features
from exhubert_features import FeatureStore

WITH_EXAMPLES = [name for name, source in sources().items() if ">>> " in source.text]
REFERENCE = re.compile(r":(?:func|class|meth|attr|data|mod):`~?([\w.]+)`")


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files that examples speak of, with features of ``audio/`` and of a labelled corpus."""
    folder = write_desk(tmp_path_factory.mktemp("desk"))
    fingerprint = make_fingerprint(states=49, hidden_size=1024)
    names = [path.name for path in sorted((folder / "audio").iterdir())]
    rows = [features_of(make_clip(name), fingerprint) for name in names]
    FeatureStore.write(folder / "features", rows, fingerprint=fingerprint)
    write_emotional_store(folder / "corpus-features")
    return folder


@pytest.mark.parametrize("name", WITH_EXAMPLES)
def test_examples_run(name: str, desk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(desk)
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    found = doctest.testmod(import_module(name), optionflags=flags)
    assert found.attempted and not found.failed


def test_no_example_is_skipped() -> None:
    assert [name for name in WITH_EXAMPLES if "doctest: +SKIP" in sources()[name].text] == []


def find(module: str, name: str) -> tuple[Source, Definition] | None:
    """Where a name that a module offers is defined, through re-exports."""
    source = sources().get(module)
    if source is None:
        return None
    for node in source.public:
        if node.name == name:
            return source, node
    offered = (one for one in source.imports if one.name == name)
    return next(filter(None, (find(one.module, name) for one in offered)), None)


def methods(source: Source, node: ast.ClassDef) -> Iterator[Function]:
    """What people call of a class, inherited too: public methods, ``__init__``, ``__call__``."""
    for child in node.body:
        special = isinstance(child, FUNCTION) and child.name in ("__init__", "__call__")
        if isinstance(child, FUNCTION) and (special or not child.name.startswith("_")):
            yield child
    for base in node.bases:
        if isinstance(base, ast.Name) and (found := find(source.module, base.id)):
            yield from methods(*found)  # type: ignore[arg-type]


def flaws(node: Function, of: ast.ClassDef | None = None) -> Iterator[str]:
    """What a docstring lacks: itself, an argument of several, what comes back."""
    words = ast.get_docstring(node) or ""
    if of and node.name == "__init__":
        words += ast.get_docstring(of) or ""  # where NumPy's style has the arguments
    decorators = {ast.unparse(one) for one in node.decorator_list}
    names = arguments(node)[1:] if of and "staticmethod" not in decorators else arguments(node)
    if not words:
        yield "no docstring"
    elif len(names) > 1:
        section = re.search(r"^Parameters\n-+\n(.*?)(\n\n\S|\Z)", words, re.DOTALL | re.MULTILINE)
        lines = re.findall(r"^([\w*, ]+)$", section[1], re.MULTILINE) if section else []
        described = {name.strip(" *") for line in lines for name in line.split(",")}
        yield from (f"{name} is not described" for name in names if name not in described)
        nothing = node.returns is None or ast.unparse(node.returns) == "None"
        if not nothing and not re.search(r"^(Returns|Yields)\n-+$", words, re.MULTILINE):
            yield "what it returns is not described"


def undescribed(source: Source, node: Definition) -> Iterator[str]:
    """Flaws of a function, or of all that people call of a class."""
    if not isinstance(node, ast.ClassDef):
        yield from (f"{node.name}: {flaw}" for flaw in flaws(node))
        return
    if not ast.get_docstring(node):
        yield f"{node.name}: no docstring"
    made_elsewhere = "made by :" in (ast.get_docstring(node) or "").lower()
    for method in methods(source, node):
        if method.name == "__init__" and made_elsewhere:
            continue
        yield from (f"{node.name}.{method.name}: {flaw}" for flaw in flaws(method, node))


@pytest.mark.parametrize("name", exhubert_features.__all__)
def test_what_users_call_is_described(name: str) -> None:
    if found := find(exhubert_features.__name__, name):
        assert list(undescribed(*found)) == []
    else:
        assert not callable(getattr(exhubert_features, name))


def test_every_reference_leads_somewhere() -> None:
    names = {name for source in sources().values() for name in names_in(source)}
    lost = [
        f"{source.name}: {reference}"
        for source in sources().values()
        for reference in REFERENCE.findall(source.text)
        if reference.rpartition(".")[2] not in names
    ]
    assert lost == []
    assert names_in(sources()["exhubert_features.errors"]) >= {"UsageError", "exit_code"}
    assert "nothing_of_this_name" not in names


def names_in(source: Source) -> set[str]:
    """Everything that a file defines: functions, classes, attributes and constants."""
    found = {source.module.rpartition(".")[2]}
    for node in source.nodes:
        if isinstance(node, (*FUNCTION, ast.ClassDef)):
            found.add(node.name)
        elif isinstance(node, (ast.Name, ast.Attribute)) and isinstance(node.ctx, ast.Store):
            found.add(node.id if isinstance(node, ast.Name) else node.attr)
    return found


GOOD = '''
def join(one, two) -> str:
    """Join two texts.

    Parameters
    ----------
    one, two
        Any text.

    Returns
    -------
    str
        Both.
    """
'''


@pytest.mark.parametrize(
    ("text", "flaw"),
    [
        (GOOD, ""),
        ("def join(one): ...", "no docstring"),
        (GOOD.replace("one, two\n", "one\n"), "two is not described"),
        (GOOD.replace("Returns", "Results"), "what it returns is not described"),
        ('def join(one):\n    """Join it."""', ""),
        ('def join(one, two):\n    """Join one, two."""', "one is not described"),
    ],
)
def test_a_flaw_is_seen(text: str, flaw: str) -> None:
    (node,) = ast.parse(text).body
    assert isinstance(node, ast.FunctionDef)
    assert next(flaws(node), "") == flaw
