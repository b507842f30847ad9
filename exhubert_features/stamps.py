"""Small JSON data that carries its own hash."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .errors import DamagedStore, ExHuBERTError
from .files import publish, read_regular


def canonical(data: Mapping[str, Any]) -> str:
    """One spelling of JSON data, for hashing and comparing."""
    return json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=True)


def stamped(data: Mapping[str, Any]) -> dict[str, Any]:
    """JSON data with its SHA-256 inside, so that one flipped byte shows."""
    return {**data, "sha256": hashlib.sha256(canonical(data).encode()).hexdigest()}


def unstamped(text: bytes | str) -> dict[str, Any]:
    """Read what :func:`stamped` was given, from its JSON text.

    Raises
    ------
    ValueError
        When the text is no such JSON, or does not match its hash.
    """
    try:
        data = json.loads(text)
        stamp = data.pop("sha256")
        matches = stamped(data)["sha256"] == stamp
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError("it is no JSON with its hash") from error
    if not matches:
        raise ValueError("its hash does not match")
    return data


def write_json(path: Path, data: Mapping[str, Any], *, replace: bool = False) -> bool:
    """Publish JSON data with its hash; see :func:`publish`."""
    content = json.dumps(stamped(data), indent=1, ensure_ascii=True).encode()
    return publish(content, path, replace=replace)


def read_json(
    path: Path,
    *,
    error: type[ExHuBERTError] = DamagedStore,
    remedy: str = "Run `exhubert verify --repair` on the store",
) -> dict[str, Any]:
    """Read what :func:`write_json` wrote.

    Parameters
    ----------
    path
        The file.
    error, remedy
        What to raise, and to advise, when the content does not match its hash.

    Raises
    ------
    OSError
        When the file cannot be read.
    """
    try:
        return unstamped(read_regular(path))
    except ValueError as reason:
        raise error(f"{path} is not what was written: {reason}", remedy=remedy) from reason
