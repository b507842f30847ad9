"""Audio by URL (s3://, gs://, hf://, https://, ...): fsspec fetches it into a temporary file.

Who may read there is the business of the libraries behind fsspec: they take credentials from the
environment and from files of their own.
"""

from __future__ import annotations

import inspect
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..errors import AudioError, ExHuBERTError, MissingDependency, UsageError

_SCHEMES = "such as s3://, gs://, hf:// or https://"
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")


def is_url(name: str) -> bool:
    """Whether a name is a URL, and no path.

    Examples
    --------
    >>> is_url("s3://bucket/a.wav"), is_url("audio/a.wav"), is_url("C:/audio/a.wav")
    (True, False, False)
    """
    return _URL.match(name) is not None


@contextmanager
def local_copy(name: str) -> Iterator[str]:
    """Give the path of a file, of a temporary copy where the name is a URL.

    What an AudioError says of the copy, it says of the URL.
    """
    if not is_url(name):
        yield name
        return
    with tempfile.NamedTemporaryFile(prefix="exhubert-") as copy:
        with _explained(name):
            _fetch(name, copy.name)
        try:
            yield copy.name
        except AudioError as error:
            error.args = (str(error).replace(copy.name, name),)
            raise


def check_scheme(url: str) -> None:
    """Refuse a URL of an unknown scheme; that its library is missing shows when it is fetched."""
    try:
        import fsspec

        fsspec.get_filesystem_class(url.partition("://")[0])
    except ImportError:
        pass
    except ValueError as error:
        raise UsageError(f"nothing reads {url} ({error})", expected=_SCHEMES) from error


def list_urls(folder: str) -> Iterator[tuple[str, str]]:
    """Give all files below a URL that ends with a slash, by name: path inside it, and URL.

    Hidden folders are passed over.

    Raises
    ------
    AudioError
        When it, or a folder in it, cannot be listed: what is in it is not known then.
    """
    with _explained(folder):
        system, path = _system_of(folder)
        root = path.rstrip("/")
        try:
            top = system.ls(root, detail=True)
        except FileNotFoundError:
            top = []  # in a bucket, a folder without files is none
        for full in _walk(system, root, top):
            yield full[len(root) :].lstrip("/"), system.unstrip_protocol(full)


def _walk(system: Any, folder: str, listed: list[dict[str, Any]]) -> Iterator[str]:
    """Give the files of a folder by name, then those of its folders.

    fsspec's own walk passes over folders that cannot be listed.
    """
    kinds = {one["name"].rstrip("/"): one["type"] for one in listed}
    kinds.pop(folder, None)  # some systems have a marker for the folder itself
    folders = sorted(name for name, kind in kinds.items() if kind == "directory")
    yield from sorted(set(kinds) - set(folders))
    for inner in folders:
        if not inner.rpartition("/")[2].startswith("."):
            yield from _walk(system, inner, system.ls(inner, detail=True))


def _fetch(url: str, target: str) -> None:
    """Copy the file at a URL into an empty one."""
    system, path = _system_of(url)
    failure: OSError | None = None
    try:
        system.get_file(path, target)
    except OSError as error:
        failure = error
    # Of a folder, some systems give nothing and say nothing.
    if (failure or not Path(target).stat().st_size) and system.isdir(path):
        raise AudioError(
            f"{url} is a folder",
            expected="a file",
            remedy="A slash at its end reads it as a folder",
            kind="directory",
        )
    if failure:
        raise failure


def _system_of(url: str) -> tuple[Any, str]:
    """Give fsspec's file system of a URL, and the path in it."""
    try:
        import fsspec
    except ModuleNotFoundError as error:
        raise MissingDependency(
            f"{url} is a URL, and fsspec is not installed",
            remedy="pip install 'exhubert-features[remote]'",
        ) from error
    try:
        if "::" in url:
            scheme = url.partition("://")[0]
            kind = fsspec.get_filesystem_class(scheme)
            if not _lies_in_target(kind):
                system = fsspec.filesystem(scheme, **kind._get_kwargs_from_urls(url))
                return system, kind._strip_protocol(url)
        return fsspec.core.url_to_fs(url)
    except ImportError as error:
        raise MissingDependency(
            f"what reads {url} is not installed ({error})",
            remedy="Install it with pip: s3fs, gcsfs, adlfs, aiohttp, ...",
        ) from error
    except ValueError as error:
        raise AudioError(
            f"nothing reads {url} ({error})", expected=_SCHEMES, kind="unreachable"
        ) from error


def _lies_in_target(kind: type) -> bool:
    """Whether such a file system lies in another, as that of a zip file does.

    Only there is what follows ``::`` a target, as in ``zip://a.wav::s3://bucket/corpus.zip``;
    fsspec would take any name with ``::`` in it for such a chain.
    """
    makers = (inspect.signature(base.__init__).parameters for base in kind.__mro__)  # type: ignore[misc]
    return any("target_protocol" in parameters for parameters in makers)


@contextmanager
def _explained(url: str) -> Iterator[None]:
    """Name the URL in whatever the library of its protocol raises."""
    try:
        yield
    except ExHuBERTError:
        raise
    except Exception as error:
        raise AudioError(
            f"{url} cannot be fetched ({type(error).__name__}: {error})",
            expected="a file that may be read from here",
            remedy="Check the address and the credentials, and run the same command again",
            kind="missing" if isinstance(error, FileNotFoundError) else "unreachable",
        ) from error
