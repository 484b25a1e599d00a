"""Objects of the API as plain JSON, any part of which may be missing."""

from __future__ import annotations

from datetime import datetime
from typing import Any

Manifest = dict[str, Any]


def part(made: Manifest | None, name: str) -> Manifest:
    """Return the object of that name; empty where there is none."""
    found: Manifest | None = made.get(name) if made is not None else None
    return found or {}


def items(made: Manifest, name: str) -> list[Manifest]:
    """Return the list of that name; empty where there is none."""
    found: list[Manifest] | None = made.get(name)
    return found or []


def text(made: Manifest, name: str) -> str:
    """Return the text of that name; empty where there is none."""
    return str(made.get(name) or "")


def moment(written: object, otherwise: datetime) -> datetime:
    """Return the time that the server wrote, or `otherwise` where there is none."""
    return datetime.fromisoformat(str(written)) if written else otherwise
