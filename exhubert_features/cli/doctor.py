"""``exhubert doctor``: what of the environment works, what does not, and what mends it."""

from __future__ import annotations

import argparse
import importlib
import os
import platform
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from .wording import printable, size

OK, ABSENT, BROKEN = "ok", "-", "FAIL"
WIDTH = 96  # characters of a line; longer causes are cut
MODEL_BYTES = 2.7e9  # the released weights
# Flags of /proc/cpuinfo for units that multiply matrices fast, the best ones last.
MATRIX_UNITS = {
    "avx2": "AVX2",
    "avx512f": "AVX-512",
    "avx512_vnni": "VNNI (int8)",
    "avx512_bf16": "AVX-512 BF16",
    "amx_bf16": "AMX (bfloat16)",
    "amx_int8": "AMX (int8)",
    "bf16": "BF16",
    "i8mm": "I8MM (int8)",
}
NEEDED = (
    *("numpy", "h5py", "jinja2", "matplotlib", "pandas", "safetensors", "scipy", "sklearn"),
    *("tqdm", "huggingface_hub"),
)


@dataclass(frozen=True)
class _Finding:
    """One line of the screen. ``remedy`` is a command, or what to do in a few words."""

    name: str
    state: str
    words: str
    remedy: str = ""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options: there are none."""


def run(options: argparse.Namespace) -> int:
    """Look at everything, whatever is broken; 1 when something that is needed does not work."""
    os.environ.setdefault("TQDM_DISABLE", "1")
    findings = [finding for look in LOOKS for finding in look()]
    for one in findings:
        line = f"{one.state:<5} {one.name:<13} {one.words}"
        print(printable(line if len(line) <= WIDTH else f"{line[: WIDTH - 4]} ..."))
    for title, broken in (("To mend what does not work:", True), ("To have more:", False)):
        some = [one.remedy for one in findings if one.remedy and (one.state == BROKEN) == broken]
        if some:
            print("\n    ".join([f"\n{title}", *dict.fromkeys(some)]))
    failed = any(one.state == BROKEN for one in findings)
    print("\nSomething does not work." if failed else "\nAll that is needed works.")
    return int(failed)


def _try(name: str) -> tuple[ModuleType | None, str]:
    """Import a module: it, or None and why not; no reason when it is not installed."""
    try:
        return importlib.import_module(name), ""
    # A library that is broken raises anything at all.
    except (Exception, SystemExit) as error:  # noqa: BLE001
        missing = isinstance(error, ModuleNotFoundError) and error.name == name.partition(".")[0]
        words = " ".join(str(error).split()) or "no reason given"
        return None, "" if missing else f"cannot be imported: {type(error).__name__}: {words}"


def _python() -> Iterator[_Finding]:
    words = f"{platform.python_version()}, {platform.system()} {platform.machine()}"
    if os.name == "nt":
        yield _Finding(
            "Python", BROKEN, f"{words}: stores need what Windows lacks", "wsl --install"
        )
    else:
        yield _Finding("Python", OK, words)


def _torch() -> Iterator[_Finding]:
    torch, cause = _try("torch")
    if torch is None:
        yield _Finding("torch", BROKEN, cause or "is not installed", "pip install 'torch>=2.4'")
        return
    version = _version(torch)
    if version < (2, 4):
        yield _Finding(
            "torch", BROKEN, f"{torch.__version__} is too old", "pip install 'torch>=2.4'"
        )
    else:
        yield _Finding("torch", OK, f"{torch.__version__}, {torch.get_num_threads()} threads")
    if torch.cuda.is_available():
        yield _Finding("CUDA", OK, f"{torch.version.cuda}, {torch.cuda.get_device_name(0)}")
    elif torch.version.cuda and shutil.which("nvidia-smi"):
        words = f"torch is built for {torch.version.cuda}, and finds no GPU it can use"
        yield _Finding(
            "CUDA", ABSENT, words, "nvidia-smi  # a driver for that CUDA, or another torch"
        )
    else:
        yield _Finding("CUDA", ABSENT, "no GPU: the CPU computes")


def _libraries() -> Iterator[_Finding]:
    found = {name: _try(name) for name in NEEDED}
    for name, (module, cause) in found.items():
        if module is None and cause:
            yield _Finding(name, BROKEN, cause, f"pip install --force-reinstall {_package(name)}")
    absent = [_package(name) for name, (module, cause) in found.items() if not (module or cause)]
    if absent:
        install = f"pip install {' '.join(absent)}"
        yield _Finding("libraries", BROKEN, f"{', '.join(absent)} not installed", install)
    shown = [
        f"{name} {module.__version__}"
        for name, (module, _) in found.items()
        if module is not None and name in ("numpy", "h5py", "pandas")
    ]
    if shown:
        yield _Finding("libraries", OK, ", ".join(shown))


def _package(name: str) -> str:
    return {"sklearn": "scikit-learn", "huggingface_hub": "huggingface-hub"}.get(name, name)


def _torchaudio() -> Iterator[_Finding]:
    module, cause = _try("torchaudio")
    if module is not None:
        yield _Finding("torchaudio", OK, module.__version__)
    elif not cause:
        yield _Finding("torchaudio", ABSENT, "is not installed; SpeechBrain alone needs it")
    elif _try_spec("speechbrain"):
        yield _Finding("torchaudio", BROKEN, cause, _matching_torchaudio())
    else:
        yield _Finding("torchaudio", ABSENT, f"{cause} (nothing here needs it)")


def _matching_torchaudio() -> str:
    """Give the command that makes torch and torchaudio fit, as far as releases are known."""
    torch, _ = _try("torch")
    if torch is None:
        return "pip install 'torch<2.15' torchaudio"
    version = _version(torch)
    if version >= (2, 15):  # built for another CUDA than the last torchaudio
        return "pip install 'torch<2.15' 'torchaudio==2.11.*'"
    wanted = (
        "torchaudio==2.11.*" if version >= (2, 11) else f"torchaudio=={version[0]}.{version[1]}.*"
    )
    if torch.version.cuda is None and platform.system() == "Linux":
        return f"pip install '{wanted}' --index-url https://download.pytorch.org/whl/cpu"
    return f"pip install '{wanted}'"


def _speechbrain() -> Iterator[_Finding]:
    if not _try_spec("speechbrain"):
        words = "is not installed: no lobe, no recipes"
        yield _Finding("SpeechBrain", ABSENT, words, "pip install 'exhubert-features[speechbrain]'")
        return
    module, cause = _try("speechbrain.inference.interfaces")
    if module is None:
        install = "pip install 'exhubert-features[speechbrain]'"
        if lacking := re.search(r"No module named '(\w+)'", cause):
            install = f"pip install {lacking[1]}"
        audio, _ = _try("torchaudio")
        yield _Finding("SpeechBrain", BROKEN, cause, install if audio else _matching_torchaudio())
        return
    version = sys.modules["speechbrain"].__version__
    _, cause = _try("exhubert_features.speechbrain")
    yield _Finding("SpeechBrain", BROKEN if cause else OK, cause or f"{version}, with our lobe")
    transformers, _ = _try("transformers")
    if version.startswith("1.0.") and transformers and _version(transformers) >= (5, 0):
        words = f"its own Hugging Face lobes need transformers 4, not {transformers.__version__}"
        yield _Finding("SpeechBrain", ABSENT, words, "pip install 'transformers==4.57.*'")


def _transformers() -> Iterator[_Finding]:
    module, cause = _try("transformers")
    install = "pip install --upgrade transformers"
    if module is None:
        yield _Finding("transformers", BROKEN, cause or "is not installed", install)
        return
    try:
        usable = bool(module.utils.is_torch_available())
    except Exception as error:  # noqa: BLE001  (as above: half a library raises anything)
        yield _Finding("transformers", BROKEN, f"{type(error).__name__}: {error}", install)
        return
    if usable:
        yield _Finding("transformers", OK, module.__version__)
    else:
        words = f"{module.__version__} does not take this torch: no Auto classes"
        yield _Finding("transformers", BROKEN, words, "pip install 'transformers==4.57.*'")


def _audio() -> Iterator[_Finding]:
    module, cause = _try("soundfile")
    if module is None:
        install = "pip install --force-reinstall soundfile"
        yield _Finding("libsndfile", BROKEN, cause or "soundfile is not installed", install)
    elif "MP3" in module.available_formats():
        yield _Finding("libsndfile", OK, f"{module.__libsndfile_version__}: wav, flac, ogg, mp3")
    else:
        words = f"{module.__libsndfile_version__} reads no mp3"
        yield _Finding("libsndfile", ABSENT, words, "pip install --upgrade soundfile")
    program = shutil.which("ffmpeg")
    words = program or "is not on the PATH: no m4a, mp4, webm, wma"
    install = (
        "" if program else "apt install ffmpeg  # or conda install ffmpeg, brew install ffmpeg"
    )
    yield _Finding("ffmpeg", OK if program else ABSENT, words, install)


def _hub() -> Iterator[_Finding]:
    hub, _ = _try("huggingface_hub")
    if hub is None:
        return  # named among the libraries
    from ..spec import DEFAULT_REVISION, DEFAULT_SOURCE

    upgrade = "pip install --upgrade huggingface-hub"
    try:
        cache = Path(hub.constants.HF_HUB_CACHE)
        files = [
            hub.try_to_load_from_cache(DEFAULT_SOURCE, name, revision=DEFAULT_REVISION)
            for name in ("config.json", "pytorch_model.bin", "model.safetensors")
        ]
        token = "a token" if hub.get_token() else "no token"
    except Exception as error:  # noqa: BLE001  (as above)
        yield _Finding("Hub", BROKEN, f"{type(error).__name__}: {error}", upgrade)
        return
    there = isinstance(files[0], str) and any(isinstance(file, str) for file in files[1:])
    words = f"{DEFAULT_SOURCE} is {'' if there else 'not '}in {cache}, {token}"
    remedy = "" if there else f"hf download {DEFAULT_SOURCE} --revision {DEFAULT_REVISION}"
    yield _Finding("Hub cache", OK if there else ABSENT, words, remedy)
    yield from _disk(cache, MODEL_BYTES if not there else 0.0)


def _disk(cache: Path, needed: float) -> Iterator[_Finding]:
    for folder, wanted in ((cache, needed), (Path.cwd(), 0.0)):
        exists = next(one for one in (folder, *folder.parents) if one.exists())
        free = shutil.disk_usage(exists).free
        words = f"{size(free)} free in {folder}"
        if free < wanted:
            cause = f"{words}; the model takes {size(wanted)}"
            yield _Finding("disk", BROKEN, cause, "export HF_HOME=/a/larger/disk")
        else:
            yield _Finding("disk", OK, words)


def _cpu() -> Iterator[_Finding]:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        text = ""
    flags = set(re.findall(r"[\w.]+", text))
    units = [words for flag, words in MATRIX_UNITS.items() if flag in flags]
    if not text:
        yield _Finding("CPU", OK, f"{platform.processor() or platform.machine()}, units unknown")
        return
    yield _Finding("CPU", OK, (", ".join(units) or "no vector units that help") + _fastest())


def _fastest() -> str:
    """Tell what ``--precision auto`` takes on this CPU, as it is measured."""
    torch, _ = _try("torch")
    precision, _ = _try("exhubert_features.precision")
    if torch is None or precision is None:
        return ""
    return f"; {precision.fastest_precision(torch.device('cpu'))} is the fastest here"


def _features() -> Iterator[_Finding]:
    """Features of half a second of noise at 44.1 kHz, with a tiny random model, into a store."""
    import tempfile

    try:
        with tempfile.TemporaryDirectory() as folder:
            words = _extract(Path(folder))
    except Exception as error:  # noqa: BLE001  (as above: whatever is broken may show here)
        cause = f"{type(error).__name__}: {' '.join(str(error).split())}"
        yield _Finding("features", BROKEN, cause)
        return
    yield _Finding("features", OK, words)


def _extract(folder: Path) -> str:
    import numpy as np

    from ..checkpoint import write_random_checkpoint
    from ..encoder import load_encoder

    encoder = load_encoder(write_random_checkpoint(folder / "tiny", layers=2), device="cpu")
    noise = np.random.default_rng(0).normal(0, 0.1, 22_050)
    store = encoder.extract({"noise": (noise, 44_100)}).write(folder / "store")
    return f"extracted and stored: {store['noise'].pooled.shape} of a tiny model"


def _try_spec(name: str) -> bool:
    """Whether a library is installed, working or not."""
    import importlib.util

    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):  # half imported before it failed
        return True


def _version(module: Any) -> tuple[int, int]:
    numbers = re.findall(r"\d+", str(module.__version__))
    return int(numbers[0]), int(numbers[1])


LOOKS: tuple[Callable[[], Iterator[_Finding]], ...] = (
    *(_python, _cpu, _torch, _libraries, _torchaudio, _speechbrain, _transformers),
    *(_audio, _hub, _features),
)
