"""Checkpoints from the Hub, played by a local server; and from its cache, offline."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from checkpoint_files import rewrite

from exhubert_features.checkpoint import find_checkpoint, load_model
from exhubert_features.errors import CheckpointError
from exhubert_features.spec import DEFAULT_REVISION, DEFAULT_SOURCE

COMMIT = "c0ffee" + "0" * 34
PATH = re.compile(r"/([\w-]+/[\w-]+)/resolve/([\w.-]+)/([\w.-]+)")
REFUSALS = {
    "some/gated": (403, "GatedRepo"),
    "some/absent": (404, "RepoNotFound"),
}


class Hub(ThreadingHTTPServer):
    """Serves the files of one folder as every repository; counts and cuts downloads."""

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.folder = folder
        self.requests: list[tuple[str, str, str, str]] = []  # method, revision, file, range
        self.cut_next = False
        self.broken = False

    @property
    def downloads(self) -> list[tuple[str, str]]:
        return [(revision, file) for method, revision, file, _ in self.requests if method == "GET"]


class Handler(BaseHTTPRequestHandler):
    server: Hub

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.answer(body=True)

    def refuse(self, status: int, code: str) -> None:
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def answer(self, *, body: bool) -> None:
        found = PATH.fullmatch(self.path)
        if found is None:
            self.refuse(404, "")
            return
        repository, revision, name = found.groups()
        span = self.headers.get("Range", "")
        self.server.requests.append((self.command, revision, name, span))
        file = self.server.folder / name
        if self.server.broken:
            self.refuse(503, "")
        elif repository in REFUSALS:
            self.refuse(*REFUSALS[repository])
        elif revision not in ("main", COMMIT, DEFAULT_REVISION):
            self.refuse(404, "RevisionNotFound")
        elif not file.exists():
            self.refuse(404, "EntryNotFound")
        else:
            self.send_file(file.read_bytes(), revision, span, body)

    def send_file(self, content: bytes, revision: str, span: str, body: bool) -> None:
        start = int(span.removeprefix("bytes=").partition("-")[0]) if span else 0
        self.send_response(206 if span else 200)
        self.send_header("X-Repo-Commit", COMMIT if revision == "main" else revision)
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        if span:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        if body and self.server.cut_next and len(content) > 100_000:
            self.server.cut_next = False
            self.wfile.write(content[start : len(content) // 2])
            self.wfile.flush()
            self.connection.close()
        elif body:
            self.wfile.write(content[start:])


@pytest.fixture
def hub(small_checkpoint: Path) -> Iterator[Hub]:
    with Hub(small_checkpoint) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def online(hub: Hub, cache: Path, code: str) -> str:
    """Run code in a process of its own: the Hub's client reads its address when imported."""
    result = subprocess.run(
        [sys.executable, "-c", code, str(cache)],
        env={
            **os.environ,
            "HF_ENDPOINT": f"http://127.0.0.1:{hub.server_port}",
            "HF_HUB_OFFLINE": "0",
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_ETAG_TIMEOUT": "2",
            "HF_HOME": str(cache),
        },
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


LOAD = """
import sys
from exhubert_features.checkpoint import load_model
from exhubert_features.errors import CheckpointError
for arguments in {calls}:
    try:
        print(load_model(cache_dir=sys.argv[1], **arguments)[1].revision)
    except CheckpointError as error:
        print(error)
"""


@pytest.mark.slow
def test_downloads_only_what_is_needed_and_works_offline_after(hub: Hub, tmp_path: Path) -> None:
    assert online(hub, tmp_path, LOAD.format(calls=[{"source": "some/body"}])).strip() == COMMIT
    files = {(revision, file) for revision, file in hub.downloads}
    assert files == {("main", "config.json"), (COMMIT, "pytorch_model.bin")}
    model, checkpoint = load_model("some/body", cache_dir=tmp_path, local_files_only=True)
    assert checkpoint.revision == COMMIT
    assert model.config.num_hidden_layers == 4
    again = len(hub.downloads)
    online(hub, tmp_path, LOAD.format(calls=[{"source": "some/body"}]))
    assert len(hub.downloads) == again


@pytest.mark.slow
def test_the_released_model_is_pinned_and_others_are_not(hub: Hub, tmp_path: Path) -> None:
    calls = [
        {"source": DEFAULT_SOURCE},
        {"source": DEFAULT_SOURCE, "revision": "main"},
        {"source": "some/body", "revision": DEFAULT_REVISION},  # load_encoder's own default
    ]
    found = online(hub, tmp_path, LOAD.format(calls=calls)).split()
    assert found == [DEFAULT_REVISION, COMMIT, COMMIT]


@pytest.mark.slow
def test_refusals_are_named(hub: Hub, tmp_path: Path) -> None:
    calls = [
        {"source": "some/gated"},
        {"source": "some/absent"},
        {"source": "some/body", "revision": "v9"},
        {"source": "some/body", "local_files_only": True},
    ]
    gated, absent, revision, offline = online(hub, tmp_path, LOAD.format(calls=calls)).splitlines()
    assert "some/gated is gated" in gated and "hf auth login" in gated
    assert "some/absent is neither a local folder nor a public repository" in absent
    assert "some/body has no revision v9" in revision
    assert "the file is not in the local cache, and the Hub is not to be used" in offline


@pytest.mark.slow
def test_an_interrupted_download_is_resumed(
    hub: Hub, checkpoint_copy: Path, tmp_path: Path
) -> None:
    # The Hub's client writes 10 MB at a time; less than that is not there to be resumed.
    rewrite(checkpoint_copy, lambda state: state.update({"lm_head.bias": torch.zeros(6_000_000)}))
    hub.folder = checkpoint_copy
    hub.cut_next = True
    calls = [{"source": "some/body"}] * 2
    assert COMMIT in online(hub, tmp_path, LOAD.format(calls=calls))
    assert not hub.cut_next
    spans = [span for *_, file, span in hub.requests if file == "pytorch_model.bin" and span]
    assert spans and not any(span.startswith("bytes=0-") for span in spans)


@pytest.mark.slow
def test_repository_without_weights(hub: Hub, tmp_path: Path) -> None:
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "config.json").write_text("{}")
    hub.folder = tmp_path / "files"
    found = online(hub, tmp_path, LOAD.format(calls=[{"source": "some/body"}]))
    assert "some/body has no weights" in found and f"revision {COMMIT}" in found


@pytest.mark.parametrize(
    ("source", "revision"),
    [(DEFAULT_SOURCE, f"--revision {DEFAULT_REVISION} "), ("ckpts/mine", "")],
)
def test_offline_and_not_cached(source: str, revision: str, tmp_path: Path) -> None:
    """A mistyped folder looks like an id: the error names both, and the way to bring files."""
    with pytest.raises(CheckpointError) as raised:
        find_checkpoint(source, cache_dir=tmp_path)
    message = str(raised.value)
    assert "no folder of this name here" in message and "not in the local cache" in message
    assert "HF_HUB_OFFLINE is set" in message
    assert f"`hf download {source} {revision}--local-dir DIR`" in message
    assert "--model DIR" in message


ASK = """
import socket, sys
from exhubert_features.checkpoint import find_checkpoint
from exhubert_features.errors import CheckpointError
import huggingface_hub
calls = []
connect = socket.socket.connect
def counted(*arguments):
    calls.append(arguments[1])
    return connect(*arguments)
socket.socket.connect = counted
try:
    find_checkpoint("some/body", cache_dir=sys.argv[1])
except CheckpointError as error:
    print(len(calls), error)
"""


@pytest.mark.slow
def test_an_unreachable_hub_is_asked_once(hub: Hub, tmp_path: Path) -> None:
    hub.shutdown()
    hub.server_close()  # the port refuses from now on
    calls, message = online(hub, tmp_path, ASK).split(" ", 1)
    assert int(calls) <= 2  # one is ours; the client has an errand of its own
    assert "the Hub cannot be reached" in message and "hf download some/body" in message


@pytest.mark.slow
def test_a_broken_hub_is_no_reason_to_wait(hub: Hub, tmp_path: Path) -> None:
    """What is in the cache will do; without it the status is in the message."""
    online(hub, tmp_path, LOAD.format(calls=[{"source": "some/body"}]))
    hub.broken = True
    hub.requests.clear()
    assert COMMIT in online(hub, tmp_path, LOAD.format(calls=[{"source": "some/body"}]))
    assert len(hub.requests) == 1
    (tmp_path / "empty").mkdir()
    assert "status 503" in online(hub, tmp_path / "empty", ASK)
