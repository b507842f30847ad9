"""Every command and snippet of the README and of the hosts', run in order as a new user would.

What a test cannot have (the published weights, the user's own recordings) is stood in for by
files of the same names, see ``desk.py``. Nothing is changed but what ``RUN_ELSEWHERE`` names.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
from corpus_trees import build
from desk import write_desk
from family_checkpoints import written

from exhubert_features.checkpoint import write_random_checkpoint
from exhubert_features.cli import main
from exhubert_features.synthetic import write_corpus

PROJECT = Path(__file__).parents[1]
FENCE = re.compile(r"^```(bash|python|yaml)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
RUN_ELSEWHERE = (
    "pip install",  # .ci/run installs this way, into a new environment
    "pytest",  # this is it
    "exhubert demo",  # tests/test_demo.py
    "exhubert bench",  # tests/test_bench.py
    "exhubert export-onnx",  # tests/test_onnx.py; 48 layers take minutes, see write_onnx
)


# What a recipe does with a YAML, where lines refer to names that the recipe has before them.
LOAD_YAML = """
import sys
from hyperpyyaml import load_hyperpyyaml
print(load_hyperpyyaml("save_folder: save\\n" + sys.argv[1]))
"""


class Block(NamedTuple):
    language: str
    text: str
    line: int


def blocks(readme: str) -> list[Block]:
    """Fenced blocks that can be run."""
    return [
        Block(match[1], match[2], readme[: match.start()].count("\n") + 2)
        for match in FENCE.finditer(readme)
    ]


def commands(block: Block) -> str:
    """A shell block without the lines that are run elsewhere."""
    lines = block.text.splitlines()
    return "\n".join(line for line in lines if not line.startswith(RUN_ELSEWHERE))


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working directory with the files that the README speaks of, and an empty home."""
    folder = write_desk(tmp_path_factory.mktemp("desk"))
    (folder / "home").mkdir()
    (folder / "bin").mkdir()
    write_corpus(folder / "corpus", speakers=6, sentences=2)
    write_corpus(folder / "other", speakers=2, sentences=1, seed=1)
    build("emodb", folder / "EMO-DB")
    build("iemocap", folder / "IEMOCAP")
    written(folder / "microsoft/wavlm-large", "wavlm")
    write_corpus(folder / "my-corpus", speakers=2, sentences=1)
    script = folder / "bin/exhubert"  # the entry point, whether or not the package is installed
    script.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m exhubert_features "$@"\n')
    script.chmod(0o755)
    return folder


@pytest.fixture(scope="module")
def environment(desk: Path) -> dict[str, str]:
    return {
        "HOME": str(desk / "home"),
        "PATH": f"{desk / 'bin'}:{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join([str(PROJECT), os.environ.get("PYTHONPATH", "")]),
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",  # quickest for checkpoints as tiny as these
    }


README = (PROJECT / "README.md").read_text(encoding="utf-8")
HOSTS = (PROJECT / "exhubert_features/integrations/README.md").read_text(encoding="utf-8")
# What a block needs, by what it says; without it the block is skipped.
README_NEEDS = {"--engine ray": "ray", "extract_on_ray": "ray"}
NEEDS = {
    "onnx": "onnxscript",
    "integrations.espnet": "espnet2",
    "integrations.lhotse": "lhotse",
    "integrations.nkululeko": "nkululeko",
    "integrations.audinterface": "audinterface",
    "integrations.datasets": "datasets",
    "integrations.mteb": "mteb",
    "integrations.ray_data": "ray",
}


@pytest.mark.slow
@pytest.mark.parametrize("block", blocks(HOSTS), ids=lambda block: f"hosts, line {block.line}")
def test_block_of_a_host_runs(block: Block, desk: Path, environment: dict[str, str]) -> None:
    for words, module in NEEDS.items():
        if words in block.text:
            pytest.importorskip(module)
    if "onnx/model.onnx" in block.text:
        write_onnx(desk)
    test_block_runs(block, desk, environment)


def write_onnx(desk: Path) -> None:
    """What the command before would write, of two layers."""
    source = write_random_checkpoint(desk / "two-layers", layers=2)
    assert main(["export-onnx", str(source), str(desk / "onnx"), "--layers", "2"]) == 0


def test_needs_are_those_of_the_page() -> None:
    assert all(words in HOSTS for words in NEEDS)
    assert all(words in README for words in README_NEEDS)


@pytest.mark.slow
@pytest.mark.parametrize(
    "block", blocks(README), ids=lambda block: f"{block.language} at line {block.line}"
)
def test_block_runs(block: Block, desk: Path, environment: dict[str, str]) -> None:
    for words, module in README_NEEDS.items():
        if words in block.text:
            pytest.importorskip(module)
    if block.language == "bash":
        command = ["bash", "-euo", "pipefail", "-c", commands(block)]
    elif block.language == "yaml":
        command = [sys.executable, "-c", LOAD_YAML, block.text]
    else:
        command = [sys.executable, "-c", block.text]
    result = subprocess.run(
        command, cwd=desk, env=environment, capture_output=True, text=True, timeout=300
    )
    assert result.returncode == 0, f"{block.text}\n{result.stdout}\n{result.stderr}"


def test_the_runner_sees_blocks_and_would_see_a_failure() -> None:
    found = blocks("text\n```bash\nexhubert demo  # all\nfalse\n```\n```toml\na = 1\n```\n")
    assert [(block.language, block.line) for block in found] == [("bash", 3)]
    assert commands(found[0]) == "false"
    assert len(blocks(README)) >= 5


def test_exceptions_are_still_in_use() -> None:
    for name in RUN_ELSEWHERE:
        assert name in README + HOSTS
