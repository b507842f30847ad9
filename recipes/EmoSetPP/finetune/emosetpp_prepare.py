"""Corpora as they were unpacked -> items for training, validation and test.

Each corpus is read by the rules of `exhubert prepare`; clips without one of the six classes are
left out.
"""

import json
import math
from collections import defaultdict
from pathlib import Path

from exhubert_features.corpora import (
    Choices,
    as_speechbrain,
    manifest_rows,
    prepare,
    read_map,
)
from exhubert_features.corpora.known import CORPORA
from exhubert_features.corpora.known.generic import find_tables, generic
from exhubert_features.errors import UsageError
from exhubert_features.files import publish

from speechbrain.dataio.dataio import load_data_json

DEV_SHARE = 0.2  # of the training speakers, for corpora whose protocol has no development part


def parse_corpora(words):
    """Read ``[emodb:/data/EMO-DB]``: a folder by name."""
    pairs = [str(word).partition(":") for word in words]
    wrong = [name for name, _, folder in pairs if not (name and folder)]
    if not pairs or wrong or len({name for name, _, _ in pairs}) < len(pairs):
        raise UsageError(
            f"the corpora are {words}",
            expected='NAME:FOLDER, each name once: --corpora "[emodb:/data/EMO-DB, ...]"',
        )
    return {name: folder for name, _, folder in pairs}


def prepare_emosetpp(corpora, save_folder, six_classes=None, lenient=False):
    """Write one manifest per corpus: <save_folder>/<corpus>.json.

    Arguments
    ---------
    corpora : dict
        Folder by name, such as {emodb: /data/EMO-DB}. A name that `exhubert prepare --list` does
        not show is a corpus of one's own: its folder holds a CSV with file and label.
    save_folder : str
        Where the manifests go.
    six_classes : str
        One's own six-class map, as for `exhubert prepare --map`.
    lenient : bool
        Leave out what is in no order, instead of stopping.
    """
    folder = Path(save_folder)
    folder.mkdir(parents=True, exist_ok=True)
    options = (
        {"six_classes": read_map(Path(six_classes))} if six_classes else {}
    )
    for name, root in corpora.items():
        manifest, root = folder / f"{name}.json", Path(root)
        if name in CORPORA:
            corpus = CORPORA[name]
        else:
            corpus = generic(find_tables(root, but=manifest), root, name)
        prepared = prepare(
            corpus, root, Choices(six_only=True, lenient=lenient, **options)
        )
        publish(
            as_speechbrain(manifest_rows(prepared)).encode(),
            manifest,
            replace=True,
        )


def read_items(corpora, save_folder, held_out=None):
    """Read the items of each part, by id: train, valid and test.

    ``held_out`` names a corpus that is tested whole and that neither training nor the choice of
    a checkpoint sees; without it every corpus is divided by its own protocol.
    """
    if held_out is not None and held_out not in corpora:
        raise UsageError(
            f"{held_out} is held out", expected=f"one of {', '.join(corpora)}"
        )
    parts = {"train": {}, "valid": {}, "test": {}}
    for name, root in corpora.items():
        items = load_data_json(
            Path(save_folder) / f"{name}.json", {"data_root": str(root)}
        )
        give_development_part(items)
        for key, item in items.items():
            part = {"train": "train", "dev": "valid", "test": "test"}.get(
                item["split"]
            )
            if held_out is not None:
                part = (
                    "test"
                    if name == held_out
                    else {"test": None}.get(part, part)
                )
            if part is not None:
                parts[part][f"{name}/{key}"] = {**item, "corpus": name}
    empty = [part for part, items in parts.items() if not items]
    if empty:
        raise UsageError(
            f"no clip is in the part {' or '.join(empty)} of {', '.join(corpora)}",
            expected="corpora with speakers for every part",
        )
    return parts


def give_development_part(items):
    """Where a protocol has no development part, some of the training speakers become one."""
    speakers = defaultdict(list)
    for item in items.values():
        if item["split"] == "train":
            speakers[item["speaker"]].append(item)
    if (
        any(item["split"] == "dev" for item in items.values())
        or len(speakers) < 3
    ):
        return
    for name in sorted(speakers)[-math.ceil(DEV_SHARE * len(speakers)) :]:
        for item in speakers[name]:
            item["split"] = "dev"


def write_parts(parts, path):
    """Which clip is in which part, for others to check."""
    names = {part: sorted(items) for part, items in parts.items()}
    content = json.dumps(names, indent=1, ensure_ascii=False) + "\n"
    publish(content.encode(), Path(path), replace=True)
