"""``exhubert doctor`` in environments that are whole, and in broken ones."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def doctor(folder: Path, **files: str) -> tuple[int, str]:
    """Run it where modules of these names hide the real ones; exit code and screen."""
    for name, text in files.items():
        (folder / f"{name}.py").write_text(text)
    path = os.pathsep.join([str(folder), str(ROOT)])
    run = subprocess.run(
        [sys.executable, "-m", "exhubert_features", "doctor"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
        cwd=folder,
    )
    assert "Traceback" not in run.stderr, run.stderr
    return run.returncode, run.stdout


@pytest.mark.slow
def test_a_whole_environment(tmp_path: Path) -> None:
    code, screen = doctor(tmp_path)
    assert code == 0, screen
    assert "All that is needed works." in screen and "FAIL" not in screen
    names = [line[6:19].strip() for line in screen.partition("\n\n")[0].splitlines()]
    assert names == [
        *("Python", "CPU", "torch", "CUDA", "libraries", "torchaudio", "SpeechBrain"),
        *("transformers", "libsndfile", "ffmpeg", "Hub cache", "disk", "disk", "features"),
    ]
    assert len(screen.splitlines()) < 24 and max(map(len, screen.splitlines())) <= 100
    assert "extracted and stored: (3, 1, 32)" in screen


BROKEN = [  # modules, each with what the screen says and what mends it
    {
        "torchaudio": (
            "raise RuntimeError('different CUDA versions')",
            "FAIL  torchaudio    cannot be imported: RuntimeError: different CUDA",
            "pip install 'torchaudio==2.",
        ),
        "soundfile": ("raise OSError('no libsndfile')", "FAIL  libsndfile", "soundfile"),
        "huggingface_hub": ("", "FAIL  Hub ", "--upgrade huggingface-hub"),
    },
    {
        "speechbrain": ("import no_requests", "FAIL  SpeechBrain", "pip install no_requests"),
        "transformers": ("raise SystemExit(3)", "SystemExit: 3", "--upgrade transformers"),
        "pandas": ("raise ValueError('numpy')", "FAIL  pandas", "--force-reinstall pandas"),
    },
    {"torch": ("import no_such_library", "FAIL  torch ", "pip install 'torch>=2.4'")},
]


@pytest.mark.slow
@pytest.mark.parametrize("broken", BROKEN, ids=lambda broken: "-".join(broken))
def test_broken_libraries_are_named_and_mended(
    tmp_path: Path, broken: dict[str, tuple[str, str, str]]
) -> None:
    code, screen = doctor(tmp_path, **{name: text for name, (text, _, _) in broken.items()})
    assert code == 1 and screen.rstrip().endswith("Something does not work.")
    for _, line, mended in broken.values():
        assert line in screen and mended in screen.partition("To mend what")[2]


@pytest.mark.slow
def test_torchaudio_breaks_speechbrain_alone(tmp_path: Path) -> None:
    """What torch 2.15 and CPU builds of torch do to a stack with the registry's torchaudio."""
    _, screen = doctor(tmp_path, torchaudio="raise OSError('Could not load this library')")
    assert "FAIL  SpeechBrain" in screen and "ok    features" in screen
    assert screen.count("FAIL") == 2


def test_the_right_torchaudio_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from types import SimpleNamespace

    from exhubert_features.cli import doctor as module

    monkeypatch.setattr(module.platform, "system", lambda: "Linux")
    for version, cuda, expected in (
        ("2.15.0+cu132", "13.2", "pip install 'torch<2.15' 'torchaudio==2.11.*'"),
        ("2.14.1+cu130", "13.0", "pip install 'torchaudio==2.11.*'"),
        ("2.6.0+cu124", "12.4", "pip install 'torchaudio==2.6.*'"),
        ("2.13.0+cpu", None, "'torchaudio==2.11.*' --index-url https://download.pytorch.org/whl"),
    ):
        torch = SimpleNamespace(__version__=version, version=SimpleNamespace(cuda=cuda))
        monkeypatch.setattr(module, "_try", lambda name, torch=torch: (torch, ""))
        assert expected in module._matching_torchaudio()


def test_speechbrain_1_0_beside_transformers_5(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own Hugging Face lobes cannot be imported then; ours can."""
    from types import SimpleNamespace

    from exhubert_features.cli import doctor as module

    monkeypatch.setattr(module, "_try_spec", lambda name: True)
    for speechbrain, transformers, lines in (("1.0.3", "5.23.0", 2), ("1.0.3", "4.57.1", 1)):
        monkeypatch.setitem(sys.modules, "speechbrain", SimpleNamespace(__version__=speechbrain))
        found = SimpleNamespace(__version__=transformers)
        monkeypatch.setattr(module, "_try", lambda name, found=found: (found, ""))
        findings = list(module._speechbrain())
        assert len(findings) == lines and module.BROKEN not in str(findings)
    assert "own Hugging Face lobes" not in str(findings)


def test_windows_is_refused_with_the_way_out() -> None:
    """Its Python has no fcntl."""
    code = (
        "import sys; sys.modules['fcntl'] = None\n"
        "from exhubert_features.cli import main\nsys.exit(main(['inspect', 'store']))"
    )
    run = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert run.returncode == 1
    assert "does not run on Windows itself" in run.stderr and "wsl --install" in run.stderr
