"""What completing a job would cost after each thing that could be done with it now."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING

from spillway.errors import SpecError
from spillway.placement.policy_values import Option

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from spillway.placement.policy_values import JobProgress, PoolView
    from spillway.placement.sight import PoolSight, Sight
    from spillway.placement.value_table import ValueTable


class Weighing:
    """All options of one job at one moment, priced, if `fallback` is the last resort.

    Work is counted at its pace, and prices are for the work that it does in an hour.
    """

    def __init__(
        self,
        job: JobProgress,
        pools: Sequence[PoolView],
        now: datetime,
        believed: Sight,
        table: ValueTable,
        fallback: PoolView,
    ) -> None:
        job, pools = counted_at(fallback.pace, job, pools)
        self.job, self.pools, self.table, self.believed = job, pools, table, believed
        self.now = now
        self.work = hours_of(job.work_left)
        self.slack = slack_hours(job, now)
        self.restart = hours_of(job.restart_overhead)
        self.least_restart = self.restart + hours_of(least_extra_restart(pools))
        self.fallback = next(pool for pool in pools if pool.name == fallback.name)
        self.held = job.held.pool if job.held is not None else None
        self.market = believed.market
        self.idle = table.idle_costs(self.work, self.slack)
        # The unit of the table's costs.
        self.unit = self.fallback.usd_per_hour
        self._on_spot: dict[str, float] = {}
        self._while_found: dict[tuple[float, float], float] = {}

    def options(self) -> list[Option]:
        """Return every option, best first."""
        found = [self.option(None)]
        found += [self.option(pool) for pool in self.pools if self.is_open(pool)]
        found.sort(key=self.rank)
        return found

    def rank(self, option: Option) -> tuple[bool, float, bool, bool, str]:
        """Return the key that sorts the best option first."""
        rescue = option.pool is not None and option.pool in (self.held, self.fallback.name)
        cost = option.expected_usd if option.in_time or rescue else math.inf
        waits = option.pool is None
        moves = waits or option.pool != self.held
        return not option.in_time, round(cost, _DIGITS), moves, waits, option.pool or ""

    def is_open(self, pool: PoolView) -> bool:
        """Whether the pool can be asked: it was not seen full, or it is the last resort."""
        return pool.available is not False or pool.name in (self.held, self.fallback.name)

    def option(self, pool: PoolView | None) -> Option:
        """Return the option of running on `pool`, or of waiting."""
        if pool is None:
            in_time = self.keeps_deadline(None)
            return Option(pool=None, expected_usd=self.waiting(), in_time=in_time)
        cost = self.on_steady(pool) if pool.is_steady else self.on_spot(pool)
        cost += self.move_to(pool)
        return Option(pool=pool.name, expected_usd=cost, in_time=self.keeps_deadline(pool))

    def keeps_deadline(self, pool: PoolView | None) -> bool:
        """Whether steady capacity can still make the deadline after the worst that may happen until the next look."""
        if self.job.deadline is None:
            return True
        look = hours_of(self.job.next_look)
        last_resort = start_before(self.fallback, self.job) + hours_of(self.job.queue) - _SAME_HOURS
        if pool is None:
            return self.slack - look >= last_resort
        restart = self.restart_on(pool)
        if pool.is_steady:
            if self.slack - behind(pool, self.job) >= restart - _SAME_HOURS:
                return True
            if self.hours_there(pool) > look:
                return self.slack - restart - look * max(1.0 - pool.pace, 0.0) >= last_resort
        gained = 0.0
        if pool.name == self.held:
            working = min(look, self.hours_there(pool)) - restart
            gained = self.gained(working * pool.pace)
        return self.slack - look + gained >= last_resort

    def hours_there(self, pool: PoolView) -> float:
        """Return how long the pool's slots are there, in hours."""
        return math.inf if pool.ends_at is None else hours_of(pool.ends_at - self.now)

    def gained(self, working: float) -> float:
        """Return the work gained at the least, in hours, if what is held is lost after so much more of it; less than 0 if lost.

        What no checkpoint holds is lost too. It is never more than what is done between two of them, as long as none is overdue.
        """
        held = self.job.held
        if held is None or held.is_saved_on_notice:
            return max(working, 0.0)
        unsaved, most = hours_of(held.uncommitted), hours_of(self.job.checkpoints_every)
        return -unsaved if unsaved > most else max(working - most, -unsaved)

    def restart_on(self, pool: PoolView) -> float:
        """Return the restart to be served before new work on `pool`, in hours."""
        if self.job.held is not None and pool.name == self.job.held.pool:
            return hours_of(self.job.held.restart_left)
        return self.restart + hours_of(pool.extra_restart)

    def move_to(self, pool: PoolView) -> float:
        """Return what going on on `pool` costs beside the machine, in US dollars: nothing where the job is."""
        return 0.0 if pool.name == self.held else pool.move_usd

    def waiting(self) -> float:
        """Return the cost of holding nothing, in US dollars: the start is still to come, on spot capacity or on the last resort."""
        on_fallback = self.fallback.move_usd
        if not self.believed.pools:
            restart = self.restart + hours_of(self.fallback.extra_restart)
            return self.unit * (self.work + restart) + on_fallback
        idle = self.unit * float(self.market @ self.idle)
        share = self.hours_on_spot(idle, self.least_restart) / (self.work + self.least_restart)
        # Never less than a start on spot costs: it would be put off for a moment that never comes.
        start = max(self.least_move, share * self.least_move + (1.0 - share) * on_fallback)
        return idle + self.repriced(idle, self.least_restart) + self.premium + start

    def on_steady(self, pool: PoolView) -> float:
        """Return the cost of going on on a steady pool, in US dollars: until spot is better, or to the end."""
        restart = self.restart_on(pool)
        done = min((self.hours_there(pool) - restart) * pool.pace, self.work)
        there = restart + done if done > 0.0 else self.hours_there(pool)
        to_the_end = pool.usd_per_hour * there + self.after(pool, done)
        if not self.believed.pools or pool.usd_per_hour < self.unit:
            return to_the_end
        costs = self.table.steady_costs(self.work, self.slack, restart)
        until_spot = min(self.believed.market_stay_hours, self.work, there)
        difference = (pool.usd_per_hour - self.unit) * until_spot
        expected = self.unit * float(self.market @ costs)
        until_spot_is_better = expected + self.repriced(expected, restart) + difference
        return min(to_the_end, until_spot_is_better + self.premium + self.least_move)

    def after(self, pool: PoolView, done: float) -> float:
        """Return the cost of what is left to do when a steady pool ends, so much work having been done there, in US dollars.

        What is not saved is lost with it, unless there is another look before.
        """
        if done >= self.work:
            return 0.0
        there = self.hours_there(pool)
        is_left_before = pool.name != self.held or there > hours_of(self.job.next_look)
        done = max(done, 0.0) if is_left_before else self.gained(done)
        left = self.work - done
        if not self.believed.pools:
            return self.unit * (left + self.restart + hours_of(self.fallback.extra_restart))
        usd = self.unit * float(
            self.market @ self.table.idle_costs(left, self.slack - (there - done))
        )
        return usd + self.repriced(usd, self.least_restart)

    def repriced(self, usd: float, restart: float, stay: float = 0.0) -> float:
        """Return what `usd` of the table comes to more, in US dollars, since spot capacity is not at the table's price.

        A table is made at a rounded price and serves while prices move. By the envelope theorem a small difference of price
        costs it for as long as the job is expected to be on spot; those hours follow from the costs, as all hours
        together are the work and a restart.

        Args:
            usd: What the table says.
            restart: To be served before new work, in hours.
            stay: Hours on spot where it is no cheaper than steady capacity, so that costs do not tell.
        """
        at = self.table.spec.spot_price
        return (self.spot_usd - self.unit * at) * self.hours_on_spot(usd, restart, stay)

    def hours_on_spot(self, usd: float, restart: float, unknown: float = 0.0) -> float:
        """Return for how long a job that costs `usd` by the table is on spot; `unknown` where costs do not tell."""
        at, whole = self.table.spec.spot_price, self.work + restart
        if at >= 1.0 or self.unit <= 0.0:
            return unknown
        return min(max((whole - usd / self.unit) / (1.0 - at), 0.0), whole)

    @cached_property
    def spot_usd(self) -> float:
        """The price that the table's stands for: that of an hour on the cheapest spot pool."""
        return min(pool.usd_per_hour for pool in self.pools if not pool.is_steady)

    @cached_property
    def least_move(self) -> float:
        """What a start on spot capacity costs beside the machine at the least, in US dollars."""
        return min(pool.move_usd for pool in self.pools if not pool.is_steady)

    @cached_property
    def premium(self) -> float:
        """What spot capacity costs more on the pools that have room now than on those that the table takes later, in US dollars.

        They are the same pools. Without this a job would wait, or stay on steady capacity, for better ones that never come.
        """
        open_now = [pool for pool in self.pools if not pool.is_steady and pool.available]
        if len(self.believed.pools) < 2 or not open_now:
            return 0.0
        dearer = (
            self.on_spot(pool) + self.move_to(pool) - self.on_spot_later(pool) - self.least_move
            for pool in open_now
        )
        return max(0.0, min(dearer))

    def on_spot_later(self, pool: PoolView) -> float:
        """Return what `on_spot` would, were the pool one that the table takes later: as cheap and as often evicted."""
        restart = self.restart_on(pool) if pool.name == self.held else self.least_restart
        rate = self.table.spec.evictions_per_hour[0]
        return self.spot_cost(self.believed.pools[pool.name], self.spot_usd, restart, rate)

    def on_spot(self, pool: PoolView) -> float:
        """Return the cost of going on on a spot pool, in US dollars."""
        known = self._on_spot.get(pool.name)
        if known is None:
            there, restart = self.believed.pools[pool.name], self.restart_on(pool)
            known = self.spot_cost(there, pool.usd_per_hour, restart, there.evictions_per_hour)
            self._on_spot[pool.name] = known
        return known

    def spot_cost(
        self, there: PoolSight, usd_per_hour: float, restart: float, evictions_per_hour: float
    ) -> float:
        """Return the cost of going on on a spot pool of which that is believed, at that price and rate of evictions.

        Where the pool was not looked at, asking for it may find nothing, which leaves the job waiting until the next look.
        """
        expected = there.chance * self.while_found(restart, evictions_per_hour)
        if there.chance < 1.0:
            expected += (1.0 - there.chance) * float(self.believed.missed @ self.idle)
        usd = self.unit * expected
        stay = there.chance * min(there.stay_hours, self.work)
        dearer = usd_per_hour - self.spot_usd
        return usd + self.repriced(usd, restart, stay) + dearer * stay

    def while_found(self, restart: float, evictions_per_hour: float) -> float:
        """Return the table's cost of running on a spot pool that has room, which several pools have in common."""
        asked = restart, evictions_per_hour
        known = self._while_found.get(asked)
        if known is None:
            running = self.table.spot_costs(self.work, self.slack, restart, evictions_per_hour)
            known = self._while_found[asked] = float(self.believed.found @ running)
        return known


def fallback_of(pools: Sequence[PoolView], job: JobProgress, now: datetime) -> PoolView:
    """Return the steady pool with room that does the work for the least, or that one when none was seen to have any.

    One that ends before the deadline does where none stays, and one that ends before the work would be done where there is
    nothing else.

    Raises:
        SpecError: There is no steady pool.
    """
    return last_resorts(pools, job, now)[0]


def last_resorts(
    pools: Sequence[PoolView], job: JobProgress, now: datetime
) -> tuple[PoolView, ...]:
    """Return the fallback, and after it each pool that does as well and is cheaper by the hour, or could be started on later.

    Raises:
        SpecError: There is no steady pool.
    """

    def is_no_use(pool: PoolView) -> tuple[bool, bool]:
        needed = job.restart_overhead + pool.extra_restart + job.work_left / pool.pace
        ends_too_early = pool.ends_at is not None and pool.ends_at < now + needed
        return ends_too_early, pool.available is False

    def rank(pool: PoolView) -> tuple[float, float, str]:
        return ends_early(pool, job), pool.usd_per_hour / pool.pace, pool.name

    steady = [pool for pool in pools if pool.is_steady]
    if not steady:
        raise SpecError(
            "no steady pool to fall back on when spot capacity fails: allow on_demand, reserved or partner capacity"
        )
    best = min(is_no_use(pool) for pool in steady)
    found: list[PoolView] = []
    for pool in sorted((pool for pool in steady if is_no_use(pool) == best), key=rank):
        price, needed = pool.usd_per_hour, start_before(pool, job) + _SAME_HOURS
        if all(price < one.usd_per_hour or needed < start_before(one, job) for one in found):
            found.append(pool)
    most = _TOO_DEAR * found[0].usd_per_hour / found[0].pace
    return tuple(pool for pool in found if pool.usd_per_hour / pool.pace <= most)


def start_before(pool: PoolView, job: JobProgress) -> float:
    """Return how long before the deadline, less the work left, a start on a steady pool has to be made, in hours."""
    return hours_of(job.restart_overhead + pool.extra_restart) + behind(pool, job)


def behind(pool: PoolView, job: JobProgress) -> float:
    """Return the slack that a steady pool takes beside a start, in hours: it is slower, or ends before the deadline."""
    return ends_early(pool, job) + hours_of(job.work_left) * (1.0 / pool.pace - 1.0)


def ends_early(pool: PoolView, job: JobProgress) -> float:
    """Return how long before the job's deadline the pool's slots are gone, in hours."""
    if pool.ends_at is None or job.deadline is None:
        return 0.0
    return max(hours_of(job.deadline - pool.ends_at), 0.0)


def counted_at(
    pace: float, job: JobProgress, pools: Sequence[PoolView]
) -> tuple[JobProgress, tuple[PoolView, ...]]:
    """Return the job with its work counted at `pace`, and the pools with prices for the work that it does in an hour."""
    held = job.held and replace(job.held, uncommitted=job.held.uncommitted / pace)
    counted = replace(
        job,
        work_left=job.work_left / pace,
        checkpoints_every=job.checkpoints_every / pace,
        held=held,
    )
    views = (
        replace(pool, usd_per_hour=pool.usd_per_hour * pace / pool.pace, pace=pool.pace / pace)
        for pool in pools
    )
    return counted, tuple(views)


def least_extra_restart(pools: Sequence[PoolView]) -> timedelta:
    """Return what every start adds to the job's restart overhead at the least: on spot pools, where there are any."""
    spots = [pool.extra_restart for pool in pools if not pool.is_steady]
    return min(spots or [pool.extra_restart for pool in pools], default=timedelta(0))


def slack_hours(job: JobProgress, now: datetime) -> float:
    """Return the time left beside the work left, in hours."""
    if job.deadline is None:
        return math.inf
    return hours_of(job.deadline - now - job.work_left)


def hours_of(duration: timedelta) -> float:
    """Return `duration` in hours."""
    return duration / timedelta(hours=1)


_SAME_HOURS = 1e-6
_DIGITS = 9
_TOO_DEAR = 2.0
