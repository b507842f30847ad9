"""``convert``: the same model, in safetensors, with names; whole or not there at all."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch
from checkpoint_files import rewrite

from exhubert_features.checkpoint import Checkpoint, load_model, write_random_checkpoint
from exhubert_features.checkpoint.card import model_card
from exhubert_features.checkpoint.convert import convert
from exhubert_features.cli import main
from exhubert_features.errors import CheckpointError, UsageError
from exhubert_features.model.config import ExHuBERTConfig
from exhubert_features.spec import CLASSES, DEFAULT_SOURCE


@torch.no_grad()
def test_converted_golden_checkpoint_keeps_parity(
    tiny_checkpoint: Path, golden: dict[str, np.ndarray], tmp_path: Path
) -> None:
    config = convert(tiny_checkpoint, tmp_path / "converted")
    assert config.classes == CLASSES
    model, checkpoint = load_model(tmp_path / "converted")
    assert checkpoint.weight_files == (tmp_path / "converted" / "model.safetensors",)
    assert model.config == config
    output = model(torch.tensor(golden["a_input"]))
    np.testing.assert_allclose(output.logits, golden["a_logits"], rtol=0, atol=1e-4)
    stored = json.loads((tmp_path / "converted" / "config.json").read_text())
    assert stored["model_type"] == "exhubert" and "auto_map" not in stored
    assert stored["id2label"] == {str(index): name for index, name in enumerate(CLASSES)}
    modes = {file.stat().st_mode for file in (tmp_path / "converted").iterdir()}
    assert len(modes) == 1, "whoever may read one file may read all"


@torch.no_grad()
@pytest.mark.parametrize(("dtype", "precision"), [("bfloat16", 2**-8), ("float16", 2**-11)])
def test_half_precision_is_half_the_bytes(
    dtype: str, precision: float, small_checkpoint: Path, tmp_path: Path
) -> None:
    convert(small_checkpoint, tmp_path / "whole")
    convert(small_checkpoint, tmp_path / "half", dtype=getattr(torch, dtype))
    files = [tmp_path / name / "model.safetensors" for name in ("whole", "half")]
    tensors = sum(tensor.nbytes for tensor in load_model(small_checkpoint)[0].parameters())
    assert files[0].stat().st_size - files[1].stat().st_size == pytest.approx(tensors / 2, rel=0.02)
    half, original = (load_model(path)[0] for path in (tmp_path / "half", small_checkpoint))
    for name, parameter in original.named_parameters():
        torch.testing.assert_close(
            half.get_parameter(name), parameter, rtol=precision, atol=1e-7, msg=name
        )
    assert json.loads((tmp_path / "half" / "config.json").read_text())["torch_dtype"] == dtype


def test_float16_overflow_is_reported(checkpoint_copy: Path, tmp_path: Path) -> None:
    rewrite(checkpoint_copy, lambda state: state["projector.bias"].fill_(70_000.0))
    with pytest.raises(CheckpointError, match=r"projector\.bias reaches 7e\+04.*bfloat16"):
        convert(checkpoint_copy, tmp_path / "half", dtype=torch.float16)
    assert not (tmp_path / "half").exists()
    convert(checkpoint_copy, tmp_path / "half", dtype=torch.bfloat16)


def test_destination_in_use_is_refused(small_checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("precious")
    for destination in (tmp_path, tmp_path / "mine"):
        with pytest.raises(UsageError, match="exists and is not empty"):
            convert(small_checkpoint, destination)
    assert (tmp_path / "mine").read_text() == "precious"
    (tmp_path / "empty").mkdir()
    convert(small_checkpoint, tmp_path / "empty")
    load_model(tmp_path / "empty")


def test_destination_may_be_the_empty_working_directory(
    small_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    convert(small_checkpoint, ".")
    load_model(tmp_path)


def test_home_is_where_the_tilde_says(
    small_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    convert(small_checkpoint, "~/new")
    load_model("~/new")
    assert [path.name for path in tmp_path.iterdir()] == ["new"]
    with pytest.raises(UsageError, match="exists and is not empty"):
        convert(small_checkpoint, "~/new")


def test_destination_that_cannot_be_written(small_checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="could not be written"):
        convert(small_checkpoint, tmp_path / "file" / "inside")


KILLED = """
import os, sys
from pathlib import Path
import safetensors.torch
from exhubert_features.checkpoint import saving
from exhubert_features.checkpoint.convert import convert

def deadly(function):
    def wrapped(*arguments, **options):
        global left
        left -= 1
        if left == 0:
            os._exit(9)  # as after kill -9: no handler, no clean-up
        return function(*arguments, **options)
    return wrapped

safetensors.torch.save_file = deadly(safetensors.torch.save_file)
saving._write_json = deadly(saving._write_json)
os.fsync = deadly(os.fsync)
Path.rename = deadly(Path.rename)
code, step = 9, 0
while code == 9:
    step += 1
    destination = Path(sys.argv[2], str(step), "converted")
    child = os.fork()
    if child == 0:
        left = step
        destination.parent.mkdir()
        convert(sys.argv[1], destination)
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    print(step, code, destination.exists())
"""


@pytest.mark.slow
def test_a_kill_leaves_all_or_nothing(small_checkpoint: Path, tmp_path: Path) -> None:
    """Before the weights, each config, each fsync and the naming of the folder."""
    command = [sys.executable, "-c", KILLED, str(small_checkpoint), str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True)
    lines = [line.split() for line in result.stdout.splitlines()]
    assert len(lines) > 8, result.stderr
    assert [code for _, code, _ in lines] == ["9"] * (len(lines) - 1) + ["0"], result.stderr
    there = [step for step, _, exists in lines if exists == "True"]
    # Killed when only the folder above is left to flush, it has its name; and then it is whole.
    assert there == [step for step, _, _ in lines][-2:]
    for step in there:
        load_model(tmp_path / step / "converted")


@torch.no_grad()
@pytest.mark.parametrize("classes", [(), ("calm", "cross")])
def test_plain_hubert_loads_with_transformers_own_class(
    classes: tuple[str, ...], tmp_path: Path
) -> None:
    from transformers import AutoFeatureExtractor, HubertForSequenceClassification, HubertModel

    write_random_checkpoint(tmp_path / "source", layers=2, gated=False, classes=classes)
    convert(tmp_path / "source", tmp_path / "converted")
    model, _ = load_model(tmp_path / "converted")
    kind = HubertForSequenceClassification if classes else HubertModel
    theirs, report = kind.from_pretrained(tmp_path / "converted", output_loading_info=True)
    assert not any(report.values())
    clip = torch.randn(1, 4000)
    encoder = theirs.hubert if classes else theirs
    expected = encoder.eval()(clip).last_hidden_state
    torch.testing.assert_close(model(clip).hidden_states[-1], expected, rtol=0, atol=1e-5)
    if classes:
        torch.testing.assert_close(model(clip).logits, theirs(clip).logits, rtol=0, atol=1e-5)
        assert theirs.config.id2label == {0: "calm", 1: "cross"}
    assert AutoFeatureExtractor.from_pretrained(tmp_path / "converted").do_normalize


def test_command(
    small_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["convert", str(small_checkpoint), str(tmp_path / "new"), "--dtype", "bfloat16"]
    assert main([*arguments, "--classes", "a,b, c,d,e,f"]) == 0
    printed = capsys.readouterr().out
    assert "classes: a, b, c, d, e, f" in printed
    (hint,) = re.findall(r"import (exhubert_features[\w.]*)", printed)
    assert import_module(hint).ExHuBERTForAudioClassification
    assert load_model(tmp_path / "new")[0].config.classes == tuple("abcdef")
    assert main(arguments) == 2
    assert "exists and is not empty" in capsys.readouterr().err
    arguments[2] = str(tmp_path / "other")
    assert main([*arguments, "--labels", "a,b"]) == 2
    assert main([*arguments, "--labels", "a,,b"]) == 2
    assert main(["convert", str(tmp_path / "absent"), str(tmp_path / "other")]) == 1
    assert not (tmp_path / "other").exists()


def test_the_model_card(tiny_checkpoint: Path, tmp_path: Path) -> None:
    """Licence, citation and the import that is needed; its own code runs."""
    copied = Path(shutil.copytree(tiny_checkpoint, tmp_path / "amiriparian"))
    (copied / "README.md").write_text("---\nlanguage: en\nlicense: cc-by-nc-sa-4.0\n---\n# A card")
    convert(copied, tmp_path / "this folder")
    card = (tmp_path / "this folder" / "README.md").read_text(encoding="utf-8")
    front = card.split("---\n")[1]
    assert "license: cc-by-nc-sa-4.0\n" in front and "pipeline_tag: audio-classification" in front
    assert "import exhubert_features.integrations.transformers" in card
    assert "10.21437/Interspeech.2024-280" in card and "research use only" in card
    assert "low-negative, low-neutral" in card
    code = card.split("```python\n")[1].split("```")[0].replace('classify("speech.wav")', "")
    compile(code, "card", "exec")

    unknown = Path(shutil.copytree(tiny_checkpoint, tmp_path / "somebodys"))
    convert(unknown, tmp_path / "other")
    card = (tmp_path / "other" / "README.md").read_text(encoding="utf-8")
    assert "license:" not in card
    assert f"The weights keep the licence of {unknown}." in card


def test_the_card_of_the_released_model() -> None:
    files = (Path("config.json"), (Path("pytorch_model.bin"),))
    card = model_card(ExHuBERTConfig(classes=CLASSES), Checkpoint(DEFAULT_SOURCE, "b158", *files))
    assert "license: cc-by-nc-sa-4.0" in card
    assert f"converted from {DEFAULT_SOURCE} at b158" in card
    plain = ExHuBERTConfig(gated=False)
    card = model_card(plain, Checkpoint("facebook/hubert-large-ll60k", None, *files))
    assert "exhubert_features" not in card and "bibtex" not in card
