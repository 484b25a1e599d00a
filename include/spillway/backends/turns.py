"""Whose turn it is, where one look asks about some of many only, so that calls do not grow with jobs."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


class Turns:
    """Gives turns to names: those first that had none for longest."""

    def __init__(self) -> None:
        self._last: dict[str, int] = {}
        self._turn = 0

    def take(self, names: Iterable[str], most: int) -> list[str]:
        """Return `most` of the names at most, whose turn it is now; ties go to the name that sorts first."""
        self._turn += 1
        chosen = sorted(names, key=lambda name: (self._last.get(name, 0), name))[:most]
        self._last.update(dict.fromkeys(chosen, self._turn))
        return chosen

    def __contains__(self, name: str) -> bool:
        """Return whether a name has had a turn."""
        return name in self._last

    def forget(self, name: str) -> None:
        """Drop what is known of a name that is gone."""
        self._last.pop(name, None)
