"""Whose turn it is where only so many can be served at once; decides nothing else."""

from __future__ import annotations

from heapq import nsmallest
from itertools import count
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable

T = TypeVar("T", bound="Hashable")


class Turns(Generic[T]):
    """Serves a bounded number at a time, whoever has waited longest first; those that are gone are forgotten."""

    def __init__(self, at_once: int) -> None:
        self._at_once = at_once
        self._tickets = count(1)
        self._served: dict[T, int] = {}

    def take(self, candidates: Iterable[T], rank: Callable[[T], int] = lambda _: 0) -> list[T]:
        """Return who is served now, lower ranks before all others. Ties go to who comes first in `candidates`."""
        served = {one: self._served.get(one, 0) for one in candidates}
        chosen = nsmallest(self._at_once, served, key=lambda one: (rank(one), served[one]))
        self._served = served | dict(zip(chosen, self._tickets, strict=False))
        return chosen
