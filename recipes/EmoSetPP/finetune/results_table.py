#!/usr/bin/env python3
"""One Markdown table out of the results.json of several runs.

> python results_table.py results/EmoSetPP/held_out/*/results.json

A row for each run, a column for each corpus that any run tested: UAR in percent with its 95 %
interval.
"""

import json
import sys
from pathlib import Path


def table(paths):
    """Lines of the table."""
    runs = {
        str(Path(path).parent.name): json.loads(Path(path).read_text())
        for path in paths
    }
    corpora = sorted({name for run in runs.values() for name in run["corpora"]})
    yield f"| run | held out | {' | '.join(corpora)} | mean |"
    yield "|" + "---|" * (len(corpora) + 3)
    for name, run in runs.items():
        cells = [cell(run["corpora"].get(corpus)) for corpus in corpora]
        mean = f"{100 * run['mean_uar']:.1f}"
        yield f"| {' | '.join([name, run['held_out'] or '', *cells, mean])} |"


def cell(found):
    """``61.2 (55.0 to 67.1)``; empty for a corpus that this run did not test."""
    if found is None:
        return ""
    low, high = found["interval"]
    return f"{100 * found['uar']:.1f} ({100 * low:.1f} to {100 * high:.1f})"


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    print("\n".join(table(sys.argv[1:])))
