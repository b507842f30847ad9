"""Find a checkpoint's files: a local folder, or the Hub through its own client and cache."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import CheckpointError
from ..spec import DEFAULT_REVISION, DEFAULT_SOURCE

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_CONFIG = "config.json"
_PREPROCESSOR = "preprocessor_config.json"
# In order of preference: safetensors cannot hold code at all.
_WEIGHTS = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)


class _Absent(NamedTuple):
    """Why a file is not there, and what to do about it if anything special."""

    reason: str
    remedy: str = ""


Fetch = Callable[[str], "Path | _Absent"]  # from a file name to that file here


@dataclass(frozen=True)
class Checkpoint:
    """The files of one checkpoint. ``revision`` is the Hub's commit, None for a folder.

    ``preprocessor_file`` is looked for where the model's own way to prepare audio counts.
    """

    source: str
    revision: str | None
    config_file: Path
    weight_files: tuple[Path, ...]
    preprocessor_file: Path | None = None

    @property
    def weights_name(self) -> str:
        """The weights file, or the folder of several, for messages."""
        first = self.weight_files[0]
        return str(first if len(self.weight_files) == 1 else first.parent)


def find_checkpoint(
    source: str | Path,
    *,
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
) -> Checkpoint:
    """Find ``config.json`` and the weights; download them when they are on the Hub.

    Parameters
    ----------
    source
        A local folder, or a Hub id ``owner/name``. Only the files needed are fetched, and an
        interrupted download is resumed.
    revision
        Commit, tag or branch on the Hub.
    cache_dir
        Where the Hub's files are kept; the Hub's own default when None.
    local_files_only
        Never use the network.
    """
    folder = Path(source).expanduser()
    if folder.is_dir():
        return _assemble(str(source), None, _local(folder))
    if not _HUB_ID.fullmatch(str(source)):
        raise CheckpointError(
            f"{source} is {'a file' if folder.exists() else 'no folder here'} and no Hub id",
            expected="a folder with config.json and weights, or owner/name on the Hub",
            remedy="Check the path",
        )
    # The pinned commit exists in the released repository only.
    if revision in (None, DEFAULT_REVISION):
        revision = DEFAULT_REVISION if str(source) == DEFAULT_SOURCE else None
    hub = _Hub(str(source), cache_dir, local_files_only)
    config = hub.fetch(_CONFIG, revision)
    # The rest from the same commit, also when the branch moves in between.
    commit = config.parent.name if isinstance(config, Path) else revision
    return _assemble(str(source), commit, partial(hub.fetch, revision=commit))


def _assemble(source: str, revision: str | None, fetch: Fetch) -> Checkpoint:
    config = _demand(source, _CONFIG, fetch)
    found: Path | _Absent = _Absent("")
    for name in _WEIGHTS:
        found = fetch(name)
        if isinstance(found, Path):
            break
    if isinstance(found, _Absent):
        raise CheckpointError(
            f"{source} has no weights: {found.reason}",
            expected=f"one of {', '.join(_WEIGHTS)}",
            remedy=found.remedy or "Other formats (TensorFlow, Flax, fairseq) are not supported",
        )
    if found.name.endswith(".index.json"):
        files = tuple(_demand(source, name, fetch) for name in _shard_names(found))
    else:
        files = (found,)
    # ExHuBERT and HuBERT are prepared alike, whatever their file says.
    own = read_json_object(config).get("model_type") in ("wav2vec2", "wavlm")
    preprocessor = fetch(_PREPROCESSOR) if own else None
    return Checkpoint(
        source, revision, config, files, preprocessor if isinstance(preprocessor, Path) else None
    )


def _demand(source: str, name: str, fetch: Fetch) -> Path:
    found = fetch(name)
    if isinstance(found, _Absent):
        raise CheckpointError(
            f"{source} has no {name}: {found.reason}",
            expected="config.json beside whole weights",
            remedy=found.remedy or "Download or copy the checkpoint again",
        )
    return found


def _shard_names(index: Path) -> list[str]:
    """List the files that a sharded checkpoint's index names; plain names, so none lies outside."""
    content = read_json_object(index)
    shards = content.get("weight_map")
    names = sorted(set(shards.values())) if isinstance(shards, dict) else []
    if not names or any(not isinstance(name, str) or Path(name).name != name for name in names):
        raise CheckpointError(
            f"{index} names no shards, or files outside its folder",
            expected='"weight_map": {tensor name: file name}',
            remedy="Download or copy it again",
        )
    return names


def read_json_object(file: Path) -> dict[str, Any]:
    """One JSON object out of a file."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(
            f"{file} cannot be read as JSON ({error})", remedy="Download or copy it again"
        ) from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{file} holds a {type(content).__name__}", expected="a JSON object")
    return content


def _local(folder: Path) -> Fetch:
    def fetch(name: str) -> Path | _Absent:
        file = folder / name
        return file if file.is_file() else _Absent(f"no such file in {folder}")

    return fetch


class _Hub:
    """One repository on the Hub, behind its client and its cache.

    The Hub is asked once whether it is there. Its own client would try six times for each file.
    """

    def __init__(
        self, repository: str, cache_dir: str | Path | None, local_files_only: bool
    ) -> None:
        self._repository = repository
        self._cache_dir = cache_dir
        self._reached = False
        self._silence = "is not to be used" if local_files_only else ""

    def fetch(self, name: str, revision: str | None) -> Path | _Absent:
        """Find a file in the cache or download it, at a commit, tag or branch."""
        # Its import takes as long as loading a small checkpoint, and folders do not need it.
        from huggingface_hub import errors

        try:
            cached: Path | None = self._download(name, revision, local_files_only=True)
        except errors.LocalEntryNotFoundError:
            cached = None
        if cached is not None and (self._silence or cached.parent.name == revision):
            return cached
        if not self._silence:
            self._ask(name, revision)
        if self._silence:
            return cached or _Absent(
                f"there is no folder of this name here, the file is not in the local cache, and "
                f"the Hub {self._silence}",
                remedy=f"Check the name; or run `{self._command(revision)}` where the Hub can be "
                "reached, and use that folder: --model DIR",
            )
        with self._named_errors(name, revision):
            try:
                return self._download(name, revision, local_files_only=False)
            except errors.LocalEntryNotFoundError:  # a kind of the next, but the connection broke
                raise
            except errors.EntryNotFoundError:
                return _Absent(
                    f"it is not in the Hub's repository at revision {revision or 'main'}"
                )

    def _download(self, name: str, revision: str | None, *, local_files_only: bool) -> Path:
        from huggingface_hub import hf_hub_download

        return Path(
            hf_hub_download(
                self._repository,
                name,
                revision=revision,
                cache_dir=self._cache_dir,
                local_files_only=local_files_only,
            )
        )

    def _ask(self, name: str, revision: str | None) -> None:
        """Make sure, once, that the Hub answers; remember it if it does not."""
        from huggingface_hub import errors, get_hf_file_metadata, hf_hub_url

        if self._reached:
            return
        with self._named_errors(name, revision):
            try:
                get_hf_file_metadata(hf_hub_url(self._repository, name, revision=revision))
            except (errors.EntryNotFoundError, errors.HfHubHTTPError) as error:
                response = getattr(error, "response", None)
                if response is not None and response.status_code >= 500:
                    self._silence = f"is out of order (status {response.status_code})"
                elif not isinstance(error, errors.EntryNotFoundError):
                    raise
            except errors.OfflineModeIsEnabled:
                self._silence = "is not to be used (HF_HUB_OFFLINE is set)"
            except (errors.HTTPError, OSError) as error:  # type: ignore[attr-defined]
                cause = str(error).strip().partition("\n")[0][:120] or type(error).__name__
                self._silence = f"cannot be reached ({cause})"
        self._reached = not self._silence

    def _command(self, revision: str | None) -> str:
        at = f" --revision {revision}" if revision else ""
        return f"hf download {self._repository}{at} --local-dir DIR"

    @contextmanager
    def _named_errors(self, name: str, revision: str | None) -> Iterator[None]:
        """Raise what the Hub's client says as errors that say what to do."""
        from huggingface_hub import errors

        repository = self._repository
        try:
            yield
        except errors.GatedRepoError as error:
            raise CheckpointError(
                f"{repository} is gated",
                remedy="Accept its conditions on its Hub page, then log in with `hf auth login`",
            ) from error
        except errors.RevisionNotFoundError as error:
            raise CheckpointError(
                f"{repository} has no revision {revision}", expected="a commit, tag or branch"
            ) from error
        except (errors.RepositoryNotFoundError, errors.HFValidationError) as error:
            raise CheckpointError(
                f"{repository} is neither a local folder nor a public repository on the Hub",
                remedy="Check the name; for a private one log in with `hf auth login`",
            ) from error
        # HTTPError is the HTTP library's own root; large files may come through another client,
        # which raises RuntimeError.
        except (errors.HTTPError, OSError, RuntimeError) as error:  # type: ignore[attr-defined]
            raise CheckpointError(
                f"the download of {name} from {repository} failed ({error})",
                remedy="Run the same command again: it resumes",
            ) from error
