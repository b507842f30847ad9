"""Audio by URL (s3://, gs://, hf://, https://, ...): fsspec fetches it into a temporary file.

Who may read there is the business of the libraries behind fsspec: they take credentials from the
environment and from files of their own.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ..errors import AudioError, ExHuBERTError, MissingDependency, UsageError

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
            system, path = _system_of(name)
            system.get_file(path, copy.name)
        try:
            yield copy.name
        except AudioError as error:
            error.args = (str(error).replace(copy.name, name),)
            raise


def list_urls(folder: str) -> Iterator[tuple[str, str]]:
    """Give all files below a URL that ends with a slash, by name: path inside it, and URL."""
    system, path = _system_of(folder)
    root = path.rstrip("/")
    with _explained(folder):
        for where, _, names in system.walk(root):
            for name in sorted(names):
                full = f"{where.rstrip('/')}/{name}"
                yield full[len(root) :].lstrip("/"), system.unstrip_protocol(full)


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
        system, path = fsspec.core.url_to_fs(url)
    except ImportError as error:
        raise MissingDependency(
            f"what reads {url} is not installed ({error})",
            remedy="Install it with pip: s3fs, gcsfs, adlfs, aiohttp, ...",
        ) from error
    except ValueError as error:
        raise UsageError(
            f"nothing reads {url} ({error})", expected="such as s3://, gs://, hf:// or https://"
        ) from error
    return system, path


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
