"""Several jobs over pools whose prices depend on what the others take: the mix that adds least to the bill.

Job by job the cheapest pool is not the cheapest set: a long job that takes the last committed hours may push two short
ones past them. The search here is exact on small sets, and never worse than job by job on large ones.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Final

from spillway.model import Pool, PoolUsage
from spillway.placement.price import hours, price

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    _Descent = Iterator["_Descent"]

# Nodes of the search, each a few prices: about a second at most. Eight jobs over four pools need a few hundred.
DEFAULT_EFFORT: Final = 5_000


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolRoom:
    """A pool as the mix sees it.

    Attributes:
        room: How many more slots it has now.
    """

    pool: Pool
    usage: PoolUsage
    room: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Mix:
    """Where each job goes.

    Attributes:
        pools: For each job, in the order given, the name of its pool; None where no pool has room for it.
        added_usd: What all of them together are expected to add to the bill.
        is_proven: Whether no other mix is cheaper; False where the search was cut short.
    """

    pools: tuple[str | None, ...]
    added_usd: Decimal
    is_proven: bool


def cheapest_mix(
    jobs: Sequence[Mapping[str, timedelta]],
    rooms: Sequence[PoolRoom],
    now: datetime,
    *,
    nodes: Sequence[int] | None = None,
    effort: int = DEFAULT_EFFORT,
) -> Mix:
    """Return the mix that leaves the fewest jobs unplaced and, of those, adds least to the bill.

    Args:
        jobs: For each job, the expected leased time on every pool that can take it, by name.
        rooms: The pools, with their use as it is before any of the jobs.
        now: When all of them start.
        nodes: For each job, how many slots of its pool it takes; one each unless given.
        effort: How many partial mixes to look at before the best one so far is taken.
    """
    sizes = [1] * len(jobs) if nodes is None else nodes
    search = _Search(jobs, sizes, sorted(rooms, key=lambda entry: entry.pool.name), now, effort)
    return search.run()


class _Search:
    """Branch and bound, the jobs of the most slot hours first.

    The hours a pool has been given count as forecast use when the next job is priced, so prices only rise on the way
    down: what the jobs left would cost at the prices of now is a lower bound. The first leaf is the greedy mix.

    Source: Land and Doig, "An automatic method of solving discrete programming problems", Econometrica 28 (3), 1960.
    """

    def __init__(
        self,
        jobs: Sequence[Mapping[str, timedelta]],
        nodes: Sequence[int],
        rooms: Sequence[PoolRoom],
        now: datetime,
        effort: int,
    ) -> None:
        self._jobs, self._pools, self._now, self._effort = jobs, rooms, now, effort
        self._nodes = nodes
        self._order = sorted(range(len(jobs)), key=lambda job: -_longest(jobs[job]) * nodes[job])
        self._taken = [Decimal(0)] * len(rooms)
        self._room = [entry.room for entry in rooms]
        self._chosen: list[int | None] = [None] * len(jobs)
        self._prices: dict[tuple[int, Decimal, timedelta, int], Decimal] = {}
        self._best: tuple[int, Decimal, tuple[int | None, ...]] | None = None

    def run(self) -> Mix:
        # A stack of our own: the way down is as long as there are jobs.
        under_way = [self._descend(0, unplaced=0, cost=Decimal(0))]
        while under_way:
            deeper = next(under_way[-1], None)
            if deeper is None:
                under_way.pop()
            else:
                under_way.append(deeper)
        assert self._best is not None  # the first way down always reaches a leaf
        _, cost, chosen = self._best
        names = tuple(None if at is None else self._pools[at].pool.name for at in chosen)
        return Mix(pools=names, added_usd=cost, is_proven=self._effort > 0)

    def _descend(self, depth: int, *, unplaced: int, cost: Decimal) -> Iterator[_Descent]:
        """Look at the mixes below one that is decided down to `depth`, yielding each descent for the caller to go through."""
        self._effort -= 1
        if depth == len(self._order):
            if self._best is None or (unplaced, cost) < self._best[:2]:
                self._best = unplaced, cost, tuple(self._chosen)
            return
        options = self._options(self._order[depth])
        for added, at, length in options:
            if not self._may_win(depth + 1, at, length, unplaced=unplaced, cost=cost + added):
                continue
            self._take(depth, at, length)
            yield self._descend(depth + 1, unplaced=unplaced, cost=cost + added)
            self._give_back(depth, at, length)
        if self._best is None or (unplaced + 1, cost) < self._best[:2]:
            yield self._descend(depth + 1, unplaced=unplaced + 1, cost=cost)

    def _may_win(
        self, depth: int, at: int, length: timedelta, *, unplaced: int, cost: Decimal
    ) -> bool:
        if self._best is None:
            return True
        if self._effort <= 0:
            return False
        taken = hours(length) * self._nodes[self._order[depth - 1]]
        self._taken[at] += taken
        bound = cost + sum(
            (min((o[0] for o in self._prices_of(job)), default=Decimal(0)))
            for job in self._order[depth:]
        )
        self._taken[at] -= taken
        return (unplaced, bound) < self._best[:2]

    def _options(self, job: int) -> list[tuple[Decimal, int, timedelta]]:
        needed = self._nodes[job]
        return sorted(option for option in self._prices_of(job) if self._room[option[1]] >= needed)

    def _prices_of(self, job: int) -> list[tuple[Decimal, int, timedelta]]:
        lengths = self._jobs[job]
        return [
            (self._added(at, length, self._nodes[job]), at, length)
            for at, entry in enumerate(self._pools)
            if (length := lengths.get(entry.pool.name)) is not None
        ]

    def _added(self, at: int, length: timedelta, nodes: int) -> Decimal:
        """Return what a lease of `length` adds, the hours that earlier jobs took counted as forecast use."""
        key = at, self._taken[at], length, nodes
        if key not in self._prices:
            entry = self._pools[at]
            expected = entry.usage.forecast_slot_hours + self._taken[at]
            usage = replace(entry.usage, forecast_slot_hours=expected)
            quoted = price(entry.pool, usage, leased=length, now=self._now, slots=nodes)
            self._prices[key] = quoted.marginal * hours(length) * nodes
        return self._prices[key]

    def _take(self, depth: int, at: int, length: timedelta) -> None:
        job = self._order[depth]
        self._chosen[job] = at
        self._taken[at] += hours(length) * self._nodes[job]
        self._room[at] -= self._nodes[job]

    def _give_back(self, depth: int, at: int, length: timedelta) -> None:
        job = self._order[depth]
        self._chosen[job] = None
        self._taken[at] -= hours(length) * self._nodes[job]
        self._room[at] += self._nodes[job]


def _longest(lengths: Mapping[str, timedelta]) -> timedelta:
    return max(lengths.values(), default=timedelta(0))
