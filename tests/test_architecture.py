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

# The architecture, bottom up: a unit (a file, or a package) imports only units of lower tiers.
TIERS = (
    {"errors", "version"},
    {"files", "records", "spec", "tables"},
    {"fingerprint"},
    {
        "audio",
        "bootstrap",
        "corpora",
        "metrics",
        "model",
        "report",
        "store",
        "synthetic",
        "waveforms",
    },
    {"bootstrap", "checkpoint", "dataset"},
    {"evaluation"},
    {"heads", "inference"},
    {"extraction"},
    {"prediction"},
    {"encoder"},
    {"bench"},
    {"cli", "integrations", "speechbrain"},
    {"__init__", "__main__"},
)
# Two sides that meet only above them: heads are trained on a store without an encoder at hand
# that could silently make features again.
ENCODER_SIDE = {"audio", "checkpoint", "inference", "model", "waveforms"}
STORE_SIDE = {"dataset", "evaluation", "heads", "report", "store"}
WITHOUT_TORCH = {
    *("errors", "version", "files", "records", "spec", "tables", "fingerprint", "store"),
    *("bootstrap", "corpora", "evaluation", "metrics", "report"),
}


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
    tier = next(index for index, units in enumerate(TIERS) if name in units)
    assert own(path) - {name} <= set().union(*TIERS[:tier])


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_sides_do_not_know_each_other(path: Path) -> None:
    name = name_of(path)
    if name in ENCODER_SIDE:
        assert not own(path) & STORE_SIDE
    if name in STORE_SIDE:
        assert not own(path) & ENCODER_SIDE


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_heavy_and_host_libraries_stay_where_they_belong(path: Path) -> None:
    name = name_of(path)
    if name in WITHOUT_TORCH:
        assert not {module.split(".")[0] for module in imports(path)} & {"torch", "transformers"}
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
