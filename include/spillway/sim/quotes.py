"""What the pools offer at a moment of the simulation, by the functions that make offers in production."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING

from spillway.catalog.offers import make_offers
from spillway.model import (
    MonthlyMinimum,
    Offer,
    PlannedSlots,
    Pool,
    PoolDay,
    PoolUsage,
    PrepaidHours,
    SlotInterval,
)
from spillway.placement.forecast import with_forecasts
from spillway.placement.hazard import with_learned_hazards
from spillway.placement.shifting import WEEKS_BACK, RoomAhead, room_ahead, usual_use
from spillway.sim.outcome import Attempt, End
from spillway.sim.scenario import store_jurisdiction

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from spillway.model import TaskSpec
    from spillway.sim.slots import PoolSlots

_HOUR = timedelta(hours=1)


class SimulatedQuotes:
    """Makes offers, with hazards and forecasts learned from the leases of the simulation.

    What is learned is put together once a simulated day: production does it more often, and it changes in days.
    """

    def __init__(self, slots: Mapping[str, PoolSlots]) -> None:
        self._slots = slots
        self._days: dict[str, dict[date, tuple[float, int]]] = defaultdict(dict)
        self._learned: dict[str, Pool] = {}
        self._forecasts: Mapping[str, PoolUsage] = {}
        self._learned_on: date | None = None
        self._taken: dict[str, list[SlotInterval]] = {
            name: [] for name, one in slots.items() if one.pool.commitment is not None
        }
        self._usual: dict[str, Mapping[int, float]] = {}

    def offers(self, spec: TaskSpec, pools: Iterable[str], now: datetime) -> tuple[Offer, ...]:
        """Return what each of `pools` offers to `spec`, whose work is what is left of it."""
        self._learn(now)
        names = sorted(pools)
        return make_offers(
            [self._pool(name) for name in names],
            usage={name: self._usage(name, now) for name in names},
            free_slots={name: self._slots[name].free for name in names},
            task=spec,
            now=now,
            store_jurisdiction=store_jurisdiction(spec),
        )

    def room_ahead(
        self,
        held: Mapping[str, Sequence[SlotInterval]],
        planned: Iterable[PlannedSlots],
        now: datetime,
        until: datetime,
    ) -> list[RoomAhead]:
        """Return when each committed pool is expected to have room; `held` are the leases open on it, by its name."""
        self._learn(now)
        return [
            room_ahead(
                self._slots[name].pool,
                held[name],
                now,
                until,
                usual=self._usual[name],
                planned=planned,
            )
            for name in self._taken
            if name in held
        ]

    def note(self, attempt: Attempt) -> None:
        """Learn from a lease that has ended, on the day it ended on."""
        if attempt.pool in self._taken:
            self._taken[attempt.pool].append(
                SlotInterval(start=attempt.granted_at, end=attempt.ended_at)
            )
        days = self._days[attempt.pool]
        day = attempt.ended_at.astimezone(UTC).date()
        held, losses = days.get(day, (0.0, 0))
        lost = attempt.end is End.PREEMPTED
        days[day] = held + attempt.leased / _HOUR, losses + lost

    def _pool(self, name: str) -> Pool:
        """Return the pool at its present price, with the hazard that was learned."""
        pool, learned = self._slots[name].pool, self._learned[name]
        if pool.list_usd_per_hour != learned.list_usd_per_hour:
            learned = replace(learned, list_usd_per_hour=pool.list_usd_per_hour)
            self._learned[name] = learned
        return learned

    def _usage(self, name: str, now: datetime) -> PoolUsage:
        slots = self._slots[name]
        if not isinstance(slots.pool.commitment, MonthlyMinimum | PrepaidHours):
            return PoolUsage(leased_slots=slots.leased, promised_slots=slots.promised)
        expected = self._forecasts[name]
        return replace(
            slots.usage(now),
            forecast_slot_hours=expected.forecast_slot_hours,
            forecast_error_slot_hours=expected.forecast_error_slot_hours,
        )

    def _learn(self, now: datetime) -> None:
        if self._learned_on == now.date():
            return
        self._learned_on = now.date()
        pools = [slots.pool for slots in self._slots.values()]
        seen = {
            name: [
                PoolDay(day=day, slot_hours=held, losses=losses)
                for day, (held, losses) in sorted(days.items())
            ]
            for name, days in self._days.items()
        }
        learned = with_learned_hazards(pools, seen, now)
        self._learned = {pool.name: pool for pool in learned}
        since = now - WEEKS_BACK * timedelta(weeks=1)
        for name, leases in self._taken.items():
            self._taken[name] = [one for one in leases if one.end > since]
            self._usual[name] = usual_use(self._taken[name], now)
        nothing = {pool.name: PoolUsage() for pool in pools}
        self._forecasts = with_forecasts(nothing, learned, seen, now)
