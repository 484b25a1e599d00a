"""When slots are there: from recorded capacity, or where nothing was recorded, from a pool's hazard and a seed."""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from typing import TYPE_CHECKING, Final

from spillway.errors import ScenarioError
from spillway.model import Market, Pool
from spillway.placement.hazard import prior
from spillway.sim.scenario import SlotChange

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

MEAN_OUTAGE: Final = timedelta(hours=1)
"""How long a slot that was taken back stays away on average, where nothing was recorded: an assumption."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CapacityTrace:
    """How many slots of a pool could be had, over time.

    Attributes:
        steps: From when on there were how many, oldest first; None for all there are.
        end: First instant of which nothing is known.
        is_table: Whether the last step is meant to hold until there is another.
    """

    pool: str
    steps: tuple[tuple[datetime, int | None], ...]
    end: datetime
    is_table: bool = False

    def __post_init__(self) -> None:
        if not self.steps:
            raise ScenarioError(f"the trace of pool {self.pool} is empty; give it a row")
        for (earlier, _), (later, _) in pairwise(self.steps):
            if later <= earlier:
                raise ScenarioError(
                    f"the trace of pool {self.pool} is not in order: {later} comes after {earlier}; sort it by time"
                )
        if self.end <= self.steps[-1][0]:
            raise ScenarioError(f"the trace of pool {self.pool} ends before its last row")

    def covers(self, start: datetime, end: datetime) -> bool:
        """Whether it tells of all of `[start, end)`."""
        known_until = end if self.is_table and self.end > start else self.end
        return self.steps[0][0] <= start and known_until >= end

    def over(
        self, start: datetime, end: datetime, until: datetime
    ) -> Iterator[tuple[datetime, int | None]]:
        """Yield the steps in `[start, until)`, the one that holds at `start` first.

        A trace that does not cover `[start, end)` is played from its beginning at `start`, over and over.
        """
        shift, length = timedelta(0), self.end - self.steps[0][0]
        repeats = not self.covers(start, end)
        if repeats:
            shift = start - self.steps[0][0]
        held = None
        while True:
            for at, slots in self.steps:
                moved = at + shift
                if moved <= start:
                    held = (start, slots)
                    continue
                if held is not None:
                    yield held
                    held = None
                if moved >= until:
                    return
                yield moved, slots
            if not repeats:
                break
            shift += length
        if held is not None:
            yield held


def recorded_outages(
    trace: CapacityTrace, slots: int, start: datetime, end: datetime, until: datetime
) -> Iterator[SlotChange]:
    """Yield the changes of a pool of `slots`, of which the trace says how many are there: the first ones."""
    there = slots
    for at, count in trace.over(start, end, until):
        now_there = slots if count is None else min(max(count, 0), slots)
        for slot in range(now_there, there):
            yield SlotChange(at=at, pool=trace.pool, slot=slot, is_up=False)
        for slot in range(there, now_there):
            yield SlotChange(at=at, pool=trace.pool, slot=slot, is_up=True)
        there = now_there


def random_outages(pool: Pool, seed: int, start: datetime, until: datetime) -> Iterator[SlotChange]:
    """Yield outages of each slot by itself: lost at the pool's hazard, back after an hour in the mean.

    Both times are exponential, and each slot has random numbers of its own, so a pool's history changes with nothing but
    its name, its hazard and the seed. A spot pool whose hazard is not known has the mean of the prior.
    """
    hazard = pool.preemptions_per_hour
    if hazard is None:
        hazard = prior(pool).preemptions_per_hour
    if hazard <= 0:
        return
    for slot in range(pool.slots):
        numbers = random.Random(f"{seed}/{pool.name}/{slot}")  # noqa: S311 - a simulation
        at = start
        while True:
            at += _whole(numbers.expovariate(hazard))
            if at >= until:
                break
            yield SlotChange(at=at, pool=pool.name, slot=slot, is_up=False)
            at += _whole(numbers.expovariate(1 / (MEAN_OUTAGE / timedelta(hours=1))))
            yield SlotChange(at=at, pool=pool.name, slot=slot, is_up=True)


def all_outages(
    pools: Iterable[Pool],
    traces: Iterable[CapacityTrace],
    *,
    seed: int,
    start: datetime,
    end: datetime,
    until: datetime,
) -> tuple[SlotChange, ...]:
    """Return what becomes of all pools from `start` to `until`, in order: recorded, or else random for spot pools."""
    recorded = {trace.pool: trace for trace in traces}
    found: list[SlotChange] = []
    for pool in pools:
        if pool.name in recorded:
            found += recorded_outages(recorded[pool.name], pool.slots, start, end, until)
        elif pool.market is Market.SPOT or pool.preemptions_per_hour:
            found += random_outages(pool, seed, start, until)
    return tuple(sorted(found, key=lambda change: (change.at, change.pool, change.slot)))


def _whole(hours: float) -> timedelta:
    """Return at least a second: instants that differ by less are one."""
    return timedelta(seconds=max(round(hours * 3600), 1))
