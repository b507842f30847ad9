"""Which way imports point, what importing costs, and how long files may be."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "exhubert_features"
FILES = sorted(PACKAGE.rglob("*.py"))
HOSTS = {"speechbrain", "torchaudio", "transformers", "s3prl", "lhotse", "audinterface"}

# What a file may import from this package; files not listed may import anything but the
# entry points. Data flows one way, and so do imports.
ALLOWED: dict[str, set[str]] = {
    "errors": set(),
    "records": {"errors"},
    "spec": {"errors"},
    "config": {"errors"},
    "metrics": {"errors"},
    "windows": {"errors", "spec", "records"},
    "pooling": {"errors", "spec", "records"},
    "resampling": {"errors", "spec"},
    "truncation": set(),
    "audio": {"errors", "spec", "resampling", "truncation"},
    "manifest": {"errors", "records"},
    "planning": {"errors", "spec", "records", "audio", "manifest"},
    "layers": {"config"},
    "modeling": {"errors", "spec", "config", "layers"},
    "waveforms": {"errors", "spec"},
}
ENTRY_POINTS = {"cli", "commands", "speechbrain", "integrations"}


def imports(path: Path, *, top_level_only: bool = False) -> set[str]:
    """Modules a file imports; ours as ``exhubert_features.<name>``."""
    tree = ast.parse(path.read_text())
    nodes = tree.body if top_level_only else list(ast.walk(tree))
    folder = path.parent.relative_to(PACKAGE.parent).parts
    found = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = folder[: len(folder) - node.level + 1] if node.level else ()
            prefix = ".".join([*base, *([node.module] if node.module else [])])
            found.add(prefix)
            found.update(f"{prefix}.{alias.name}" for alias in node.names)
    return found


def unit(module: str) -> str:
    """``exhubert_features.store.reader`` is part of ``store``."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else ""


def own(path: Path) -> set[str]:
    names = {path.stem for path in FILES} | {path.parent.name for path in FILES}
    found = {unit(name) for name in imports(path) if name.startswith("exhubert_features.")}
    return found & names


def name_of(path: Path) -> str:
    first = path.relative_to(PACKAGE).parts[0]
    return first.removesuffix(".py")


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_down(path: Path) -> None:
    name = name_of(path)
    if name in ALLOWED:
        assert own(path) <= ALLOWED[name] | {name}
    if name not in ENTRY_POINTS | {"__main__", "__init__"}:
        assert not own(path) & ENTRY_POINTS


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_forbidden_imports(path: Path) -> None:
    name = name_of(path)
    external = {module.split(".")[0] for module in imports(path)}
    if name in {"store", "metrics", "records", "spec", "errors", "config"}:
        assert not external & {"torch", "transformers"}
    if name == "extraction":
        assert "store" not in own(path)
    if name in {"dataset", "labels", "splits", "heads", "training", "probe", "report"}:
        assert not own(path) & {"encoder", "modeling", "checkpoint", "extraction", "audio"}
    if name not in {"speechbrain", "integrations"}:
        at_top = {module.split(".")[0] for module in imports(path, top_level_only=True)}
        assert not at_top & HOSTS


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_files_stay_small(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 400


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


def test_core_works_without_torchaudio_and_speechbrain(tiny_checkpoint: Path) -> None:
    code = f"""
import sys
sys.modules["torchaudio"] = sys.modules["speechbrain"] = None
import numpy
from exhubert_features import load_encoder
output = load_encoder({str(tiny_checkpoint)!r}, device="cpu")(numpy.ones(16000, "float32"))
print(tuple(output.layers.shape))
"""
    assert run(code).strip() == "(49, 1, 49, 32)"


def test_public_names_resolve() -> None:
    import exhubert_features

    for name in exhubert_features.__all__:
        assert getattr(exhubert_features, name) is not None
