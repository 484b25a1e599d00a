"""Small tables from files: CSV with a header, or one JSON object a line, each row with its place."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from spillway.errors import ScenarioError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One row; empty cells are left out.

    Attributes:
        place: Where it is, as `file:line`.
    """

    place: str
    cells: dict[str, Any]


def read_text(path: Path) -> str:
    """Return the text of a file.

    Raises:
        ScenarioError: It cannot be read.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise ScenarioError(f"{path}: there is no such file; check the path") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ScenarioError(
            f"{path}: cannot be read ({error}); make it a readable UTF-8 file"
        ) from error


def read_rows(path: Path, wanted: Collection[str]) -> Iterator[Row]:
    """Yield the rows of a `.csv`, or of a `.jsonl` file.

    Raises:
        ScenarioError: It cannot be read, has no rows, or lacks a column of `wanted`.
    """
    text = read_text(path)
    rows = _json_rows(path, text) if path.suffix in (".jsonl", ".ndjson") else _csv_rows(path, text)
    found = False
    for row in rows:
        found = True
        missing = [name for name in wanted if name not in row.cells]
        if missing:
            raise ScenarioError(
                f"{row.place}: has no {', '.join(missing)}; each row needs {', '.join(wanted)}"
            )
        yield row
    if not found:
        raise ScenarioError(
            f"{path}: has no rows; give it a header with {', '.join(wanted)}, and a row"
        )


def _csv_rows(path: Path, text: str) -> Iterator[Row]:
    reader = csv.DictReader(text.splitlines())
    for cells in reader:
        place = f"{path}:{reader.line_num}"
        if None in cells:
            raise ScenarioError(
                f"{place}: has more cells than the header; quote cells that hold commas"
            )
        yield Row(
            place=place,
            cells={
                name.strip(): cell.strip() for name, cell in cells.items() if cell and cell.strip()
            },
        )


def _json_rows(path: Path, text: str) -> Iterator[Row]:
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        place = f"{path}:{number}"
        try:
            cells = json.loads(line)
        except json.JSONDecodeError as error:
            raise ScenarioError(
                f"{place}: not JSON: {error.msg}; write one object a line"
            ) from error
        if not isinstance(cells, dict):
            raise ScenarioError(f"{place}: not an object; write {{...}} with a key for each column")
        yield Row(place=place, cells={k: v for k, v in cells.items() if v is not None})
