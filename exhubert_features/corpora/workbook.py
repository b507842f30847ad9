"""Rows of an .xlsx workbook, as text: enough for the one corpus whose speakers stand in one."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree
from zipfile import BadZipFile, ZipFile

from ..errors import CorpusError

SPACE = "{http://schemas.openxmlformats.org/spreadsheetml/2006/main}"


def read_workbook(path: Path) -> Iterator[dict[str, str]]:
    """Rows of all sheets under the names in each sheet's first row, in lower case."""
    try:
        with ZipFile(path) as archive:
            sheets = sorted(
                name
                for name in archive.namelist()
                if re.fullmatch(r"xl/worksheets/[^/]+\.xml", name)
            )
            shared = _shared(archive)
            for name in sheets:
                rows = [_cells(row, shared) for row in _parse(archive, name).iter(f"{SPACE}row")]
                if rows:
                    header = {place: text.strip().lower() for place, text in rows[0].items()}
                    for row in rows[1:]:
                        yield {name: row.get(place, "") for place, name in header.items()}
    except (OSError, BadZipFile, ElementTree.ParseError, IndexError, ValueError) as error:
        raise CorpusError(f"the workbook {path} cannot be read ({error})") from error


def _parse(archive: ZipFile, name: str) -> ElementTree.Element:
    return ElementTree.fromstring(archive.read(name))


def _shared(archive: ZipFile) -> list[str]:
    """Texts that cells refer to by number."""
    if "xl/sharedStrings.xml" not in archive.namelist():
        return []
    return [_text(entry) for entry in _parse(archive, "xl/sharedStrings.xml")]


def _cells(row: ElementTree.Element, shared: list[str]) -> dict[str, str]:
    """Text of each cell by its column's letters."""
    cells = {}
    for number, cell in enumerate(row.iter(f"{SPACE}c")):
        column = re.sub(r"\d", "", cell.get("r", "")) or str(number)
        value = cell.find(f"{SPACE}v")
        if cell.get("t") == "s" and value is not None:
            cells[column] = shared[int(value.text or "0")]
        else:
            cells[column] = _text(cell) if value is None else value.text or ""
    return cells


def _text(element: ElementTree.Element) -> str:
    return "".join(part.text or "" for part in element.iter(f"{SPACE}t"))
