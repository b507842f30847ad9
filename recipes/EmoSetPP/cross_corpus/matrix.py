#!/usr/bin/env python3
"""Train a head on each corpus, test it on every other: a matrix with an interval in each cell.

> python matrix.py hparams/matrix.yaml --stores "[emodb:features/emodb, savee:features/savee]"

A row is what a head was trained on, a column what it was tested on. On the diagonal stands the
cross-validated score of the corpus itself, elsewhere that of a head fitted to the whole of
another corpus. A head can only say what it has learned: clips of classes that its corpus lacks
are left out of the cell, which says how many classes are left.
"""

import csv
import io
import json
import sys
from pathlib import Path

from exhubert_features import FeatureStore
from exhubert_features.errors import UsageError
from exhubert_features.evaluation import LabelOptions, SplitOptions
from exhubert_features.evaluation.labels import store_rows
from exhubert_features.files import publish
from exhubert_features.heads import evaluate, train
from hyperpyyaml import load_hyperpyyaml
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

import speechbrain as sb

COLUMNS = (
    "train",
    "test",
    "uar",
    "low",
    "high",
    "clips",
    "classes",
    "chance",
    "left_out",
)


def parse_stores(words):
    """Read ``[emodb:features/emodb, esd:features/esd]``: a path by name, two at least."""
    pairs = [str(word).partition(":") for word in words]
    stores = {name: path for name, _, path in pairs if name and path}
    if len(stores) < max(2, len(pairs)):
        raise UsageError(
            f"the stores are {words}",
            expected="NAME:STORE, two at least, each name once",
        )
    return stores


def parse_renames(words):
    """Read ``[excitement:happiness]``: the new label by the old; nothing leaves it out."""
    return {
        old: new for old, _, new in (str(word).partition(":") for word in words)
    }


def make_cells(stores, hparams):
    """One cell, a dict with COLUMNS, for each pair of corpora, row by row."""
    renames = parse_renames(hparams["rename"])
    target = hparams["target"]
    labels = {
        name: labels_of(path, target, renames) for name, path in stores.items()
    }
    for name, path in stores.items():
        trained = train(
            path,
            target=target,
            head=hparams["head"],
            joining=LabelOptions(task="classification", mapping=renames),
            splitting=SplitOptions(fold_column=hparams["fold_column"]),
            corpus=name,
            seed=hparams["seed"],
        )
        trained.save(
            Path(hparams["output_folder"]) / "heads" / name, force=True
        )
        classes = set(trained.head.config.classes)
        for other, store in stores.items():
            if other == name:
                yield cell(
                    name, other, trained.evaluation, labels[other], set()
                )
                continue
            common, unknown = labels[other] & classes, labels[other] - classes
            if len(common) < 2:
                yield cell(name, other, None, common, unknown)
                continue
            found = evaluate(
                trained.head,
                store,
                joining=LabelOptions(
                    mapping={**renames, **dict.fromkeys(unknown, "")}
                ),
                corpus=other,
                seed=hparams["seed"],
            )
            yield cell(name, other, found, common, unknown)


def labels_of(path, target, renames):
    """All labels of a store, as they are called in the end."""
    there = {row.get(target, "") for row in store_rows(FeatureStore(path))}
    return {renames.get(label, label) for label in there} - {""}


def cell(train_on, test_on, evaluation, common, unknown):
    """What one cell says; without figures where fewer than two classes are in common."""
    found = dict.fromkeys(COLUMNS, "")
    found |= {"train": train_on, "test": test_on, "classes": len(common)}
    found["left_out"] = " ".join(sorted(unknown))
    if evaluation is not None:
        main = evaluation.main
        found |= {"uar": main.value, "low": main.low, "high": main.high}
        found |= {"clips": len(evaluation.tested), "chance": 1 / len(common)}
    return found


def markdown(cells, names):
    """Lines of the matrix: UAR in percent, its interval, and how many classes."""
    by_pair = {(found["train"], found["test"]): found for found in cells}
    yield f"| trained on | {' | '.join(f'on {name}' for name in names)} |"
    yield "|" + "---|" * (len(names) + 1)
    for row in names:
        yield f"| {row} | {' | '.join(words(by_pair[row, column]) for column in names)} |"


def words(found):
    """``61.2 (55.0 to 67.1), 5 classes``."""
    if found["uar"] == "":
        return f"{found['classes']} classes in common"
    uar, low, high = (
        f"{100 * found[name]:.1f}" for name in ("uar", "low", "high")
    )
    return f"{uar} ({low} to {high}), {found['classes']} classes"


def draw(cells, names):
    """The matrix as a picture; the shade is how much of the way from chance to 1 was made."""
    by_pair = {(found["train"], found["test"]): found for found in cells}
    size = 1.3 * len(names) + 1.2
    figure = Figure(figsize=(size, size), layout="constrained")
    axes = figure.subplots()
    for y, row in enumerate(names):
        for x, column in enumerate(names):
            found = by_pair[row, column]
            made = (
                (found["uar"] - found["chance"]) / (1 - found["chance"])
                if found["clips"]
                else 0
            )
            axes.add_patch(
                Rectangle(
                    (x, y), 1, 1, facecolor=(0, 0.45, 0.7, max(0, 0.85 * made))
                )
            )
            lines = words(found).replace(" (", "\n(").replace(", ", "\n")
            axes.text(
                x + 0.5, y + 0.5, lines, ha="center", va="center", fontsize=9
            )
    places = [place + 0.5 for place in range(len(names))]
    axes.set_xticks(places, names)
    axes.set_yticks(places, names)
    axes.set(
        xlim=(0, len(names)),
        ylim=(len(names), 0),
        xlabel="tested on",
        ylabel="trained on",
    )
    axes.set_title("UAR in %, 95 % interval over speakers", fontsize=10)
    return figure


def write(cells, names, folder):
    """matrix.csv, matrix.json, matrix.md and matrix.png."""
    table = io.StringIO()
    writer = csv.DictWriter(table, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(cells)
    text = "\n".join(markdown(cells, names)) + "\n"
    files = {
        "csv": table.getvalue(),
        "json": json.dumps(cells, indent=1) + "\n",
        "md": text,
    }
    for suffix, content in files.items():
        publish(content.encode(), folder / f"matrix.{suffix}", replace=True)
    picture = io.BytesIO()
    draw(cells, names).savefig(picture, dpi=150)
    publish(picture.getbuffer(), folder / "matrix.png", replace=True)
    print(text)


if __name__ == "__main__":
    hparams_file, _, overrides = sb.parse_arguments(sys.argv[1:])
    with Path(hparams_file).open() as stream:
        hparams = load_hyperpyyaml(stream, overrides)
    stores = parse_stores(hparams["stores"])
    folder = Path(hparams["output_folder"])
    folder.mkdir(parents=True, exist_ok=True)
    write(list(make_cells(stores, hparams)), list(stores), folder)
