"""Find a checkpoint's files: a local folder, or the Hub through its own client and cache."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import CheckpointError
from ..spec import DEFAULT_REVISION, DEFAULT_SOURCE

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_CONFIG = "config.json"
# In order of preference: safetensors cannot hold code at all.
_WEIGHTS = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)

# From a file name to that file here, or to the reason why there is none.
Fetch = Callable[[str], "Path | str"]


@dataclass(frozen=True)
class Checkpoint:
    """The files of one checkpoint. ``revision`` is the Hub's commit, None for a folder."""

    source: str
    revision: str | None
    config_file: Path
    weight_files: tuple[Path, ...]

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
    fetch = _hub(str(source), revision, cache_dir, local_files_only)
    config = fetch(_CONFIG)
    if isinstance(config, Path):
        # The rest from the same commit, also when the branch moves in between.
        commit = config.parent.name
        fetch = _hub(str(source), commit, cache_dir, local_files_only)
        return _assemble(str(source), commit, fetch)
    return _assemble(str(source), revision, fetch)


def _assemble(source: str, revision: str | None, fetch: Fetch) -> Checkpoint:
    config = _demand(source, _CONFIG, fetch)
    found: Path | str = ""
    for name in _WEIGHTS:
        found = fetch(name)
        if isinstance(found, Path):
            break
    if isinstance(found, str):
        raise CheckpointError(
            f"{source} has no weights: {found}",
            expected=f"one of {', '.join(_WEIGHTS)}",
            remedy="Other formats (TensorFlow, Flax, fairseq) are not supported",
        )
    if found.name.endswith(".index.json"):
        shards = tuple(_demand(source, name, fetch) for name in _shard_names(found))
        return Checkpoint(source, revision, config, shards)
    return Checkpoint(source, revision, config, (found,))


def _demand(source: str, name: str, fetch: Fetch) -> Path:
    found = fetch(name)
    if isinstance(found, str):
        raise CheckpointError(
            f"{source} has no {name}: {found}",
            expected="config.json beside whole weights",
            remedy="Download or copy the checkpoint again",
        )
    return found


def _shard_names(index: Path) -> list[str]:
    """The files a sharded checkpoint's index names; plain names only, so none lies outside."""
    content = read_json(index)
    shards = content.get("weight_map")
    names = sorted(set(shards.values())) if isinstance(shards, dict) else []
    if not names or any(not isinstance(name, str) or Path(name).name != name for name in names):
        raise CheckpointError(
            f"{index} names no shards, or files outside its folder",
            expected='"weight_map": {tensor name: file name}',
            remedy="Download or copy it again",
        )
    return names


def read_json(file: Path) -> dict[str, Any]:
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
    def fetch(name: str) -> Path | str:
        file = folder / name
        return file if file.is_file() else f"no such file in {folder}"

    return fetch


def _hub(
    repository: str, revision: str | None, cache_dir: str | Path | None, local_files_only: bool
) -> Fetch:
    # Its import takes as long as loading a small checkpoint, and folders do not need it.
    from huggingface_hub import errors, hf_hub_download

    def fetch(name: str) -> Path | str:
        try:
            return Path(
                hf_hub_download(
                    repository,
                    name,
                    revision=revision,
                    cache_dir=cache_dir,
                    local_files_only=local_files_only,
                )
            )
        except errors.LocalEntryNotFoundError:
            return "it is not in the local cache and the Hub is not reachable or not to be used"
        except errors.EntryNotFoundError:
            return f"it is not in the Hub's repository at revision {revision or 'main'}"
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
        except (errors.HTTPError, OSError, RuntimeError) as error:
            raise CheckpointError(
                f"the download of {name} from {repository} failed ({error})",
                remedy="Run the same command again: it resumes",
            ) from error

    return fetch
