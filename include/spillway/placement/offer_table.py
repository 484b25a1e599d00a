"""Many offers held in columns, and the decision over them: the same as `choose` makes, in about a millisecond.

Offers that differ only in host, place and price go the same way for a task, so they form a *class*: one market, accelerator,
hazard, start, speed, end and price of transfers. Within a class the cost rises with the price. So each class is kept sorted by
price, the first row that fits is its best, and a class whose cheapest hour cannot beat what was found already is not looked
at.

Costs are compared in floating point only to find the few rows that may be the best; among those `choose` decides.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import fields
from datetime import datetime, timedelta
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np

from spillway.model import Market, Offer, TaskSpec
from spillway.placement.columns import (
    ABSOLUTE_USD,
    CHUNK,
    MANY,
    NEVER_US,
    RELATIVE,
    Columns,
    Rows,
    tolerance,
)
from spillway.placement.estimate import estimate
from spillway.placement.feasible import OF_A_KIND
from spillway.placement.fits import Fits

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray


class OfferRows(Protocol):
    """Where whole offers come from, one at a time, when they are needed."""

    def offer(self, row: int) -> Offer:
        """Return the offer of `row`."""
        ...

    def pool(self, row: int) -> str:
        """Return the name of the pool of `row`, which is what ties go by."""
        ...


class Found(NamedTuple):
    """A row that can take the task, and what it is thought to cost, to within a few micro-dollars; the better sorts first.

    Attributes:
        late_us: Microseconds past the deadline, expected.
    """

    late_us: int
    cost_usd: float
    row: int


class OfferTable:
    """Offers in columns, sorted and indexed once. Safe to share: a decision changes nothing in it but a memo."""

    def __init__(self, columns: Columns, source: OfferRows) -> None:
        self.source = source
        self.names = columns.names
        kind = _kinds(columns)
        order = np.lexsort((columns.effective, columns.marginal, kind))
        self.rows: Rows = order.astype(np.int64)
        self.columns = _reordered(columns, order)
        starts = np.flatnonzero(np.diff(kind[order], prepend=-1))
        self._starts = starts
        self._ends = np.append(starts[1:], len(order))
        self._position = np.empty_like(self.rows)
        self._position[self.rows] = np.arange(len(self.rows))
        self._memo: dict[int, Offer] = {}
        self._index()

    def __len__(self) -> int:
        return len(self.rows)

    def pool(self, position: int) -> str:
        """Return the name of the pool at a position of the sorted columns."""
        return self.source.pool(int(self.rows[position]))

    @cached_property
    def least_room(self) -> int:
        """How many slots there are at least in each row that has room; 1 where none has."""
        room = self.columns.room[self.columns.room > 0]
        return int(room.min()) if len(room) else 1

    def room_at(self, rows: list[int]) -> NDArray[np.int64]:
        """Return how many slots can be leased in each of some rows."""
        return np.asarray(self.columns.room[self._position[rows]])

    @property
    def kinds(self) -> int:
        """How many classes there are."""
        return len(self._starts)

    def offers(self) -> Iterator[Offer]:
        """Yield every offer, made one at a time."""
        return (self.source.offer(row) for row in range(len(self)))

    def best(
        self,
        task: TaskSpec,
        now: datetime,
        *,
        count: int = 1,
        ignore_room: bool = False,
        without: frozenset[int] = frozenset(),
        fits: Fits | None = None,
    ) -> list[Found]:
        """Return the `count` rows that suit `task` best, and those that cost as much as the last of them.

        With `count` 1, of the rows of a class with one and the same price only the one whose name sorts first is returned.
        They come in no particular order. `ignore_room` asks what would be best if all had room; `fits` is what is
        known already of which rows fit, from a task that `fits_alike` says is like this one.
        """
        fits = fits or Fits(self, task, now, ignore_room=ignore_room, without=without)
        left = task.budget_left_usd
        budget = math.inf if left is None else float(left)
        budget += tolerance(budget)
        found: list[Found] = []
        courses: dict[int, tuple[float, int, float] | None] = {}
        late_limit, cost_limit = math.inf, math.inf  # of the worst that is still wanted
        for number, floor in self._promising(task):
            if late_limit == 0 and floor > cost_limit:
                break
            manner = int(self._manner[number])
            if manner not in courses:
                courses[manner] = self._course(number, task, now)
            course = courses[manner]
            if course is None or course[1] > late_limit:
                continue
            slot_hours, late, moved_usd = course
            most = min(cost_limit if late == late_limit else math.inf, budget) - moved_usd
            if float(self._cheapest[number]) * slot_hours > most + tolerance(most):
                continue
            rows = fits.cheapest(number, slot_hours=slot_hours, count=count, most_usd=most)
            found += [Found(late, usd + moved_usd, row) for row, usd in rows]
            if len(found) >= count:
                found.sort()
                late_limit, cost_limit, _ = found[count - 1]
                cost_limit += tolerance(cost_limit)
                del found[bisect_right(found, (late_limit, cost_limit, MANY)) :]
        return found

    def considered(self, task: TaskSpec) -> int:
        """Return how many rows are of a market and accelerator that the task may use."""
        chosen = self._suitable(task)
        return int((self._ends - self._starts)[chosen].sum())

    def number(self, vocabulary: str, name: str | None) -> int:
        """Return the number of `name` in a vocabulary; -2, which no row has, where it is not in it."""
        return self._numbers[vocabulary].get(name, -2)

    def roomy_chunks(self, cpus: float, memory_gib: float) -> Rows:
        """Return where the chunks of the sorted columns begin that may hold a machine of that size, in order."""
        large = (self._chunk_cpus >= cpus) & (self._chunk_memory_gib >= memory_gib)
        return np.asarray(np.flatnonzero(large) * CHUNK)

    def bounds(self, number: int) -> tuple[int, int]:
        """Return where the rows of class `number` begin and end."""
        return int(self._starts[number]), int(self._ends[number])

    def _index(self) -> None:
        first, columns = self._starts, self.columns
        self._market, self._accelerator = columns.market[first], columns.accelerator[first]
        self._speed = columns.speed[first]
        # A price that nobody can trust, such as nothing at all, says nothing of what its class costs at least.
        unproven = columns.launched_us == NEVER_US
        hopeless = columns.doubted & unproven
        self.hopeful, self.ready = ~hopeless, ~hopeless & (columns.room > 0)
        # Whether the hour matters: whether there are prices that grow old, or launches that are forgotten.
        self.ages = bool((columns.priced_us != NEVER_US).any() or (~unproven).any())
        possible = np.where(hopeless, np.inf, columns.marginal)
        self._cheapest = np.minimum.reduceat(possible, first) if len(first) else possible
        # Classes that differ in their accelerator only go the same way.
        self._manner = _manners(columns)[first]
        self._most_cpus = np.maximum.reduceat(columns.cpus, first) if len(first) else columns.cpus
        chunks = np.arange(0, len(columns.cpus), CHUNK)
        self._chunk_cpus, self._chunk_memory_gib = (
            np.maximum.reduceat(sizes, chunks) if len(chunks) else sizes
            for sizes in (columns.cpus, columns.memory_gib)
        )
        self._numbers: dict[str, dict[str | None, int]] = {
            key: {name: number for number, name in enumerate(names)}
            for key, names in self.names.items()
        }

    def _suitable(self, task: TaskSpec) -> NDArray[np.bool_]:
        """Return the classes of a market, accelerator and size that may do; not every one of them has to."""
        allowed = np.array([market in task.markets for market in Market])
        shapes = task.shapes
        chosen = allowed[self._market] & np.isfinite(self._cheapest)
        chosen &= self._most_cpus >= min(shape.cpus for shape in shapes)
        if any(shape.accelerator is None for shape in shapes):
            return np.asarray(chosen)
        right = np.zeros(len(chosen), dtype=bool)
        for shape in shapes:
            right |= self._accelerator == self.number("accelerator", shape.accelerator)
        return np.asarray(chosen & right)

    def _promising(self, task: TaskSpec) -> Iterator[tuple[int, float]]:
        """Yield the classes that may do and what each costs at least, nothing going wrong; the lowest first."""
        chosen = np.flatnonzero(self._suitable(task))
        slot_hours = task.work / timedelta(hours=1) * task.nodes / self._speed[chosen]
        floor = self._cheapest[chosen] * slot_hours
        for place in np.argsort(floor, kind="stable"):
            yield int(chosen[place]), float(floor[place]) * (1 - RELATIVE) - ABSOLUTE_USD

    def _course(
        self, number: int, task: TaskSpec, now: datetime
    ) -> tuple[float, int, float] | None:
        """Return the slot hours, microseconds past the deadline and cost of transfers; None where the class cannot do."""
        one = self._representative(number)
        if any(check(task, one, now) for check in OF_A_KIND):
            return None
        expected = estimate(task, one)
        leased = expected.leased
        late = timedelta(0)
        if task.deadline is not None:
            late = max(leased - (task.deadline - now), late)
        moved_usd = float(expected.transfer_usd)
        slot_hours = leased / timedelta(hours=1) * task.nodes
        return slot_hours, late // timedelta(microseconds=1), moved_usd

    def _representative(self, number: int) -> Offer:
        if number not in self._memo:
            self._memo[number] = self.source.offer(int(self.rows[self._starts[number]]))
        return self._memo[number]


def _manners(columns: Columns) -> NDArray[np.int64]:
    """Return for each row the number of the way a run goes on it: market, hazard, start, speed, end, transfers."""
    hazard = np.nan_to_num(columns.preemptions_per_hour, nan=-1.0)
    return _together(
        columns.market,
        hazard,
        columns.restart_us,
        columns.speed,
        columns.ends_us,
        columns.tariff,
    )


def _kinds(columns: Columns) -> NDArray[np.int64]:
    """Return the number of the class of each row."""
    return _together(_manners(columns), columns.accelerator)


def _together(*columns: NDArray[np.generic]) -> NDArray[np.int64]:
    """Return a number for each row that two rows share when they are equal in every column."""
    number = np.zeros(len(columns[0]), dtype=np.int64)
    for column in columns:
        if not len(column) or (column == column[0]).all():
            continue
        found, place = np.unique(column, return_inverse=True)
        number = np.unique(number * len(found) + place, return_inverse=True)[1]
    return number


def _reordered(columns: Columns, order: Rows) -> Columns:
    arrays = {
        one.name: getattr(columns, one.name)[order]
        for one in fields(columns)
        if one.name != "names"
    }
    return Columns(**arrays, names=columns.names)
