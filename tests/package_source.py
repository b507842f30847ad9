"""The package as syntax trees: what the tests of its shape, docstrings and messages read."""

from __future__ import annotations

import ast
from functools import cache, cached_property
from pathlib import Path
from typing import NamedTuple

PROJECT = Path(__file__).parents[1]
PACKAGE = PROJECT / "exhubert_features"

FUNCTION = (ast.FunctionDef, ast.AsyncFunctionDef)
Function = ast.FunctionDef | ast.AsyncFunctionDef
Definition = Function | ast.ClassDef


class Import(NamedTuple):
    """``from module import name``, or ``import module`` with an empty name; dots resolved."""

    module: str
    name: str
    top_level: bool

    def target(self, modules: dict[str, Source]) -> str:
        """Which of ``modules`` it imports: a module of that name, else where the name stands."""
        names = (f"{self.module}.{self.name}", self.module)
        return next((name for name in names if name in modules), "")


class Source:
    """One file of a package, parsed."""

    def __init__(self, path: Path, package: Path = PACKAGE) -> None:
        self.path, self.package = path, package
        self.text = path.read_text(encoding="utf-8")
        self.tree = ast.parse(self.text)
        self.nodes = tuple(ast.walk(self.tree))
        self.name = path.relative_to(package).as_posix()  # store/writer.py
        self.unit = self.name.split("/")[0].removesuffix(".py")  # store
        parts = (package.name, *path.relative_to(package).with_suffix("").parts)
        self.module = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)

    @cached_property
    def imports(self) -> tuple[Import, ...]:
        """All imports: those inside functions and below ``if TYPE_CHECKING`` too."""
        folder = (self.package.name, *self.path.parent.relative_to(self.package).parts)
        found = []
        for node in self.nodes:
            top = isinstance(node, (ast.Import, ast.ImportFrom)) and node in self.tree.body
            if isinstance(node, ast.Import):
                found.extend(Import(alias.name, "", top) for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                base = folder[: len(folder) - node.level + 1] if node.level else ()
                module = ".".join([*base, *([node.module] if node.module else [])])
                found.extend(Import(module, alias.name, top) for alias in node.names)
        return tuple(found)

    @cached_property
    def public(self) -> tuple[Definition, ...]:
        """Top-level functions and classes without an underscore."""
        kinds = (*FUNCTION, ast.ClassDef)
        nodes = (node for node in self.tree.body if isinstance(node, kinds))
        return tuple(node for node in nodes if not node.name.startswith("_"))

    @cached_property
    def functions(self) -> tuple[Function, ...]:
        """All functions and methods."""
        return tuple(node for node in self.nodes if isinstance(node, FUNCTION))


@cache
def sources(package: Path = PACKAGE) -> dict[str, Source]:
    """Module name → file, for every file of a package."""
    found = (Source(path, package) for path in sorted(package.rglob("*.py")))
    return {source.module: source for source in found}


def code_lines(node: Function) -> int:
    """Lines of a function besides its docstring."""
    lines = (node.end_lineno or node.lineno) - node.lineno + 1
    if ast.get_docstring(node, clean=False) is None:
        return lines
    return lines - ((node.body[0].end_lineno or 0) - node.body[0].lineno + 1)


def arguments(node: Function) -> list[str]:
    """Names of all arguments, ``self`` and ``cls`` too."""
    every = node.args
    stars = [one for one in (every.vararg, every.kwarg) if one]
    return [one.arg for one in (*every.posonlyargs, *every.args, *every.kwonlyargs, *stars)]
