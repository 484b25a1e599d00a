"""Which rows of a table of offers a task can take."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from spillway.model import Market, TaskSpec
from spillway.placement.columns import CHUNK, MANY, NEVER_US, Rows, microseconds, tolerance
from spillway.placement.feasible import region_allowed
from spillway.placement.trust import LAUNCH_PROVES_FOR, OLDEST_PRICE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from spillway.placement.offer_table import OfferTable

_FIRST_BLOCK: Final = 1024


class _Row(NamedTuple):
    """One row of the table, and where in the sorted columns it is."""

    position: int
    row: int
    usd_per_hour: float


class Fits:
    """Which rows of a table a task can take at a moment, beside what is asked of a whole class."""

    def __init__(
        self,
        table: OfferTable,
        task: TaskSpec,
        now: datetime,
        *,
        ignore_room: bool = False,
        without: frozenset[int] = frozenset(),
    ) -> None:
        self.table, self.columns, self.task = table, table.columns, task
        self.shapes = task.shapes
        self.ready = table.hopeful if ignore_room else table.ready
        if task.nodes > 1:
            enough = self.columns.slots if ignore_room else self.columns.room
            self.ready = self.ready & (enough >= task.nodes)
        self.tests = list(self._tests(now, without=without))
        self._chunks = table.roomy_chunks(
            min(shape.cpus for shape in self.shapes), min(shape.memory_gib for shape in self.shapes)
        )
        self._known: dict[int, tuple[list[_Row], Iterator[_Row]]] = {}

    def cheapest(
        self, number: int, *, slot_hours: float, count: int, most_usd: float
    ) -> list[tuple[int, float]]:
        """Return the `count` cheapest rows of a class that fit, and their ties, with their costs, none above `most_usd`."""
        hours = max(slot_hours, 1e-9)
        limit, taken = most_usd / hours, list[_Row]()
        for one in self._positions(number):
            hourly = one.usd_per_hour
            if hourly > limit:
                break
            taken.append(one)
            if len(taken) == count:
                limit = min(limit, hourly + tolerance(hourly * hours) / hours)
        if count == 1:
            taken = self._first_by_name(taken)
        return [(one.row, one.usd_per_hour * slot_hours) for one in taken]

    def _first_by_name(self, ties: list[_Row]) -> list[_Row]:
        """Return of each price the row whose pool sorts first."""
        columns, table = self.columns, self.table
        by_price: dict[tuple[float, float], list[_Row]] = {}
        for one in ties:
            key = (one.usd_per_hour, float(columns.effective[one.position]))
            by_price.setdefault(key, []).append(one)
        return [
            same[0] if len(same) == 1 else min(same, key=lambda one: table.pool(one.position))
            for same in by_price.values()
        ]

    def _positions(self, number: int) -> Iterator[_Row]:
        """Yield the rows that fit of a class, cheapest first; those found once are not searched for again."""
        if number not in self._known:
            self._known[number] = ([], self._fitting(*self.table.bounds(number)))
        found, more = self._known[number]
        yield from found
        for one in more:
            found.append(one)
            yield one

    def _fitting(self, start: int, end: int) -> Iterator[_Row]:
        """Yield the rows in `[start, end)` that fit, cheapest first; looks at more only as more are asked for."""
        size = _FIRST_BLOCK
        while (start := self._next_chunk(start)) < end:
            stop = min(start + size, end)
            positions = start + np.flatnonzero(self._has_shape(slice(start, stop)))
            for test in self.tests:
                positions = positions[test(positions)]
            yield from self._as_rows(positions)
            start, size = stop, size * 4

    def _next_chunk(self, position: int) -> int:
        """Return the first position from `position` on where a row may be large enough; `MANY` where there is none."""
        place = int(np.searchsorted(self._chunks, position - CHUNK, side="right"))
        return max(position, int(self._chunks[place])) if place < len(self._chunks) else MANY

    def _as_rows(self, positions: Rows) -> Iterator[_Row]:
        """Yield the rows at some positions; most callers want but a few, so they are made a few at a time."""
        first, few = 0, 64
        while first < len(positions):
            some = positions[first : first + few]
            prices, rows = self.columns.marginal[some], self.table.rows[some]
            yield from map(_Row, some.tolist(), rows.tolist(), prices.tolist())
            first, few = first + few, few * 8

    def _has_shape(self, block: slice) -> NDArray[np.bool_]:
        columns = self.columns
        fits = np.zeros(block.stop - block.start, dtype=bool)
        for needed in self.shapes:
            one = columns.cpus[block] >= needed.cpus
            one &= columns.memory_gib[block] >= needed.memory_gib
            if needed.accelerator is not None:
                one &= columns.accelerator[block] == self.table.number(
                    "accelerator", needed.accelerator
                )
            if needed.accelerator_count:
                one &= columns.accelerator_count[block] >= needed.accelerator_count
                one &= columns.accelerator_fraction[block] >= needed.accelerator_fraction
            if needed.accelerator_memory_gib:
                one &= columns.accelerator_memory_gib[block] >= needed.accelerator_memory_gib
            fits |= one
        fits &= self.ready[block]
        return fits

    def _tests(
        self, now: datetime, *, without: frozenset[int]
    ) -> Iterator[Callable[[Rows], NDArray[np.bool_]]]:
        columns, task = self.columns, self.task
        if self.table.ages:
            yield self._trusted(now)
        if task.max_usd_per_hour is not None:
            cap = float(task.max_usd_per_hour)
            yield lambda rows: columns.marginal[rows] <= cap
        if task.regions:
            yield self._among("region", columns.region, lambda name: region_allowed(task, name))
        if task.providers:
            yield self._among("provider", columns.provider, task.providers.__contains__)
        if task.architectures:
            yield self._among("architecture", columns.architecture, task.architectures.__contains__)
        if task.residency:
            for column in (columns.jurisdiction, columns.store_jurisdiction):
                yield self._among("jurisdiction", column, task.residency.__contains__)
        if without:
            gone = np.array(sorted(without))
            yield lambda rows: ~np.isin(self.table.rows[rows], gone)

    def _among(
        self, vocabulary: str, column: NDArray[np.int32], allowed: Callable[[str], bool]
    ) -> Callable[[Rows], NDArray[np.bool_]]:
        """Return the test that a row's name is allowed; what has no name (-1, the last entry) is not."""
        names = self.table.names[vocabulary]
        passes = np.array([*(allowed(name) for name in names), False])
        return lambda rows: passes[column[rows]]

    def _trusted(self, now: datetime) -> Callable[[Rows], NDArray[np.bool_]]:
        columns, now_us = self.columns, microseconds(now)
        proven = now_us - LAUNCH_PROVES_FOR // timedelta(microseconds=1)
        oldest = np.array(
            [now_us - OLDEST_PRICE[market] // timedelta(microseconds=1) for market in Market]
        )

        def trusted(rows: Rows) -> NDArray[np.bool_]:
            priced = columns.priced_us[rows]
            fresh = (priced == NEVER_US) | (priced >= oldest[columns.market[rows]])
            return np.asarray(
                fresh & (~columns.doubted[rows] | (columns.launched_us[rows] >= proven))
            )

        return trusted


def fits_alike(task: TaskSpec) -> object:
    """Return what two tasks have in common when the same rows fit them."""
    return (
        task.resources,
        task.alternatives,
        task.max_usd_per_hour,
        task.regions,
        task.providers,
        task.architectures,
        task.residency,
        task.nodes,
    )
