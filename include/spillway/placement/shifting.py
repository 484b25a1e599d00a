"""Shifting work in time: whether a task with slack should wait for committed capacity that will be free.

What is owed anyway costs nothing more while it is free. Tonight's free hours are foreseen from two things: when the
leases that are open now are expected to end, and how many slots were taken at the same hour of earlier weeks. What tasks
that wait count on is left to them. It fails where the week is no pattern: a task then goes on as if it had not waited,
which its slack allows for.
"""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Final

from spillway.model import (
    PassedOver,
    Placement,
    PlannedSlots,
    Pool,
    SlotInterval,
    TaskSpec,
    Unplaced,
)
from spillway.model.codec import encode
from spillway.placement.explain import usd
from spillway.placement.price import slots_owed

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

LOOK_AHEAD: Final = timedelta(days=7)
"""How far free hours are looked for; a task whose deadline is further away is asked about again."""

WEEKS_BACK: Final = 4
"""How many weeks the pattern is taken from."""

ASK_AGAIN: Final = timedelta(minutes=10)
"""How often a plan to wait is made again."""

LEAST_SAVING_USD: Final = Decimal("0.01")
LEAST_SAVING: Final = Decimal("0.02")
"""What waiting has to save, in dollars and as a part of the cost now; nobody waits a night for a cent."""

_HOUR: Final = timedelta(hours=1)
_WEEK: Final = timedelta(days=7)


@dataclass(frozen=True, slots=True, kw_only=True)
class RoomAhead:
    """How many slots of a committed pool are expected to be free, hour by hour.

    Attributes:
        since: Start of the first hour.
        free: Slots free throughout each hour, from `since` on.
    """

    pool: str
    since: datetime
    free: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class LaterStart:
    """A plan to wait: where to start, when, for how long, and what that saves."""

    pool: str
    start_at: datetime
    leased: timedelta
    saves_usd: Decimal

    @property
    def reason(self) -> str:
        """The plan in words: `start 02:00 UTC on reserved, saves $31.00`."""
        return f"start {self.start_at:%a %H:%M} UTC on {self.pool}, saves {usd(self.saves_usd)}"


def room_ahead(
    pool: Pool,
    taken: Sequence[SlotInterval],
    now: datetime,
    until: datetime,
    *,
    usual: Mapping[int, float] | None = None,
    planned: Iterable[PlannedSlots] = (),
) -> RoomAhead:
    """Return when `pool` is expected to have room.

    Args:
        pool: A pool with a commitment.
        taken: Its leases of the last `WEEKS_BACK` weeks, and those that are open with their expected ends.
        now: The moment of asking.
        until: How far to look.
        usual: What `usual_use` told of its leases, where that is at hand; `taken` need then hold the open ones only.
        planned: What other tasks that wait count on, of any pool: one slot is not for two of them.
    """
    since = _hour_of(now)
    hours = max(math.ceil((min(until, now + LOOK_AHEAD) - since) / _HOUR), 0)
    pattern = usual_use(taken, now) if usual is None else usual
    promised = [one for one in planned if one.pool == pool.name]
    free: list[int] = []
    for number in range(hours):
        start = since + number * _HOUR
        open_then = sum(one.slots for one in taken if one.is_open and one.end > max(start, now))
        open_then += sum(
            one.slots for one in promised if one.start < start + _HOUR and one.end > start
        )
        mostly = math.ceil(pattern.get(_hour_of_week(start), 0.0) - 1e-9)
        owed = min(slots_owed(pool, start), slots_owed(pool, start + _HOUR - _INSTANT))
        free.append(max(owed - max(open_then, mostly), 0))
    return RoomAhead(pool=pool.name, since=since, free=tuple(free))


def later_start(
    task: TaskSpec,
    decision: Placement,
    ahead: Iterable[RoomAhead],
    now: datetime,
    *,
    wait_until: datetime | None = None,
) -> LaterStart | None:
    """Return the start on committed capacity that saves most against `decision`, or None when none saves enough.

    No start is proposed after which `decision`, begun then instead, could not make the deadline any more, or after
    `wait_until`, where the policy over time says until when the task may wait. Ties go to the earlier start, then to the pool
    whose name sorts first.
    """
    if task.deadline is None:
        return None
    cost_now, last_start = decision.estimate.cost_usd, task.deadline - decision.estimate.leased
    if wait_until is not None:
        last_start = min(last_start, wait_until)
    least = max(LEAST_SAVING_USD, LEAST_SAVING * cost_now)
    estimates = {p.offer.pool: p.estimate for p in decision.passed_over if p.can_wait}
    found: list[LaterStart] = []
    for room in ahead:
        there = estimates.get(room.pool)
        if there is None or cost_now - there.cost_usd < least:
            continue
        if room.free and room.free[0] >= task.nodes:
            continue  # it is full now, and not by our leases: nothing we know says until when
        latest = min(last_start, task.deadline - there.leased)
        start = _first_room(room, task.nodes, there.leased, now, latest)
        if start is not None:
            saves = cost_now - there.cost_usd
            found.append(
                LaterStart(pool=room.pool, start_at=start, leased=there.leased, saves_usd=saves)
            )
    return min(found, key=lambda one: (-one.saves_usd, one.start_at, one.pool), default=None)


def slots_planned(task: TaskSpec, plan: LaterStart) -> PlannedSlots:
    """Return the slots that a plan counts on."""
    end = plan.start_at + plan.leased
    return PlannedSlots(pool=plan.pool, start=plan.start_at, end=end, slots=task.nodes)


def waiting(
    decision: Placement, plan: LaterStart, ahead: Iterable[RoomAhead], now: datetime
) -> Unplaced:
    """Return the decision to wait as `plan` says, with the room `ahead` that it was made of.

    It is made again every `ASK_AGAIN`, since room may come sooner.
    """
    instead = PassedOver(
        offer=decision.offer,
        reason=f"{plan.reason}, against {usd(decision.estimate.cost_usd)} here now",
        can_wait=True,
        estimate=decision.estimate,
    )
    return Unplaced(
        passed_over=(instead, *decision.passed_over),
        task=decision.task,
        decided_at=now,
        weighed=decision.weighed,
        until=min(plan.start_at, now + ASK_AGAIN),
        reason=plan.reason,
        foreseen=encode(tuple(ahead), tuple[RoomAhead, ...]),
        planned=None if decision.task is None else slots_planned(decision.task, plan),
    )


def _first_room(
    room: RoomAhead, slots: int, leased: timedelta, now: datetime, latest: datetime
) -> datetime | None:
    """Return the first hour from which `slots` are free for as long as `leased`, if it starts by `latest`."""
    for number in range(len(room.free)):
        start = max(room.since + number * _HOUR, now)
        if start > latest:
            return None
        last = math.ceil((start + leased - room.since) / _HOUR)
        if last <= len(room.free) and min(room.free[number:last], default=0) >= slots:
            return start
    return None


def usual_use(taken: Iterable[SlotInterval], now: datetime) -> Mapping[int, float]:
    """Return how many slots are usually taken in each hour of the week: the mean of the last weeks, and one deviation.

    Only whole hours count, and none before the first lease: a pool that is new was not idle before.
    """
    last = _hour_of(now)
    first = last - WEEKS_BACK * _WEEK
    used: dict[int, float] = defaultdict(float)
    for one in taken:
        start, end = max(one.start, first), min(one.end, last)
        hour = _hour_of(start)
        while hour < end:
            part = (min(end, hour + _HOUR) - max(start, hour)) / _HOUR
            used[(hour - first) // _HOUR] += part * one.slots
            hour += _HOUR
    hours_a_week = _WEEK // _HOUR
    hours = WEEKS_BACK * hours_a_week
    by_hour: dict[int, list[float]] = defaultdict(list)
    begins = _hour_of_week(first)
    for number in range(min(used, default=hours), hours):
        by_hour[(begins + number) % hours_a_week].append(used.get(number, 0.0))
    return {hour: _careful_mean(seen) for hour, seen in by_hour.items()}


def _careful_mean(seen: Sequence[float]) -> float:
    mean = sum(seen) / len(seen)
    deviation = math.sqrt(sum((one - mean) ** 2 for one in seen) / len(seen))
    return min(mean + deviation, max(seen))


def _hour_of(moment: datetime) -> datetime:
    return moment.astimezone(UTC).replace(minute=0, second=0, microsecond=0)


def _hour_of_week(moment: datetime) -> int:
    return moment.astimezone(UTC).weekday() * 24 + moment.astimezone(UTC).hour


_INSTANT: Final = timedelta(microseconds=1)
