"""How ``exhubert extract`` reads what is asked for and says what came of it, on any engine."""

from __future__ import annotations

import argparse
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..spec import ExtractionSpec, parse_layers
from .wording import count

if TYPE_CHECKING:
    from ..records import ClipFailure
    from ..store import FeatureStore

FAILURES_SHOWN = 5  # of each kind; all of them are in the store


class FailureCounts:
    """How many clips of a run failed, by kind, and the first few; of millions no more is held.

    Parameters
    ----------
    failures
        The first ones.
    """

    def __init__(self, failures: Iterable[ClipFailure] = ()) -> None:
        self.kinds = Counter[str]()
        self.first: dict[str, list[ClipFailure]] = defaultdict(list)
        self.add(failures)

    def add(self, failures: Iterable[ClipFailure]) -> None:
        """Count some more."""
        for failure in failures:
            self.kinds[failure.kind] += 1
            if len(self.first[failure.kind]) < FAILURES_SHOWN:
                self.first[failure.kind].append(failure)


def read_settings(options: argparse.Namespace) -> dict[str, Any]:
    """Read what the options ask for, as :meth:`Encoder.extract` takes it; refuse what cannot be."""
    settings: dict[str, Any] = {
        "pools": tuple(name.strip() for name in options.pools.split(",")),
        "preprocess": options.preprocess,
        "window": options.window,
        "hop": options.window if options.hop is None else options.hop,
        "segments": options.segments,
        "dtype": options.dtype,
        "logits": options.logits,
        "channel": options.channel,
    }
    ExtractionSpec(**settings)
    frame_layers = parse_layers(options.frame_layers) if options.frame_layers else ()
    return {**settings, "layers": parse_layers(options.layers), "frame_layers": frame_layers}


def begun_precision(output: Path) -> str | None:
    """Tell the precision of the store that is there already: it goes on in that."""
    from ..store.journal import read_description

    if not (output / "store.json").is_file():
        return None
    return str(read_description(output)["fingerprint"].model.precision)


def stopped(output: Path) -> int:
    """After Ctrl-C: what is safe, and how to go on."""
    from ..store import FeatureStore

    rows = len(FeatureStore(output)) if (output / "store.json").is_file() else 0
    print(
        f"Stopped. {output} holds {count(rows, 'row')}. "
        "Run the same command again to go on from there.",
        file=sys.stderr,
    )
    return 130


def summarise(store: FeatureStore, failures: FailureCounts, tried: int) -> int:
    """Say what is in the store now and what failed; 3 when anything of this run did."""
    status = zip(store.column("clip_id"), store.column("status"), strict=True)
    silent = {name for name, state in status if "silent" in state}
    print(f"{store.path}: {count(len(store), 'row')}")
    if silent:
        print(f"Warning: {count(len(silent), 'silent clip')}, such as {min(silent)}")
    failed = failures.kinds.total()
    if not failed:
        return 0
    print(f"Failed: {failed:,} of {count(tried, 'clip')}", file=sys.stderr)
    _show_failures(failures)
    print(f"All of them: exhubert inspect {store.path}", file=sys.stderr)
    return 3


def _show_failures(failures: FailureCounts) -> None:
    """Print the first few of each kind to stderr."""
    for kind, number in failures.kinds.most_common():
        print(f"  {kind}: {number:,}", file=sys.stderr)
        for failure in failures.first[kind]:
            print(f"    {failure.id}: {failure.reason}", file=sys.stderr)
        if number > FAILURES_SHOWN:
            print(f"    and {number - FAILURES_SHOWN:,} more", file=sys.stderr)
