"""A worker to whom things happen, as the file that ``EXHUBERT_FAULTS`` names says."""

from __future__ import annotations

import ctypes
import errno
import json
import os
import signal
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray

from exhubert_features.cluster import worker
from exhubert_features.cluster.worker import Ready, Worker
from exhubert_features.extraction import Extraction
from exhubert_features.files import write_error
from exhubert_features.records import ClipFailure, Entry
from exhubert_features.store.writer import Writer

FAULTS = "EXHUBERT_FAULTS"


class FaultyWorker(Worker):
    """Notes its process id, then dies, raises, hangs or waits over the clips that are to blame."""

    def begin(self) -> Ready:
        self.faults = json.loads(Path(os.environ[FAULTS]).read_text(encoding="utf-8"))
        if ray.get_runtime_context().get_node_id() == self.faults.get("elsewhere"):
            self._job = replace(self._job, store=f"{self._job.store}-of-its-own")
            worker.SEEING_SECONDS = 2
        ready = super().begin()
        with Path(self.faults["pids"]).open("a", encoding="utf-8") as file:
            file.write(f"{os.getpid()}\n")
        _patch(self.faults)
        pause = self.faults.get("pause", 0)  # for each batch of windows
        self._encoder.model.register_forward_hook(lambda *_: time.sleep(pause))
        return ready


def _patch(faults: dict[str, Any]) -> None:
    results, publish = Extraction.results, Writer.publish
    node, full = ray.get_runtime_context().get_node_id(), Path(faults["pids"] + "full")

    def touched(clips: Iterable[Entry | ClipFailure]) -> Iterator[Entry | ClipFailure]:
        for clip in clips:
            time.sleep(faults.get("seconds", 0))
            if faults.get("full", node) not in (node, None):
                _wait_for(full)  # else all may be done before the other machine has begun
            if clip.id in faults.get("kills", ()):
                os.kill(os.getpid(), signal.SIGSEGV)
            if clip.id in faults.get("raises", ()):
                raise RuntimeError("a decoder has no idea")
            if clip.id in faults.get("hangs", ()):
                ctypes.PyDLL(None).sleep(3600)  # and no other thread runs, as in some libraries
            if clip.id in faults.get("waits", ()):
                time.sleep(3600)
            if clip.id in faults.get("slow", ()) and _first(Path(faults["pids"] + clip.id)):
                time.sleep(3600)
            yield clip

    def full_disk(self: Writer, rows: Any) -> None:
        if node == faults.get("full"):
            full.touch()
            raise write_error(self.store, OSError(errno.ENOSPC, "No space left on device"))
        publish(self, rows)

    Extraction.results = lambda self, clips, has: results(self, touched(clips), has)  # type: ignore
    Writer.publish = full_disk  # type: ignore[method-assign]


def _first(path: Path) -> bool:
    """Whether nobody was here before."""
    try:
        path.touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def _wait_for(path: Path) -> None:
    end = time.monotonic() + 120
    while not path.exists() and time.monotonic() < end:
        time.sleep(0.1)
