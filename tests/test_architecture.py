"""Which way imports point, what importing costs, one name for one thing, and how long files may be.

Each rule is a function from a package's files to its breaches. It is held against the package, and
against a small one that breaks it.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from statistics import median

import pytest
from package_source import PACKAGE, PROJECT, Definition, Function, Source, code_lines, sources

Modules = dict[str, Source]
Rule = Callable[[Modules], list[str]]

FILE_LINES = 400
FUNCTION_LINES = 60  # besides the docstring
LONG_FUNCTION, LONG_SHARE = 30, 0.05  # at most one function in twenty is longer than that
MEDIAN_LINES = 12

HOSTS = {
    *("speechbrain", "torchaudio", "transformers", "s3prl", "lhotse", "audinterface"),
    *("espnet2", "nkululeko", "datasets", "mteb", "onnx", "onnxruntime", "onnxscript", "opensmile"),
    "ray",
}
HOST_UNITS = {"speechbrain", "integrations", "cluster"}
# The architecture, bottom up: a unit (a file, or a folder) imports only units of lower tiers.
TIERS = (
    {"errors", "version"},
    {"files", "records", "register", "spec", "suffixes"},
    {"stamps", "tables"},
    {"fingerprint", "frames", "windows"},
    {"audio", "corpora", "model", "store", "synthetic", "waveforms"},
    {"report"},
    {"checkpoint", "dataset", "evaluation", "precision"},
    {"heads", "inference", "trainable"},
    {"extraction"},
    {"prediction"},
    {"encoder"},
    {"bench", "cluster"},
    {"cli", "integrations", "speechbrain"},
    {"__init__", "__main__"},
)
# Two sides that meet only above them: heads are trained on a store without an encoder at hand
# that could silently make features again.
ENCODER_SIDE = {"audio", "checkpoint", "inference", "model", "precision", "waveforms"}
STORE_SIDE = {"dataset", "evaluation", "heads", "report", "store"}
WITHOUT_TORCH = {
    *(
        "errors",
        "version",
        "files",
        "records",
        "register",
        "spec",
        "tables",
        "fingerprint",
        "store",
    ),
    *("frames", "stamps", "suffixes", "windows"),
    *("corpora", "evaluation", "report"),
}
# Names that stand more than once on purpose: what is looked up in every file of a folder.
EACH_HAS = {
    "cli/": {"add_arguments", "run"},
    "corpora/known/": {"describe", "load"},
    "integrations/": {"register", "Exhubert"},  # nkululeko finds the class by the name of its type
}


def own_imports(source: Source, modules: Modules) -> Iterator[str]:
    """Modules of the package that a file imports, the root left out."""
    for one in source.imports:
        target = one.target(modules)
        if "." in target:
            yield target


def roots(names: Iterable[str]) -> set[str]:
    return {name.split(".")[0] for name in names}


def imports_up(modules: Modules) -> list[str]:
    tier = {unit: height for height, units in enumerate(TIERS) for unit in units}
    return [
        f"{source.name} imports {target}"
        for source in modules.values()
        for target in own_imports(source, modules)
        if modules[target].unit != source.unit and tier[modules[target].unit] >= tier[source.unit]
    ]


def units_without_a_tier(modules: Modules) -> list[str]:
    return sorted({source.unit for source in modules.values()} - set().union(*TIERS))


def sides_that_know_each_other(modules: Modules) -> list[str]:
    return [
        f"{source.name} imports {target}"
        for source in modules.values()
        for target in own_imports(source, modules)
        for one, other in ((ENCODER_SIDE, STORE_SIDE), (STORE_SIDE, ENCODER_SIDE))
        if source.unit in one and modules[target].unit in other
    ]


def heavy_and_host_libraries(modules: Modules) -> list[str]:
    found = []
    for source in modules.values():
        every = roots(one.module for one in source.imports)
        at_top = roots(one.module for one in source.imports if one.top_level)
        heavy = every & {"torch", "transformers"} if source.unit in WITHOUT_TORCH else set()
        hosts = set() if source.unit in HOST_UNITS else at_top & HOSTS
        found.extend(f"{source.name} imports {name}" for name in sorted(heavy | hosts))
    return found


def circles(modules: Modules) -> list[str]:
    """Files that import each other, be it inside functions or for type checking only."""
    graph = {name: {*own_imports(source, modules)} for name, source in modules.items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return [" → ".join(error.args[1])]
    return []


def imports_of_the_root(modules: Modules) -> list[str]:
    return [
        f"{source.name} imports {one.name or one.module} from the root"
        for source in modules.values()
        if source.unit not in TIERS[-1]
        for one in source.imports
        if one.target(modules) == source.package.name
    ]


def named_like_their_folder(modules: Modules) -> list[str]:
    return [
        source.name for source in modules.values() if source.path.stem == source.path.parent.name
    ]


def looked_up(source: Source, name: str) -> bool:
    return any(
        source.name.startswith(folder) and name in names for folder, names in EACH_HAS.items()
    )


def names_that_stand_twice(modules: Modules) -> list[str]:
    homes = defaultdict(list)
    for source in modules.values():
        for node in source.public:
            if not looked_up(source, node.name):
                homes[node.name].append(source.name)
    return [f"{name}: {', '.join(files)}" for name, files in homes.items() if len(files) > 1]


def long_files(modules: Modules) -> list[str]:
    lengths = {source.name: len(source.text.splitlines()) for source in modules.values()}
    return [f"{name}: {lines} lines" for name, lines in lengths.items() if lines > FILE_LINES]


def long_functions(modules: Modules) -> list[str]:
    lengths = {
        f"{source.name}:{node.lineno} {node.name}": code_lines(node)
        for source in modules.values()
        for node in source.functions
    }
    found = [f"{name}: {lines}" for name, lines in lengths.items() if lines > FUNCTION_LINES]
    over = [f"{name}: {lines}" for name, lines in lengths.items() if lines > LONG_FUNCTION]
    if len(over) > LONG_SHARE * len(lengths):
        found.append(f"{len(over)} of {len(lengths)} over {LONG_FUNCTION}: {', '.join(over)}")
    if lengths and median(lengths.values()) > MEDIAN_LINES:
        found.append(f"half of all functions are over {median(lengths.values())} lines")
    return found


RULES: dict[Rule, dict[str, str]] = {  # with a package that breaks it
    imports_up: {"spec.py": "def late():\n    from .store import reader"},
    units_without_a_tier: {"attic.py": ""},
    sides_that_know_each_other: {"store/reader.py": "from ..audio import reading"},
    heavy_and_host_libraries: {"store/reader.py": "def late():\n    import torch.nn"},
    circles: {
        "store/reader.py": "from .writer import Writer",
        "store/writer.py": "if TYPE_CHECKING:\n    from . import reader",
    },
    imports_of_the_root: {"spec.py": "from . import __version__"},
    named_like_their_folder: {"store/store.py": ""},
    names_that_stand_twice: {"spec.py": "class Row: ...", "store/reader.py": "def Row(): ..."},
    long_files: {"spec.py": "\n" * (FILE_LINES + 1)},
    long_functions: {"spec.py": "def long():\n" + "    print()\n" * FUNCTION_LINES},
}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_package_keeps_to(rule: Rule) -> None:
    assert rule(sources()) == []


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_a_breach_is_seen_of(rule: Rule, tmp_path: Path) -> None:
    package = tmp_path / PACKAGE.name
    files = {"__init__.py": "", "spec.py": "", "audio/reading.py": "", "store/reader.py": ""}
    for name, text in files.items():
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_text(text, encoding="utf-8")
    assert rule(sources(package)) == []
    sources.cache_clear()
    for name, text in RULES[rule].items():
        (package / name).write_text(text, encoding="utf-8")
    assert rule(sources(package)) != []
    sources.cache_clear()


def test_what_the_rules_speak_of_exists() -> None:
    units = {source.unit for source in sources().values()}
    assert set().union(*TIERS) == units
    assert units >= ENCODER_SIDE | STORE_SIDE | WITHOUT_TORCH


def signatures(source: Source) -> Iterator[ast.AST]:
    """Annotations of a file's public functions, methods and fields."""

    def of_function(node: Function) -> Iterator[ast.AST]:
        yield from (one.annotation for one in ast.walk(node.args) if isinstance(one, ast.arg))
        yield node.returns

    def of(node: Definition | ast.stmt) -> Iterator[ast.AST]:
        if isinstance(node, ast.ClassDef):
            for child in node.body:
                yield from of(child)
        elif isinstance(node, ast.AnnAssign):
            yield node.annotation
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield from of_function(node)

    for node in source.public:
        yield from (annotation for annotation in of(node) if annotation)


def used_elsewhere(readers: Iterable[Source], modules: Modules) -> set[tuple[str, str]]:
    """Pairs (module, name) that another file imports, or reads as an attribute of the module."""
    used = set()
    for source in readers:
        aliases = {}
        for one in source.imports:
            target = one.target(modules)
            if target == f"{one.module}.{one.name}":
                aliases[one.name] = target
            used.add((target, one.name))
        for node in source.nodes:
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                used.add((aliases.get(node.value.id, ""), node.attr))
    return used


def public_without_need(modules: Modules, readers: Iterable[Source]) -> list[str]:
    """Definitions that no other file uses and neither a signature nor a docstring names."""
    used = used_elsewhere(readers, modules)
    found = []
    for source in modules.values():
        named = {
            node.id
            for annotation in signatures(source)
            for node in ast.walk(annotation)
            if isinstance(node, ast.Name)
        }
        named.update(re.findall(r":(?:class|func):`(\w+)`", source.text))
        found.extend(
            f"{source.name}: {node.name}"
            for node in source.public
            if node.name not in named
            and (source.module, node.name) not in used
            and not looked_up(source, node.name)
        )
    return found


def test_what_only_its_own_file_uses_is_private() -> None:
    modules = sources()
    readers = [
        Source(path, PROJECT)
        for name in ("recipes", "tests")
        for path in (PROJECT / name).rglob("*.py")
    ]
    count = sum(len(source.public) for source in modules.values())
    alone = public_without_need(modules, modules.values())
    found = public_without_need(modules, [*modules.values(), *readers])
    print(f"{count} public definitions; no other file of the package uses {len(alone)} of them")
    assert found == []


def test_what_is_public_without_need_is_seen(tmp_path: Path) -> None:
    package = tmp_path / PACKAGE.name
    (package / "store").mkdir(parents=True)
    (package / "store/reader.py").write_text(
        "class Row: ...\nclass Key: ...\ndef read() -> Row: ...\ndef look(): ...\ndef _look(): ..."
    )
    (package / "spec.py").write_text("from .store import reader\nreader.read()")
    modules = sources(package)
    found = public_without_need(modules, modules.values())
    assert found == ["store/reader.py: Key", "store/reader.py: look"]


def run(code: str) -> str:
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_importing_the_package_is_light() -> None:
    code = (
        "import sys, exhubert_features; print(sorted({name.split('.')[0] for name in sys.modules}))"
    )
    loaded = run(code)
    for heavy in ("torch", "numpy", "transformers", "speechbrain", "torchaudio", "h5py"):
        assert f"'{heavy}'" not in loaded


def test_help_imports_no_heavy_library() -> None:
    code = (
        "import sys\nfrom exhubert_features.cli import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
        "print([n for n in ('torch', 'numpy', 'transformers', 'h5py') if n in sys.modules])"
    )
    assert run(code).strip().endswith("[]")


@pytest.mark.slow
def test_core_works_without_torchaudio_and_speechbrain(tiny_checkpoint: Path) -> None:
    code = f"""
import sys
sys.modules["torchaudio"] = sys.modules["speechbrain"] = None
import numpy
from exhubert_features import load_encoder
output = load_encoder({str(tiny_checkpoint)!r}, device="cpu")(numpy.ones(16000, "float32"))
print(tuple(output.layers.shape))
"""
    assert run(code).strip() == "(49, 1, 149, 32)"


def test_public_names_resolve() -> None:
    import exhubert_features

    for name in exhubert_features.__all__:
        assert getattr(exhubert_features, name) is not None
