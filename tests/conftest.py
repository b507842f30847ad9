"""Fixtures shared by all tests: the golden checkpoint and its golden outputs."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings

os.environ.setdefault("HF_HUB_OFFLINE", "1")
# Before anything imports torch: models as tiny as the tests' are quickest on one thread, and
# on a busy machine two threads waiting for each other take ten times as long.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# While working, few examples; HYPOTHESIS_PROFILE=thorough, as in .ci/run, looks further.
settings.register_profile("quick", max_examples=15, deadline=None)
settings.register_profile("thorough", max_examples=150, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "quick"))

DATA = Path(__file__).parent / "data"
GOLDEN = DATA / "golden"


def give_lazy_modules_a_file() -> None:
    """Keep Hypothesis, which asks every module for its ``__file__``, from importing them.

    SpeechBrain leaves modules in ``sys.modules`` that are imported when first looked at, and
    some of those need packages that are not installed.
    """
    for module in list(sys.modules.values()):
        if type(module).__name__ in ("LazyModule", "DeprecatedModuleRedirect"):
            vars(module).setdefault("__file__", None)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems() -> None:
    give_lazy_modules_a_file()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    give_lazy_modules_a_file()


@pytest.fixture(scope="session")
def tiny_checkpoint() -> Path:
    """Folder of the golden 48-layer checkpoint in the release's own layout (hidden 32)."""
    return GOLDEN / "tiny_checkpoint"


@pytest.fixture(scope="session")
def golden() -> dict[str, np.ndarray]:
    """The reference implementation's inputs and outputs on that checkpoint."""
    with np.load(GOLDEN / "tiny_outputs.npz") as archive:
        return {name: archive[name] for name in archive.files}


@pytest.fixture(scope="session")
def small_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a random 4-layer checkpoint in the release's layout; not to be changed."""
    from exhubert_features.checkpoint import write_random_checkpoint

    folder = tmp_path_factory.mktemp("small") / "checkpoint"
    return write_random_checkpoint(folder, layers=4, layout="release")


@pytest.fixture(scope="session")
def two_layers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a random 2-layer checkpoint in this package's own layout; not to be changed."""
    from exhubert_features.checkpoint import write_random_checkpoint

    return write_random_checkpoint(tmp_path_factory.mktemp("two_layers") / "tiny", layers=2)


@pytest.fixture
def checkpoint_copy(small_checkpoint: Path, tmp_path: Path) -> Path:
    """A copy of it, to be damaged."""
    return Path(shutil.copytree(small_checkpoint, tmp_path / "checkpoint"))
