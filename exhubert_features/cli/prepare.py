"""``exhubert prepare CORPUS ROOT``: a manifest out of a corpus' folder."""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..corpora import Prepared
    from ..corpora.corpus import Corpus

GENERIC = "generic"
LEFT_OUT = 3  # exit code, as for clips that could not be extracted
SUFFIXES = {".csv": "csv", ".json": "speechbrain"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "corpus",
        metavar="CORPUS",
        nargs="?",
        help="emodb, ravdess, iemocap, ... (--list shows all), or generic for any other",
    )
    parser.add_argument(
        "root", metavar="ROOT", nargs="?", type=Path, help="the folder it was unpacked to"
    )
    parser.add_argument(
        "-o", "--output", metavar="FILE", type=Path, help="the manifest, .csv or .json"
    )
    parser.add_argument(
        "--format",
        choices=("csv", "speechbrain"),
        help="speechbrain: JSON with {data_root} for ROOT (default: by the suffix of FILE)",
    )
    parser.add_argument("--force", action="store_true", help="write over another manifest")
    choice = parser.add_argument_group("what goes in")
    choice.add_argument(
        "--lenient", action="store_true", help="leave out what is in no order, name it, go on"
    )
    choice.add_argument(
        "--keep-exceptions",
        action="store_true",
        help="take also what is left out by default, such as RAVDESS' songs",
    )
    choice.add_argument("--labels", metavar="A,B", help="only clips of these labels")
    choice.add_argument("--six", action="store_true", help="only clips that have one of 6 classes")
    choice.add_argument(
        "--map", metavar="FILE", type=Path, help="your own classes: CSV with label and class (0-5)"
    )
    generic = parser.add_argument_group("generic")
    generic.add_argument(
        "--table",
        metavar="FILE",
        action="append",
        type=Path,
        help="CSV with file, label and perhaps speaker, split, ... (default: the one in ROOT)",
    )
    generic.add_argument("--name", help="what the corpus is called (default: generic)")
    show = parser.add_argument_group("show and end")
    show.add_argument("--list", action="store_true", help="the corpora, their access and licence")
    show.add_argument("--show-map", action="store_true", help="the six-class map, as CSV")
    parser.epilog = "Exit code 3 when --lenient left anything out."


def run(options: argparse.Namespace) -> int:
    """Read the corpus, write the manifest, say what is in it."""
    from ..corpora import Choices, prepare, read_map, shipped_map
    from ..corpora.summary import list_lines, map_lines, summary_lines

    if options.list or options.show_map:
        for line in list_lines() if options.list else map_lines():
            print(line)
        return 0
    form = _checked(options)
    corpus = _corpus(options)
    choices = Choices(
        lenient=options.lenient,
        labels=tuple(word.strip() for word in options.labels.split(",")) if options.labels else (),
        six_only=options.six,
        keep_exceptions=options.keep_exceptions,
        six_classes=read_map(options.map) if options.map else shipped_map(),
    )
    prepared = prepare(corpus, options.root, choices)
    changed = _write(options.output, _text(prepared, form), force=options.force)
    for flaw in prepared.flaws:
        words = filter(None, (flaw.kind, flaw.name, flaw.reason))
        print(f"left out: {': '.join(words)}", file=sys.stderr)
    for line in summary_lines(prepared):
        print(line)
    for label in choices.six_classes.unused(prepared.classes):
        print(f"note: {options.map} has {label!r}, which no clip is labelled")
    print(f"{'wrote' if changed else 'unchanged:'} {options.output}")
    print(f"next: {_next_command(options, form)}")
    return LEFT_OUT if prepared.flaws else 0


def _checked(options: argparse.Namespace) -> str:
    """Choose the format, where the options make sense together."""
    from ..errors import UsageError

    for name in ("corpus", "root", "output"):
        if getattr(options, name) is None:
            raise UsageError(
                f"{'-o FILE' if name == 'output' else name.upper()} is missing",
                expected="exhubert prepare CORPUS ROOT -o FILE, or --list",
            )
    suffix = options.output.suffix.lower()
    form = options.format or SUFFIXES.get(suffix)
    if form is None or SUFFIXES.get(suffix) != form:
        raise UsageError(
            f"the output is {options.output}{f' in the format {form}' if form else ''}",
            expected="a name that ends in .csv, or in .json for speechbrain",
        )
    if options.corpus != GENERIC and (options.table or options.name):
        raise UsageError(f"--table and --name are for {GENERIC}")
    return str(form)


def _corpus(options: argparse.Namespace) -> Corpus:
    from ..corpora.emoset import emoset, names_in_use, plain
    from ..corpora.known import CORPORA
    from ..corpora.known.generic import find_tables, generic
    from ..errors import UsageError

    if options.corpus == GENERIC:
        if not options.root.is_dir():
            raise UsageError(f"{options.root} is no folder", expected="the folder of the audio")
        tables = options.table or find_tables(options.root, but=options.output)
        return generic(tables, options.root, options.name or GENERIC)
    name = names_in_use().get(plain(options.corpus))
    facts = emoset()[name] if name else None
    if facts is None:
        raise UsageError(
            f"{options.corpus!r} is no corpus that is known here",
            expected=f"one of {', '.join(CORPORA)}, {GENERIC}",
        )
    if not facts.parser:
        raise UsageError(
            f"the layout of {facts.name} is not public, so no parser reads it",
            remedy=f"exhubert prepare {GENERIC} ROOT --table FILE --name {shlex.quote(facts.name)}",
        )
    return CORPORA[facts.parser]


def _text(prepared: Prepared, form: str) -> str:
    from ..corpora import as_csv, as_speechbrain, manifest_rows

    rows = manifest_rows(prepared)
    return as_csv(rows) if form == "csv" else as_speechbrain(rows)


def _write(path: Path, text: str, *, force: bool) -> bool:
    """Write whole or not at all; False when the same text is there already."""
    from ..errors import UsageError
    from ..files import publish

    data = text.encode("utf-8")
    if path.is_file() and path.read_bytes() == data:
        return False
    if not publish(data, path, replace=force):
        raise UsageError(
            f"{path} exists and says something else",
            remedy="Choose another name with -o, or write over it with --force",
        )
    return True


def _next_command(options: argparse.Namespace, form: str) -> str:
    words = ["exhubert", "extract", str(options.output)]
    if form != "csv" or options.output.resolve().parent != options.root.resolve():
        words += ["--data-root", str(options.root)]
    return shlex.join([*words, "-o", "features"])
