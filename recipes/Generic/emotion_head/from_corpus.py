#!/usr/bin/env python3
"""From a corpus' folder to a head and its report: prepare, extract, probe, train.

> python from_corpus.py ../../EMODB/emotion_head/hparams/linear.yaml --data_folder /data/EMO-DB

Each stage is one `exhubert` command, which is printed before it runs. What is there already is
not made again: extraction goes on where it stopped. The head and its report end up in
<output_folder>/head, the curve over layers in <output_folder>/probe.
"""

import importlib.util
import shlex
import sys
from pathlib import Path

import ruamel.yaml
from exhubert_features.cli import main
from hyperpyyaml import load_hyperpyyaml

import speechbrain as sb

LEFT_OUT = (
    3  # exit code of a stage that left clips out, which `lenient` accepts
)


def read_hparams(path, overrides):
    """The overlay's lines and the command line's over those of its base."""
    yaml = ruamel.yaml.YAML(typ="safe")
    hparams = yaml.load(path.read_text(encoding="utf-8"))
    base = path.parent / hparams["base"]
    overlay = {name: value for name, value in hparams.items() if name != "base"}
    with base.open(encoding="utf-8") as stream:
        return load_hyperpyyaml(
            stream, {**overlay, **(yaml.load(overrides) or {})}
        )


def preparation(folder, name):
    """The function ``file.function`` of a file in the recipe's folder."""
    file, _, function = name.partition(".")
    spec = importlib.util.spec_from_file_location(file, folder / f"{file}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return getattr(module, function)


def stages(hparams):
    """Arguments of the commands that follow the preparation."""
    output = Path(hparams["output_folder"])
    features = str(output / "features")
    yield [
        *(
            "extract",
            str(output / "manifest.csv"),
            "--data-root",
            str(hparams["data_folder"]),
        ),
        *(
            "-o",
            features,
            "--model",
            str(hparams["source"]),
            "--pools",
            hparams["pools"],
        ),
        *("--precision", hparams["precision"], "--device", hparams["device"]),
    ]
    division = hparams["division"]
    task = ["--target", hparams["target"], f"--{division}", hparams["column"]]
    task += [word for pair in hparams["rename"] for word in ("--map", pair)]
    task += ["--shared-groups"] if hparams["shared_speakers"] else []
    task += ["--drop-unlabelled"] if hparams["lenient"] else []
    task += ["--seed", str(hparams["seed"])]
    yield ["probe", features, *task, "-o", str(output / "probe")]
    fitting = ["--head", hparams["head"], "--epochs", str(hparams["epochs"])]
    yield [
        "train",
        features,
        *task,
        *fitting,
        "-o",
        str(output / "head"),
        "--force",
    ]


def run(hparams, folder):
    """All stages in turn; the exit code of the first that fails, or 0."""
    output = Path(hparams["output_folder"])
    output.mkdir(parents=True, exist_ok=True)
    options = ["--lenient"] if hparams["lenient"] else []
    options += (
        ["--labels", ",".join(hparams["labels"])] if hparams["labels"] else []
    )
    prepare = preparation(folder, hparams["prepare"])
    code = prepare(hparams["data_folder"], output / "manifest.csv", *options)
    for arguments in stages(hparams):
        if code and not (code == LEFT_OUT and hparams["lenient"]):
            return code
        print(f"\n$ {shlex.join(['exhubert', *arguments])}", flush=True)
        code = main(arguments)
    return code


if __name__ == "__main__":
    path, run_opts, overrides = sb.parse_arguments(sys.argv[1:])
    path = Path(path)
    hparams = read_hparams(path, overrides)
    hparams["device"] = run_opts["device"] or "auto"
    sys.exit(run(hparams, path.absolute().parents[1]))
