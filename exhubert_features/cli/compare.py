"""``exhubert compare``: finished runs side by side, tested on the same clips."""

from __future__ import annotations

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "runs", metavar="RUN", nargs="+", help="folders of reports; the first is the reference"
    )
    parser.add_argument(
        "-o", "--output", metavar="DIR", required=True, help="for the table and the picture"
    )


def run(options: argparse.Namespace) -> int:
    from ..errors import UsageError
    from ..evaluation.runs import compare_runs, read_run
    from ..report import write_table

    if len(options.runs) < 2:
        raise UsageError("there is one run", expected="two or more to compare")
    runs = [read_run(folder) for folder in options.runs]
    print(write_table(options.output, compare_runs(runs), runs[0].metric), end="")
    print(f"table: {options.output}/comparison.md, .tex, .json, .png")
    return 0
