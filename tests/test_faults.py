"""One system call fails, at any place of any command that writes: nothing lost, nothing half."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from faults.power import missing

SERVER = Path(__file__).parent / "faults" / "server.py"
# Places tried of each command; `python tests/faults/server.py` tries every one.
SAMPLE = int(os.environ.get("EXHUBERT_FAULTS", "10"))


@pytest.mark.slow
def test_a_failing_call_loses_doubles_and_spoils_nothing() -> None:
    sweep(f"--sample={SAMPLE}", "--kinds=kill,EIO,ENOSPC,EMFILE,short")


@pytest.mark.slow
def test_a_power_cut_loses_nothing_that_was_said_to_be_done(tmp_path: Path) -> None:
    if lacking := missing(tmp_path):
        pytest.skip(lacking)
    said = sweep(f"--sample={SAMPLE}", "--kinds=power", "fine-tune", "extract", "pack", "convert")
    assert "with power cuts" in said


def sweep(*options: str) -> str:
    if shutil.which("cc") is None or not sys.platform.startswith("linux"):
        pytest.skip("faults are injected by a preloaded library, which needs Linux and cc")
    command = [sys.executable, str(SERVER), *options]
    result = subprocess.run(command, capture_output=True, text=True, timeout=1800)
    assert result.returncode == 0, result.stdout[-6000:] + result.stderr[-3000:]
    assert result.stdout.rstrip().endswith("0 findings")
    return result.stdout
